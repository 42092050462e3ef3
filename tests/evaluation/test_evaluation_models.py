"""Evaluators with assembled models: reward models, answers, and likelihoods against a direct computation."""

from __future__ import annotations

import json
import math
import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from corelm_data.chatml import ChatTemplate
from corelm_evaluation.last_word import LastWord
from corelm_evaluation.mean_reward import MeanReward
from corelm_evaluation.multiple_choice import MultipleChoice
from corelm_evaluation.pair_accuracy import PairAccuracy
from corelm_evaluation.perplexity import Perplexity
from corelm_tokenizers.bytes import ByteTokenizer

from corelm.errors import UserError
from corelm.kinds import Choice, Conversation, Message, Preference, Spec, Text
from corelm.model.assemble import assemble, initialise
from corelm.model.config import ModelConfig

DATA = Path(os.environ.get("CORELM_DATA", Path(__file__).parents[3] / "shared" / "data"))
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


class Watcher:
    stopping = False

    def step(self, step: int, total: int, figures: Any) -> None: ...

    def note(self, message: str) -> None: ...


def a_model(seed: int = 0, context: int = 256, scalar: bool = False) -> Any:
    section = {
        "dim": 16,
        "layers": 1,
        "context": context,
        "position": "rope",
        "attention": {"use": "gqa", "heads": 2},
        "feedforward": {"use": "swiglu"},
    }
    tokenizer = ByteTokenizer(ByteTokenizer.Config())
    tokenizer.train([], SPECIALS)
    model = assemble(ModelConfig.model_validate(section), tokenizer.vocab_size)
    initialise(model, seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    model.attach(tokenizer, ChatTemplate(ChatTemplate.Config()))
    return (model.with_head(Spec.read("head", "scalar"), seed) if scalar else model).eval()


def pairs(count: int) -> list[Preference]:
    rng = random.Random(5)

    def text() -> str:
        return "".join(rng.choice("abcdef é") for _ in range(rng.randrange(9)))

    return [Preference((Message("user", text()),), text(), text() + "x", f"p{i}") for i in range(count)]


def prompts(count: int) -> list[Conversation]:
    return [Conversation((Message("user", "x" * (i + 1)), Message("assistant", "?")), f"c{i}") for i in range(count)]


def direct_logprobs(model: Any, context: str, continuation: str) -> tuple[float, bool]:
    """One row at a time, from the logits of the whole sequence."""
    start = list(context.encode())
    ids = start + list(continuation.encode())
    predicted = min(len(continuation.encode()), model.context)
    ids = ids[-(model.context + 1) :]
    logprobs = model.logits(torch.tensor([ids[:-1]]))[0].double().log_softmax(-1)[-predicted:]
    targets = torch.tensor(ids[-predicted:])
    total = logprobs[range(predicted), targets].sum().item()
    return total, bool((logprobs.argmax(-1) == targets).all())


def test_pair_accuracy_is_the_share_of_pairs_with_the_higher_score_for_the_chosen_answer():
    model, records = a_model(3, scalar=True), pairs(21)
    margins = []
    for record in records:
        scores = []
        for text in (record.chosen, record.rejected):
            rendered = model.template.render([*record.prompt, Message("assistant", text)], model.tokenizer)
            with torch.no_grad():
                scores.append(model.head(model.hidden(torch.tensor([rendered.ids])))[0, -1, 0].item())
        margins.append(scores[0] - scores[1])
    found = PairAccuracy(PairAccuracy.Config(batch=4)).evaluate(model, records, Watcher())
    assert found["accuracy"] == sum(margin > 0 for margin in margins) / 21
    assert found["margin"] == pytest.approx(sum(margins) / 21, abs=1e-6)
    assert found["pairs"] == 21
    assert 0 < found["accuracy"] < 1


def test_swapping_the_answers_turns_accuracy_and_margin_round():
    model, records = a_model(3, scalar=True), pairs(15)
    turned = [Preference(r.prompt, r.rejected, r.chosen, r.name) for r in records]
    part = PairAccuracy(PairAccuracy.Config(batch=1))
    one, other = (part.evaluate(model, some, Watcher()) for some in (records, turned))
    assert one["accuracy"] + other["accuracy"] == pytest.approx(1)
    assert one["margin"] == pytest.approx(-other["margin"], abs=1e-6)


def test_equal_answers_are_no_success():
    records = [Preference((Message("user", "a"),), "b", "b")]
    assert PairAccuracy(PairAccuracy.Config()).evaluate(a_model(scalar=True), records, Watcher())["accuracy"] == 0


def test_a_constant_added_to_all_rewards_changes_nothing():
    model, records = a_model(3, scalar=True), pairs(9)
    part = PairAccuracy(PairAccuracy.Config())
    before = part.evaluate(model, records, Watcher())
    original = model.scores
    model.scores = lambda *given: original(*given) + 5
    after = part.evaluate(model, records, Watcher())
    assert after["accuracy"] == before["accuracy"]
    assert after["margin"] == pytest.approx(before["margin"], abs=1e-5)


def test_long_conversations_are_judged_by_their_end():
    model = a_model(3, context=32, scalar=True)
    record = Preference((Message("user", "z" * 100),), "yes", "no")
    scores = []
    for text in (record.chosen, record.rejected):
        ids = model.template.render([*record.prompt, Message("assistant", text)], model.tokenizer).ids[-32:]
        with torch.no_grad():
            scores.append(model.scores(torch.tensor([ids]))[0, 0].item())
    found = PairAccuracy(PairAccuracy.Config()).evaluate(model, [record], Watcher())
    assert found["margin"] == pytest.approx(scores[0] - scores[1], abs=1e-6)


def test_the_judge_sees_the_answer_without_its_stop_token_and_the_model_the_end_of_a_long_prompt():
    model, judge = a_model(1, context=64), a_model(3, scalar=True)
    stop = model.template.stop(model.tokenizer)[0]
    prompts_seen: list[list[int]] = []
    judged: list[list[int]] = []

    def generate_ids(ids: torch.Tensor, **_: Any) -> torch.Tensor:
        prompts_seen.extend(ids.tolist())
        return torch.tensor([[104, 105, stop, stop]])

    def scores(ids: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        judged.extend(ids.tolist())
        return torch.ones(len(ids), 1)

    model.generate_ids, judge.scores = generate_ids, scores
    asked = (Message("user", "y" * 100 + "end"),)
    config = MeanReward.Config(answer_tokens=4)
    found = MeanReward(config).evaluate(model, [Conversation(asked)], Watcher(), judge=judge)
    assert prompts_seen == [list(model.template.prompt(asked, model.tokenizer)[-60:])]
    assert judged == [list(judge.template.render([*asked, Message("assistant", "hi")], judge.tokenizer).ids)]
    assert (found["answer_tokens"], found["stopped"], found["reward"]) == (2.0, 1.0, 1.0)


@pytest.mark.parametrize(("part", "records"), [(PairAccuracy, pairs(13)), (MeanReward, prompts(7))])
def test_order_and_batch_size_do_not_matter(part: Any, records: list[Any]):
    judge = a_model(3, scalar=True)
    model = judge if part is PairAccuracy else a_model(1)
    more = {} if part is PairAccuracy else {"sampler": ["temperature"], "answer_tokens": 6}
    expected = part(part.Config(batch=3, **more)).evaluate(model, records, Watcher(), judge=judge)
    mixed = random.Random(0).sample(records, len(records))
    assert part(part.Config(batch=3, **more)).evaluate(model, mixed, Watcher(), judge=judge) == expected
    alone = part(part.Config(batch=1, **more)).evaluate(model, records, Watcher(), judge=judge)
    for name, value in expected.items():
        assert alone[name] == pytest.approx(value, abs=1e-5), name


def test_mean_reward_is_the_mean_of_the_judges_scores_of_the_answers_alone():
    model, judge, records = a_model(1), a_model(3, scalar=True), prompts(6)
    found = MeanReward(MeanReward.Config(answer_tokens=9, batch=4)).evaluate(model, records, Watcher(), judge=judge)
    stop = model.template.stop(model.tokenizer)
    rewards = []
    for record in records:
        ids = torch.tensor([model.template.prompt(record.messages[:1], model.tokenizer)])
        new = model.generate_ids(ids, max_new_tokens=9, stop=stop)[0].tolist()
        answer = model.tokenizer.decode(new[: new.index(stop[0])] if stop[0] in new else new)
        rendered = judge.template.render([*record.prompt, Message("assistant", answer)], judge.tokenizer)
        with torch.no_grad():
            rewards.append(judge.scores(torch.tensor([rendered.ids]))[0, 0].item())
    assert found["reward"] == pytest.approx(sum(rewards) / 6, abs=1e-6)
    assert found["prompts"] == 6
    assert 0 <= found["stopped"] <= 1


def test_an_answer_that_ends_at_once_is_empty_and_counts_as_stopped():
    model, judge = a_model(1), a_model(3, scalar=True)
    stop = model.template.stop(model.tokenizer)[0]
    model.generate_ids = lambda ids, **_: torch.full((len(ids), 2), stop)
    found = MeanReward(MeanReward.Config()).evaluate(model, prompts(3), Watcher(), judge=judge)
    assert (found["stopped"], found["answer_tokens"]) == (1.0, 0.0)


def test_models_are_only_read():
    model, judge = a_model(1), a_model(3, scalar=True)
    model.train()
    model.final_norm.eval()
    modes = [module.training for module in (*model.modules(), *judge.modules())]
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random_state = torch.get_rng_state()
    config = MeanReward.Config(sampler=["temperature"], answer_tokens=4)
    MeanReward(config).evaluate(model, prompts(3), Watcher(), judge=judge)
    PairAccuracy(PairAccuracy.Config()).evaluate(judge, pairs(3), Watcher())
    assert [module.training for module in (*model.modules(), *judge.modules())] == modes
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(parameter.grad is None for parameter in judge.parameters())


def test_rewards_are_read_in_evaluation_mode_without_gradients():
    judge = a_model(3, scalar=True).train()
    original = judge.scores

    def scores(*given: torch.Tensor) -> torch.Tensor:
        assert not any(module.training for module in judge.modules())
        found = original(*given)
        assert not found.requires_grad
        return found

    judge.scores = scores
    PairAccuracy(PairAccuracy.Config()).evaluate(judge, pairs(3), Watcher())
    assert judge.training


def test_wrong_models_are_refused_with_a_sentence():
    with pytest.raises(UserError, match="reads vocabulary, not a score"):
        PairAccuracy(PairAccuracy.Config()).evaluate(a_model(), pairs(2), Watcher())
    with pytest.raises(UserError, match="needs a reward model to judge") as caught:
        MeanReward(MeanReward.Config()).evaluate(a_model(), prompts(2), Watcher())
    assert caught.value.code == "no-judge"
    judge = a_model(scalar=True)
    with pytest.raises(UserError, match="leaves no room for a prompt in a context of 256"):
        MeanReward(MeanReward.Config(answer_tokens=256)).evaluate(a_model(), prompts(2), Watcher(), judge=judge)
    judge.attach(judge.tokenizer, None)
    with pytest.raises(UserError, match="no template"):
        PairAccuracy(PairAccuracy.Config()).evaluate(judge, pairs(2), Watcher())


def test_bits_per_byte_of_short_texts_equal_a_direct_computation():
    model = a_model(1)
    texts = ["Wörter", "a", "of many bytes 🙂", "  two  spaces  "]
    end = model.tokenizer.end_of_text
    nats = 0.0
    for text in texts:
        ids = torch.tensor([[end, *text.encode()]])
        logprobs = model.logits(ids[:, :-1])[0].double().log_softmax(-1)
        nats -= logprobs[range(ids.shape[1] - 1), ids[0, 1:]].sum().item()
    found = Perplexity(Perplexity.Config()).evaluate(model, [Text(text) for text in texts], Watcher())
    size = sum(len(text.encode()) for text in texts)
    assert found["bits_per_byte"] == pytest.approx(nats / size / math.log(2), rel=1e-6)
    # One token per byte.
    assert found["perplexity"] == pytest.approx(found["byte_perplexity"])


@pytest.mark.data
def test_hellaswag_by_a_whole_model_equals_a_direct_computation():
    path = DATA / "hellaswag" / "hellaswag_val_1000.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    docs = [json.loads(line) for line in path.read_text().splitlines()[:10]]
    model = a_model(1, context=400)
    right, right_norm = 0, 0
    for doc in docs:
        logprobs = [direct_logprobs(model, doc["ctx"], " " + ending)[0] for ending in doc["endings"]]
        norms = [logprob / len(ending) for logprob, ending in zip(logprobs, doc["endings"], strict=True)]
        right += logprobs.index(max(logprobs)) == doc["label"]
        right_norm += norms.index(max(norms)) == doc["label"]
    records = [Choice((doc["ctx"],), tuple(doc["endings"]), doc["label"], str(doc["ind"])) for doc in docs]
    found = MultipleChoice(MultipleChoice.Config()).evaluate(model, records, Watcher())
    assert (found["accuracy"], found["accuracy_norm"]) == (right / 10, right_norm / 10)


@pytest.mark.data
def test_lambada_by_a_whole_model_equals_a_direct_computation():
    path = DATA / "lambada" / "lambada_openai.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    docs = [json.loads(line) for line in path.read_text().splitlines()[:20]]
    model = a_model(1)
    direct = [direct_logprobs(model, doc["context"], " " + doc["continuation"]) for doc in docs]
    records = [Text(f"{doc['context']} {doc['continuation']}") for doc in docs]
    found = LastWord(LastWord.Config()).evaluate(model, records, Watcher())
    assert found["accuracy"] == sum(greedy for _, greedy in direct) / 20
    assert math.log(found["perplexity"]) == pytest.approx(-sum(logprob for logprob, _ in direct) / 20, rel=1e-6)
