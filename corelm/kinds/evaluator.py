"""Kind ``evaluator``: a model and records to named metrics."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

from corelm.kinds.component import Component
from corelm.kinds.language_model import LanguageModel, Scorer
from corelm.kinds.records import Record, RecordName
from corelm.kinds.trainer import Watch

Metrics = dict[str, float]


class Evaluator(Component):
    """Measures a model.

    Built as ``Part(config)``; the config has a field ``data: DataConfig | None`` where the task brings its own
    data (None: the held-out part of the recipe's corpus).

    Contract:
        * The model is only read, through the four methods of ``Scorer`` (evaluators of reward models, which
          set ``model_kind``, use ``scores``); its mode and the random state are as before.
        * The result depends on the set of records, not on their order or on batch sizes.
        * Metrics are plain floats; names say the unit (``bits_per_byte``, ``accuracy``); for each accuracy
          there is ``…_stderr``, the standard error of the mean.
        * No records: ``UserError``. An option ``batch``, where there is one, says how many are read at once.
    """

    kind: ClassVar[str] = "evaluator"
    model_kind: ClassVar[str] = "model"
    """Type of artifact that it measures: ``model``, ``reward-model`` or ``classifier``."""
    judged: ClassVar[bool] = False
    """Whether a second model, a reward model, judges what the first one writes; it is given as ``judge``."""
    headline: str = ""
    """The metric that the table of stages shows; a part whose config adds a better one sets it when built."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @classmethod
    @abstractmethod
    def reads(cls, config: Any) -> RecordName:
        """Which records it needs."""

    @abstractmethod
    def evaluate(
        self,
        model: Scorer | LanguageModel,
        records: Iterable[Record],
        watch: Watch,
        *,
        judge: LanguageModel | None = None,
    ) -> Metrics:
        """Measure; ``judge`` is there exactly where the part is ``judged``."""
