"""What ``corelm new plugin`` writes: for some kinds a small part that is whole, to be changed into one's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Skeleton:
    """A part to begin with.

    Attributes:
        name: of the part, and of its file.
        cls: name of its class.
        summary: first line of the class's docstring.
        code: the file.
    """

    name: str
    cls: str
    summary: str
    code: str


SKELETONS: Final[dict[str, Skeleton]] = {
    "norm": Skeleton(
        "root-mean-square",
        "RootMeanSquare",
        "Divides by the root mean square.",
        '''from typing import Any

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from corelm.kinds import ComponentConfig, Norm


class RootMeanSquare(Norm):
    """Divides by the root mean square.

    ``y = x / √(mean(x²) + eps)``, in float32 or better.
    """

    class Config(ComponentConfig):
        """Options."""

        eps: float = Field(1e-6, gt=0, lt=1, description="Added to the mean square under the root.")

    @property
    def epsilon(self) -> float:
        """What is added to the mean square under the root."""
        return float(self.config.eps)

    def forward(self, x: Float[Tensor, "... dim"]) -> Float[Tensor, "... dim"]:
        """Normalise the last axis."""
        wide: Any = x if x.element_size() >= 4 else x.float()
        return (wide * (wide.square().mean(-1, keepdim=True) + self.epsilon).rsqrt()).to(x.dtype)
''',
    ),
    "activation": Skeleton(
        "softsign",
        "Softsign",
        "x / (1 + |x|).",
        '''from torch import Tensor

from corelm.kinds import Activation


class Softsign(Activation):
    """x / (1 + |x|)."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function to every element."""
        return x / (1 + x.abs())
''',
    ),
    "sampler": Skeleton(
        "margin",
        "Margin",
        "Keeps tokens whose logit is close to the largest.",
        '''import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from corelm.kinds import ComponentConfig, Sampler, UserError


class Margin(Sampler):
    """Keeps tokens whose logit is close to the largest."""

    class Config(ComponentConfig):
        """Options."""

        width: float = Field(5.0, gt=0, description="Largest distance from the largest logit.")

    def __call__(
        self, logits: Float[Tensor, "batch vocab"], ids: Int[Tensor, "batch time"]
    ) -> Float[Tensor, "batch vocab"]:
        """Keep what is within the width."""
        if bool(logits.isnan().any()):
            raise UserError("the model's logits are not numbers")
        far = logits < logits.amax(-1, keepdim=True) - self.config.width
        return logits.masked_fill(far, -torch.inf)
''',
    ),
    "cleaner": Skeleton(
        "trimmed-lines",
        "TrimmedLines",
        "Drops white space at the ends of lines.",
        '''from collections.abc import Iterable, Iterator

from corelm.kinds import Cleaner, Text


class TrimmedLines(Cleaner):
    """Drops white space at the ends of lines."""

    def clean(self, documents: Iterable[Text]) -> Iterator[Text]:
        """Yield every document; those that change are counted as ``trimmed``."""
        for document in documents:
            self.report.seen += 1
            self.report.kept += 1
            text = "\\n".join(line.rstrip() for line in document.text.split("\\n"))
            yield document if text == document.text else self.note_rewritten(document, text, {"trimmed": 1})
''',
    ),
}

PROJECT: Final = """[build-system]
requires = ["hatchling>=1.25"]
build-backend = "hatchling.build"

[project]
name = "{name}"
version = "0.1.0"
description = "{kind}/{part} for corelm"
requires-python = ">=3.11"
dependencies = ["corelm"]

[project.optional-dependencies]
test = ["corelm[test]"]

[project.entry-points.corelm]
{module} = "{module}"

[tool.hatch.build.targets.wheel]
packages = ["{module}"]
"""

REGISTER: Final = '''"""Parts of {name}. Imports neither torch nor the parts, so that listing them stays quick."""

from __future__ import annotations

from typing import Any

from corelm import hookimpl


@hookimpl
def corelm_register(registry: Any) -> None:
    """Register this package's parts."""
    registry.add("{kind}", "{part}", "{module}.{file}:{cls}", summary="{summary}")
'''

TEST: Final = '''"""Every part of this package has the properties of its kind."""

from corelm.conformance import suite

test_conformance = suite("{name}")
'''

README: Final = """# {name}

{summary} A part of kind {kind} for corelm.

    python -m pip install -e ".[test]"
    corelm describe {kind}/{part}
    corelm verify --plugin {name}
    python -m pytest
"""
