"""Evaluators whose figures are of something else: of another error, of half a text, of a model that can't be asked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from pydantic import Field

from corelm.conformance.bugs.evaluator import Choices
from corelm.conformance.planted import plant, reference
from corelm.errors import UserError
from corelm.kinds.batch import pad_rows
from corelm.kinds.component import ComponentConfig
from corelm.kinds.evaluator import Evaluator, Metrics
from corelm.kinds.language_model import Request
from corelm.kinds.records import Conversation, Labelled, Message, Preference, Record, RecordName, Text


@plant("means_and_errors_are_of_the_records", "the variance of the sample, not that of the population it is from")
class NoCorrection(Choices):
    """Too small by a tenth where there are six."""

    def error(self, variance: float, count: int) -> float:
        return math.sqrt(variance * (count - 1) / count / count)


@reference
class Passages(Evaluator):
    """Perplexity per passage, of its end."""

    headline = "perplexity"

    class Config(ComponentConfig):
        """Options."""

        tokens: int | None = Field(None, ge=1, description="No further passage once there are so many tokens.")

    @classmethod
    def reads(cls, config: Any) -> RecordName:
        """Text."""
        return "text"

    def evaluate(self, model: Any, records: Iterable[Record], watch: Any, *, judge: Any = None) -> Metrics:
        """All passages, or as many as are wanted."""
        found = sorted(record.text for record in records if isinstance(record, Text))
        if not found:
            raise UserError("there is nothing to measure")
        taken: list[str] = []
        size = 0
        for text in found:
            if self.config.tokens is not None and self.reached(size, self.config.tokens):
                break
            taken.append(text)
            size += len(model.tokenize(text))
        answers = model.loglikelihood([self.request(text) for text in taken])
        nats = -math.fsum(answer.logprob for answer in answers) / len(answers)
        return {"perplexity": self.power(nats), "documents": float(len(taken)), "tokens": float(size)}

    def reached(self, size: int, wanted: int) -> bool:
        """Whether there are enough."""
        return size >= wanted

    def request(self, text: str) -> Request:
        """The last three characters after all others."""
        return Request(text[:-3], text[-3:])

    def power(self, nats: float) -> float:
        """Of e."""
        return math.exp(nats) if nats < 700 else math.inf


@plant("perplexity_is_the_exponential", "a power of two, of nats")
class PowerOfTwo(Passages):
    """Smaller than it is."""

    def power(self, nats: float) -> float:
        return float(2**nats) if nats < 700 else math.inf


@plant("perplexity_is_the_exponential", "an overflow where a model is very bad")
class Overflows(Passages):
    """Raises."""

    def power(self, nats: float) -> float:
        return math.exp(nats)


@plant("asks_about_the_text_as_it_is", "the space at the cut is on neither side")
class LosesTheSpace(Passages):
    """As if the passage had none."""

    def request(self, text: str) -> Request:
        context, _, word = text.rpartition(" ")
        return Request(context, word)


@plant("token_limits_take_whole_documents", "one passage more than is needed")
class OneTooMany(Passages):
    """Greater where greater or equal is meant."""

    def reached(self, size: int, wanted: int) -> bool:
        return size > wanted


@reference
class Prefers(Evaluator):
    """How often a reward model prefers the chosen answer."""

    model_kind = "reward-model"
    headline = "accuracy"

    class Config(ComponentConfig):
        """Nothing."""

    @classmethod
    def reads(cls, config: Any) -> RecordName:
        """Pairs."""
        return "preference"

    def evaluate(self, model: Any, records: Iterable[Record], watch: Any, *, judge: Any = None) -> Metrics:
        """All pairs."""
        pairs = [record for record in records if isinstance(record, Preference)]
        if not pairs:
            raise UserError("there is nothing to measure")
        self.accept(model)
        right = [self.right(*(self.score(model, pair, a) for a in (pair.chosen, pair.rejected))) for pair in pairs]
        mean = math.fsum(right) / len(right)
        variance = math.fsum((value - mean) ** 2 for value in right) / max(len(right) - 1, 1)
        return {"accuracy": mean, "accuracy_stderr": math.sqrt(variance / len(right))}

    def accept(self, model: Any) -> None:
        """It gives one score."""
        if model.head.reads != "scalar":
            raise UserError("the model gives no score")

    def right(self, chosen: float, rejected: float) -> float:
        """Above."""
        return float(chosen > rejected)

    def score(self, model: Any, pair: Preference, answer: str) -> float:
        """Of one conversation."""
        ids = model.template.render([*pair.prompt, Message("assistant", answer)], model.tokenizer).ids
        return float(model.scores(*pad_rows([self.cut(ids, model.context)]))[0, 0])

    def cut(self, ids: Sequence[int], context: int) -> Sequence[int]:
        """Its end."""
        return ids[-context:]


@plant("indifference_earns_nothing", "equal scores count as right")
class EqualIsRight(Prefers):
    """Right about everything without an opinion."""

    def right(self, chosen: float, rejected: float) -> float:
        return float(chosen >= rejected)


@plant("long_records_are_measured", "all of a record counts, whatever the context")
class ReadsLengths(Prefers):
    """What is left of a length by four is added."""

    def score(self, model: Any, pair: Preference, answer: str) -> float:
        ids = model.template.render([*pair.prompt, Message("assistant", answer)], model.tokenizer).ids
        return super().score(model, pair, answer) + 10 * (len(ids) % 4)


@plant("knowing_all_is_one", "the answer is cut off, not the beginning")
class KeepsTheBeginning(Prefers):
    """Judges prompts."""

    def cut(self, ids: Sequence[int], context: int) -> Sequence[int]:
        return ids[:context]


@plant("other_models_are_refused", "the first logit of a vocabulary is taken for a score")
class TakesAnyModel(Prefers):
    """Numbers come out."""

    def accept(self, model: Any) -> None:
        pass

    def score(self, model: Any, pair: Preference, answer: str) -> float:
        if model.head.reads == "scalar":
            return super().score(model, pair, answer)
        ids = model.template.render([*pair.prompt, Message("assistant", answer)], model.tokenizer).ids
        return float(model.logits(pad_rows([self.cut(ids, model.context)])[0])[0, -1, 0])


@reference
class Rewarded(Evaluator):
    """How a judge likes what a model answers."""

    judged = True
    headline = "reward"
    wanted = 4

    class Config(ComponentConfig):
        """Nothing."""

    @classmethod
    def reads(cls, config: Any) -> RecordName:
        """Conversations."""
        return "conversation"

    def evaluate(self, model: Any, records: Iterable[Record], watch: Any, *, judge: Any = None) -> Metrics:
        """All, one by one, greedily."""
        asked = [record for record in records if isinstance(record, Conversation)]
        if not asked or judge is None:
            raise UserError("there is nothing to measure, or nobody to judge it")
        mode = model.module.training
        model.module.eval()
        found = [self.reward(model, judge, record) for record in sorted(asked, key=repr)]
        model.module.train(mode)
        return {"reward": math.fsum(found) / len(found)}

    def reward(self, model: Any, judge: Any, record: Conversation) -> float:
        """The judge's score of the answer alone."""
        prompt = model.template.prompt(record.prompt, model.tokenizer)[-self.room(model.context) :]
        written = model.generate_ids(pad_rows([prompt])[0], max_new_tokens=self.wanted)
        return float(judge.scores(written)[0, 0])

    def room(self, context: int) -> int:
        """What the answer leaves."""
        return context - self.wanted


@plant("prompts_fill_the_context", "a prompt as long as its answer")
class ForgetsTheQuestion(Rewarded):
    """The two lengths are confused."""

    def room(self, context: int) -> int:
        return self.wanted


@plant("other_models_are_refused", "a judge is asked for and never consulted")
class AsksInVain(Rewarded):
    """The length of the answer is reward enough."""

    def evaluate(self, model: Any, records: Iterable[Record], watch: Any, *, judge: Any = None) -> Metrics:
        return {"reward": float(len(list(records)))}


@reference
class Guesses(Evaluator):
    """How often a classifier is right."""

    model_kind = "classifier"
    headline = "accuracy"

    @classmethod
    def reads(cls, config: Any) -> RecordName:
        """Labelled texts."""
        return "labelled"

    def evaluate(self, model: Any, records: Iterable[Record], watch: Any, *, judge: Any = None) -> Metrics:
        """One text after the other."""
        if model.head.reads != "classes":
            raise UserError("the model is no classifier")
        found = [self.right(model, record) for record in records if isinstance(record, Labelled)]
        if not found:
            raise UserError("there is nothing to measure")
        mean = math.fsum(found) / len(found)
        spread = math.fsum((value - mean) ** 2 for value in found) / max(len(found) - 1, 1)
        return {"accuracy": mean, "accuracy_stderr": math.sqrt(spread / len(found))}

    def right(self, model: Any, record: Labelled) -> float:
        """Whether the largest logit is that of its class."""
        training = model.training
        model.eval()
        ids, valid = pad_rows([self.row(model, record.text)[-model.context :]])
        with torch.no_grad():
            guess = int(model.scores(ids, valid)[0].argmax())
        model.train(training)
        return float(guess == record.label)

    def row(self, model: Any, text: str) -> list[int]:
        """As in training."""
        return [*model.tokenizer.encode(text), model.tokenizer.end_of_text]


@plant("texts_are_shown_with_their_end", "the text as it is")
class WithoutAnEnd(Guesses):
    """The last letter is asked, which was never trained."""

    def row(self, model: Any, text: str) -> list[int]:
        return list(model.tokenizer.encode(text))
