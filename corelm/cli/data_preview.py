"""What a recipe would do to its first documents: each step's changes, and the tokens as the model will see them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from corelm.errors import UserError
from corelm.kinds.batch import IGNORE, Batch
from corelm.kinds.component import Spec
from corelm.kinds.data import DataConfig
from corelm.kinds.packer import Tokens
from corelm.kinds.records import (
    EXCERPT,
    Conversation,
    Labelled,
    Message,
    Preference,
    Record,
    Report,
    Text,
    excerpts,
    texts_of,
)
from corelm.kinds.template import Template
from corelm.kinds.tokenizer import END_OF_TEXT, Tokenizer
from corelm.model import loading
from corelm.pipeline.cleaning import empty, readable
from corelm.pipeline.plan import model_config, model_source
from corelm.recipe.reader import Recipe
from corelm.recipe.schema import Load

ROWS, TIME = 2, 512
"""Rows of a batch, and their length where no model says it."""
FEWEST_IDS: Final = 262
"""Vocabulary below which no tokenizer is tried on a preview's few documents."""


@dataclass
class Step:
    """What one cleaner did to one document; excerpts before and after, ``after`` None where it was dropped."""

    name: str
    reasons: dict[str, int] = field(default_factory=dict)
    detail: str = ""
    before: str = ""
    after: str | None = ""


@dataclass
class Previewed:
    """A document with what was done to it; ``text`` is how it begins."""

    name: str
    text: str
    characters: int
    steps: list[Step] = field(default_factory=list)

    @property
    def dropped(self) -> bool:
        """Whether some step dropped it."""
        return any(step.after is None for step in self.steps)


@dataclass(frozen=True)
class Token:
    """One token of a row: what it spells, whether predicting it is learnt, and which document it is of."""

    id: int
    text: str
    learnt: bool
    document: int
    special: bool


@dataclass
class Section:
    """The corpus, or the data of a stage.

    Attributes:
        read: what the source left out on the way to these documents, and what each part of a mixture gave.
        rows: the first rows that its packer makes of these documents.
    """

    title: str
    source: str
    read: list[str]
    documents: list[Previewed] = field(default_factory=list)
    rows: list[list[Token]] = field(default_factory=list)
    packed: str = ""


@dataclass
class Preview:
    """The whole preview; ``notes`` say where the tokenizer is from and the like."""

    name: str
    sections: list[Section]
    notes: list[str]


def preview(recipe: Recipe, documents: int, out: Path | None = None, stages: Sequence[str] = ()) -> Preview:
    """Read and clean the first documents of the corpus and of the stages that train, and tokenize them.

    Args:
        recipe: is not run; nothing is written.
        documents: how many are read of each source.
        out: where run folders are, in one of which the tokenizer may be; default: the recipe's.
        stages: names of those to show; none: the corpus and all stages with data of their own.

    Raises:
        UserError: there is no such stage, or a source can't be read.
    """
    found = _Found(recipe, documents, stages)
    if not found.sections:
        raise UserError(
            "the recipe names no data to preview", remedy="Give it a corpus, or a stage with data.", code="no-data"
        )
    tokenizer, note = _tokenizer(recipe, found.texts(), out)
    for section, data, packing in found.sections:
        if tokenizer is not None:
            store = list(_tokens(data, tokenizer, found.template))
            section.rows, section.packed = _rows(recipe, store, packing, tokenizer)
    sections = [section for section, _, _ in found.sections]
    return Preview(recipe.name, sections, [note, *(line for section in sections for line in section.read)])


class _Found:
    """The documents of all sections, cleaned."""

    def __init__(self, recipe: Recipe, documents: int, stages: Sequence[str]) -> None:
        config = recipe.config
        unknown = [name for name in stages if name not in (*config.stages, "corpus")]
        if unknown:
            raise UserError(
                f"--stage {unknown[0]}: no such stage",
                remedy=f"Stages: corpus, {', '.join(config.stages)}.",
                code="unknown-stage",
            )
        self.template: Template | None = config.template.build() if config.template is not None else None
        self.sections: list[tuple[Section, list[Record], Any]] = []
        packers = [node.spec.config for node in config.stages.values() if hasattr(node.spec.config, "packer")]
        if config.corpus is not None and (not stages or "corpus" in stages):
            training = next((options for options in packers if not hasattr(options, "data")), None)
            self.sections.append((*_section("corpus", config.corpus, documents), training))
        for node in config.stages.values():
            data = getattr(node.spec.config, "data", None)
            if isinstance(data, DataConfig) and (not stages or node.name in stages):
                self.sections.append((*_section(node.name, data, documents), node.spec.config))

    def texts(self) -> list[str]:
        """What a tokenizer could learn from."""
        return [text for _, data, _ in self.sections for record in data for text in texts_of(record)]


def _section(title: str, data: DataConfig, documents: int) -> tuple[Section, list[Record]]:
    """Read the first records and clean them, each under a number as its name."""
    source = data.source.build()
    found = list(itertools.islice(readable(data.source, source.read()), documents))
    if not found:
        raise empty(data.source, source.report.sentences())
    section = Section(title, data.source.name, source.report.sentences(f"source {data.source.name}"))
    section.documents = [_begun(record) for record in found]
    if not all(isinstance(record, Text) for record in found):
        return section, found
    names = {str(number): document for number, document in enumerate(section.documents)}
    texts = [Text(record.text, name) for name, record in zip(names, found, strict=True) if isinstance(record, Text)]
    for spec in data.clean:
        cleaner = spec.build()
        log = cleaner.report = _Log()
        kept = list(cleaner.clean(texts))
        after = {document.name: document.text for document in kept}
        for document in texts:
            names[document.name].steps.append(log.step(spec.name, document, after.get(document.name)))
        texts = kept
    return section, [Text(text.text, names[text.name].name) for text in texts]


def _begun(record: Record) -> Previewed:
    told = "\n\n".join(texts_of(record))
    return Previewed(record.name, told[:EXCERPT], len(told))


class _Log(Report):
    """A report that remembers each document."""

    def __init__(self) -> None:
        super().__init__()
        self._by_name: dict[str, Step] = {}

    def count(self, reason: str, name: str, times: int = 1) -> None:
        super().count(reason, name, times)
        reasons = self._by_name.setdefault(name, Step("")).reasons
        reasons[reason] = reasons.get(reason, 0) + times

    def sample(self, reason: str, name: str, before: str, after: str | None = None, detail: str = "") -> None:
        self._by_name.setdefault(name, Step("")).detail = detail

    def step(self, cleaner: str, document: Text, after: str | None) -> Step:
        """What became of a document."""
        known = self._by_name.get(document.name, Step(""))
        return Step(cleaner, known.reasons, known.detail, *excerpts(document.text, after))


def _tokenizer(recipe: Recipe, texts: Sequence[str], out: Path | None) -> tuple[Tokenizer | None, str]:
    """The run's tokenizer, the loaded one, or one that learns from these texts; and where it is from."""
    config = recipe.config
    trained = Path(out or config.out or "runs") / recipe.name / "tokenizer"
    if loading.find_tokenizer(trained) is not None:
        return loading.load_tokenizer(trained), f"tokenizer: {trained}, made by an earlier run"
    source = Path(config.tokenizer.load) if isinstance(config.tokenizer, Load) else model_source(config)
    if source is not None and loading.find_tokenizer(source) is not None:
        return loading.load_tokenizer(source), f"tokenizer: {source}"
    if not isinstance(config.tokenizer, Spec):
        return None, "no tokens: the recipe names no tokenizer"
    specials = [END_OF_TEXT]
    if config.template is not None:
        specials += [s for s in config.template.part.specials(config.template.config) if s not in specials]
    return _learned(config.tokenizer, texts, specials)


def _learned(choice: Spec[Tokenizer], texts: Sequence[str], specials: Sequence[str]) -> tuple[Tokenizer | None, str]:
    """A tokenizer trained on the preview's few documents; its vocabulary is made smaller until they suffice for it."""
    wanted = size = getattr(choice.config, "vocab_size", 0)
    while True:
        spec = Spec.read("tokenizer", {**choice.dump(), "vocab_size": size}) if size != wanted else choice
        tokenizer = spec.build()
        try:
            tokenizer.train(iter(texts), specials)
        except UserError as error:
            size = size * 3 // 4
            if size < FEWEST_IDS:
                return None, f"no tokens: {choice.name} can't be trained on these documents: {error.message}"
            continue
        of = f", {tokenizer.vocab_size:,} instead of {wanted:,} ids" if size != wanted else ""
        return tokenizer, (
            f"tokenizer: {choice.name}, trained on the documents of this preview alone{of}; the run's will cut otherwise"
        )


def _tokens(data: Iterable[Record], tokenizer: Tokenizer, template: Template | None) -> Iterator[Tokens]:
    """Documents as stages tokenize them: conversations by the template, with the mask of what is learnt."""
    for number, record in enumerate(data):
        if isinstance(record, Conversation):
            yield from _rendered([record.messages], tokenizer, template, record.name, -1)
        elif isinstance(record, Preference):
            answers = [(*record.prompt, Message("assistant", said)) for said in (record.chosen, record.rejected)]
            yield from _rendered(answers, tokenizer, template, record.name, number)
        elif isinstance(record, Text | Labelled):
            ids = np.array(tokenizer.encode(record.text), dtype=np.int64)
            yield Tokens(ids, name=record.name, label=record.label if isinstance(record, Labelled) else -1)


def _rendered(
    said: Sequence[Sequence[Message]], tokenizer: Tokenizer, template: Template | None, name: str, group: int
) -> Iterator[Tokens]:
    for messages in said if template is not None else ():
        assert template is not None
        rendered = template.render(messages, tokenizer)
        ids, learn = np.array(rendered.ids, dtype=np.int64), np.array(rendered.learn, dtype=bool)
        yield Tokens(ids, learn, name, group)


def _rows(recipe: Recipe, store: list[Tokens], packing: Any, tokenizer: Tokenizer) -> tuple[list[list[Token]], str]:
    """The first rows that the stage's packer makes; without a packer the documents as they are."""
    speller = _Speller(tokenizer)
    if not any(len(tokens.ids) for tokens in store):
        return [], "no document is left"
    packer: Spec[Any] | None = getattr(packing, "packer", None)
    if packer is None:
        return [speller.document(tokens, number) for number, tokens in enumerate(store[:ROWS])], "each by itself"
    model = model_config(recipe.config)
    time = getattr(packing, "time", None) or (model.context if model is not None else TIME)
    part = packer.build()
    fitting = _fitting(store, time)
    if not fitting:
        return [], f"all {len(store)} are longer than {time:,} tokens, and left out"
    try:
        stream = part.stream(
            fitting, batch=ROWS, time=time, seed=recipe.config.seed, end_of_text=tokenizer.end_of_text, epochs=1
        )
        batch = next(iter(stream), None)
    except UserError as error:
        return [], f"{packer.name}: {error.message}"
    if batch is None:
        return [], f"{packer.name}: too few documents here for a batch"
    packed = f"the first rows that {packer.name} makes, {time:,} tokens each"
    if len(fitting) < len(store):
        packed += f"; {len(store) - len(fitting)} of {len(store)} are longer and left out"
    objective: Spec[Any] | None = getattr(packing, "objective", None)
    if objective is not None and objective.part.reads != "logprobs":
        return speller.rows(batch, learns=False), f"{packed}; {objective.name} learns from rows as a whole"
    return speller.rows(batch), packed


def _fitting(store: Sequence[Tokens], time: int) -> list[Tokens]:
    """Without conversations that are longer than a row, which stages leave out; of a pair both go."""
    long = [tokens.learn is not None and len(tokens.ids) > time + 1 for tokens in store]
    pairs = {tokens.group for tokens, out in zip(store, long, strict=True) if out and tokens.group >= 0}
    return [tokens for tokens, out in zip(store, long, strict=True) if not out and tokens.group not in pairs]


class _Speller:
    """Ids as tokens that people can read."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer, self._specials = tokenizer, set(tokenizer.specials.values())

    def _token(self, number: int, learnt: bool, document: int) -> Token:
        text = self._tokenizer.decode_bytes([number]).decode("utf-8", "backslashreplace")
        return Token(number, text, learnt, document, number in self._specials)

    def document(self, tokens: Tokens, number: int) -> list[Token]:
        """One document; all of it but the first token is learnt unless it says otherwise."""
        learn = tokens.learn if tokens.learn is not None else np.arange(len(tokens.ids)) > 0
        marked = zip(tokens.ids.tolist(), learn.tolist(), strict=True)
        return [self._token(token, learnt, number) for token, learnt in marked]

    def rows(self, batch: Batch, learns: bool = True) -> list[list[Token]]:
        """A batch; a token is learnt where the one before it has it as target. Padding is left out."""
        made = []
        for row in range(len(batch.ids)):
            valid = batch.valid[row].tolist() if batch.valid is not None else [True] * batch.ids.shape[1]
            documents = batch.documents[row].tolist() if batch.documents is not None else [0] * len(valid)
            learnt = [False, *(learns and target != IGNORE for target in batch.targets[row].tolist())]
            everything = zip(batch.ids[row].tolist(), learnt, documents, valid, strict=False)
            made.append([self._token(number, marked, doc) for number, marked, doc, real in everything if real])
        return made
