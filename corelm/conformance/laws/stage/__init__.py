"""Properties of stages: what can be said of them without a run; ``stage_runs`` runs them."""

from __future__ import annotations

from typing import get_args

from corelm.conformance.framework import Draw, NotApplicable, PartUnderTest, property_of
from corelm.conformance.laws.stage import outcomes, reading
from corelm.conformance.laws.stage import runs as stage_runs
from corelm.conformance.laws.stage.bench import StageBench
from corelm.kinds.stage import ArtifactType, SectionUse

MINIMUM = 2
"""So many of these properties must say something about every part of the kind, and hold."""


__all__ = ["StageBench", "outcomes", "reading", "stage_runs"]


@property_of(
    "stage",
    statement="Inputs are roles with known types, the output has a known type.",
    formula="inputs: role ↦ type, output: type",
    catches="a stage that no other can follow",
    tier="io",
    examples=8,
)
def inputs_and_output_are_typed(part: PartUnderTest, draw: Draw) -> None:
    """Types by name."""
    config = part.bench.subject(part, draw).config
    known = get_args(ArtifactType)
    assert part.cls.output in known, f"output {part.cls.output!r}"
    for role, type_ in part.cls.inputs(config).items():
        assert type_ in known, f"role {role!r} takes a {type_!r}"
        assert role.rstrip("?*").replace("-", "").replace("_", "").isalnum(), f"a role is called {role!r}"


@property_of(
    "stage",
    statement="Which sections of the recipe it reads is said beforehand, in the contract's words, and so are its roles.",
    formula="reads_corpus, reads_template ∈ {never, optional, always}, functions of the config",
    catches="an answer that changes between calls, a word that nobody knows",
    tier="io",
    examples=5,
)
def needs_are_declared(part: PartUnderTest, draw: Draw) -> None:
    """Words and repetition."""
    config = part.bench.subject(part, draw).config
    for reads in (part.cls.reads_corpus, part.cls.reads_template):
        told = reads(config)
        assert told in get_args(SectionUse), f"{reads.__name__} says {told!r}, not one of {get_args(SectionUse)}"
        assert reads(config) == told, f"{reads.__name__}, asked twice, says something else"
    assert isinstance(part.cls.uses_model, bool), f"uses_model is {part.cls.uses_model!r}"
    assert dict(part.cls.inputs(config)) == dict(part.cls.inputs(config)), "asked twice, other roles"


@property_of(
    "stage",
    statement="It makes something out of something: inputs, the recipe's corpus or model, or data of its own.",
    formula="inputs ∪ sections ∪ data ≠ ∅",
    catches="a stage that depends on nothing at all",
    tier="io",
    examples=5,
)
def depends_on_something(part: PartUnderTest, draw: Draw) -> None:
    """Inputs, sections or data of its own."""
    config = part.bench.subject(part, draw).config
    sections = part.cls.reads_corpus(config) != "never" or part.cls.uses_model
    data = "data" in part.cls.Config.model_fields
    assert part.cls.inputs(config) or sections or data, "it takes no input and reads no section"


@property_of(
    "stage",
    statement="Patterns of linear maps that it looks for are named by the options that hold them.",
    formula="chooses(config) = None or {option ↦ patterns}, option ∈ config",
    catches="a pattern of letters: a string where a list of strings is meant",
    tier="io",
    examples=5,
)
def chooses_by_its_options(part: PartUnderTest, draw: Draw) -> None:
    """Options and patterns."""
    config = part.bench.subject(part, draw).config
    chosen = part.cls.chooses(config)
    if chosen is None:
        raise NotApplicable("it replaces no maps")
    for option, patterns in chosen.items():
        first = option.split(".")[0]
        assert first in part.cls.Config.model_fields, f"chooses() names the option {option!r}, which there isn't"
        plain = not isinstance(patterns, str) and all(isinstance(pattern, str) and pattern for pattern in patterns)
        assert plain, f"{option}: {patterns!r} are no patterns"
