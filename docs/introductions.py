"""What each kind is for, and what can go wrong with it, for the page about properties."""

KINDS: dict[str, str] = {
    "activation": """The function between the two maps of a feed-forward, applied to each number on its own; in a gated
feed-forward a pair of numbers goes in, the *gate* and the *value*, and the function of the gate multiplies the value. A
wrong one trains nearly as well as the right one, so that nobody notices until weights of another library are loaded. Hence
parts whose name the field knows are held to the function of that name.""",
    "adapter": """An adapter wraps a linear map `W` with a small trainable addition and leaves `W` as it is. Training must
begin at the model that was there before, only the addition may move, and afterwards the two must merge into one map that
computes the same.""",
    "aligner": """An aligner makes experience, pairs of answers or answers with rewards, and the loss that learns from it;
the trainer does the rest. Its formulas are short and full of signs, and a model that is aligned with a wrong one still
writes fluent text. *Preferences* compare two answers by the ratio of their likelihoods under the policy and a frozen
reference, `z = β[(log π_c − log ref_c) − (log π_r − log ref_r)]`; *policy gradients* follow answers in proportion to their
advantage.""",
    "attention": """Attention is the only part of a layer that moves information between tokens. Each token asks with a
query, all earlier ones answer with a key and a value, and the softmax of the scores says how much of which value is taken;
linear and recurrent mixers keep a state of fixed size instead. While a text is written token by token, keys and values (or
the state) are stored, so that there are always two ways to compute the same thing: at once, and in pieces. Most bugs
are differences between the two, leaks from the future, or tokens that see padding or another document. All of that can be
said without knowing the formula.""",
    "block": """A block wires a layer: what is normalised, which branch reads what, and what is added to the residual stream.
It mixes no tokens and computes nothing of its own, so its branches can be replaced by ones that do as little as possible,
and what is left over is the block's.""",
    "cleaner": """Cleaners drop documents or rewrite them, one after the other, as a stream that may be larger than the memory.
What they did must be accounted for, with counts and with samples that people can look at; nothing may come into a text that
was not there; and a document's fate must not depend on what comes after it.""",
    "connection": """How sub-layers read from the residual stream and write to it; usually they read it as it is and add
their result. Whatever else a connection does, writing nothing must change nothing, and tokens must not mix.""",
    "embedding": """The first step of a model: each token id is looked up in a table. The same table may serve at the other
end, where a *tied* head compares hidden states with all of its rows; hence what is said about the way back.""",
    "evaluator": """An evaluator turns a model and records into named figures. It must leave the model as it found it, and
its means must be means: what weighs the last, smaller batch like all others gives figures that depend on the batch size.""",
    "feedforward": """A feed-forward transforms each token on its own, densely or by *experts*: a router gives each token to a
few of many small feed-forwards and adds their results by weight. Tokens that influence each other are the one thing that must
never happen, and with experts it happens easily: by capacities, by sorting, by results that are written over each other.""",
    "head": """The last step of a model: hidden states to logits of the next token, to classes, or to one number. A tied head
has no matrix of its own and must follow the embedding's table, wherever that goes.""",
    "init": """Before training, each parameter is drawn according to its role and its sizes. A wrong deviation makes deep models
diverge or learn slowly, and nothing else shows it.""",
    "interchange": """Reads models from another library's files and writes them. Nothing is as easy to get nearly right: a
transposed square matrix, two halves in the other order, an epsilon that falls back to a default all give a model that
speaks, only worse.""",
    "kernel": """Multiplies activations with quantized weights without unpacking all of them first. What it must compute is
plain: the product with the weights that the codes stand for, up to the rounding of the activations' type.""",
    "mask": """A rule about pairs: may this query look at that key? It is asked by absolute index and must give the same answer
whichever slice of queries and keys is asked for; else a model sees other things when it writes than when it was trained.""",
    "norm": """A norm brings each token's features to a common size: they are divided by the root of their mean square, perhaps
after their mean is subtracted, and multiplied by a learnt gain. Below, σ² is that mean square, and ε the small number that
keeps the division from 0/0. Where ε stands, in which precision the mean is taken and over which axis: each has been got wrong
in a published implementation, and each has a closed form that shows it.""",
    "objective": """What is minimised, as a pure function of what the model says about a batch. It gives a *sum* and a *count*,
never a mean: only then are micro-batches of unequal length, and processes with unequal shares, one large batch.""",
    "optimizer": """Turns gradients into steps, by the role of each parameter, and keeps running means in its state. Its
formulas are exact, so it is held to them in float64; and its state must resume to the bit.""",
    "packer": """Arranges documents of unequal length in rows, and says what each token is to predict. Every token is there
exactly once per epoch, every pair of neighbours in a document is taught once, and none across documents. Several processes
share one stream, which must go on where it stopped.""",
    "position": """Attention alone can't tell the order of its tokens. Positions are told by turning queries and keys (a
*rotation*), by lowering scores with distance (a *bias*), by scaling queries, or by adding a vector to the embedding. What is
common to most: only differences of positions matter, and position 100 000 is as precise as position 1.""",
    "quantizer": """Rounds weights to a few bits. The weights of a group share a *step* and a *zero point*; a code `c`
stands for `(c − zero) · step`. Rounding to the nearest point of the grid is never more than half a step off, which
is the strongest law that there is here: most published bugs (a clamped zero point, a wrong last group, floor for round)
break it.""",
    "router": """Scores all experts for each token and picks a few, with the weights that their results are added by. Picked and
weighed must be the same experts, in the same order, and in enough precision that near ties don't flip.""",
    "sampler": """A filter of the next token's logits: it lowers some, and removes others by −∞. Each has a definition in one
line, and an off-by-one at its edge that was published many times.""",
    "scaling": """Changes the frequencies of a rotation, so that a model reads longer texts than it was trained on. Where the
length of the document matters, it is that of each token's own document, from a declared length on.""",
    "schedule": """The learning rate as a pure function of the step and the number of steps. Resuming asks for any step in any
order, so nothing may be counted inside.""",
    "source": """Yields records, each with a name that a message can point at. After a stop it goes on from a position, so the
n-th record must be the same one every time.""",
    "stage": """One step of a pipeline. The pipeline reads beforehand what a stage takes and makes, so that a run of a day
doesn't fail in its last hour; what is declared must therefore be true, and the same each time it is asked.""",
    "template": """Renders a conversation as token ids, and marks which of them are learnt: the assistant's words and the token
that ends them. What stands before an answer in training must stand there in generation, to the last space, and no content
may open a turn.""",
    "tokenizer": """Turns text into ids and back. Everything that a model will ever see goes through it, so nothing may get
lost: whatever the text (emoji, combining marks, half a line break, the name of a special token), decoding gives it back.""",
    "tracker": """Is told what happens in a run and writes it down. It must be cheap, must survive whatever it is told, and must
change nothing.""",
    "trainer": """The loop itself: gradients of micro-batches are added up, clipped and given to the optimizer, and all of
it can be stopped and resumed. Its bugs cost little at a time (a mean of means, a schedule that counts micro-batches, a random
state that begins over), are invisible in a curve of the loss, and have been found in every large library.""",
}
