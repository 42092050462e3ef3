"""What holds for every family that there is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from corelm_interchange.family import families, family_for
from corelm_interchange.fields import Values
from corelm_interchange.normal import differences, normal_form, same
from corelm_interchange.tensors import places
from hypothesis import assume, given
from hypothesis import strategies as st

from corelm.model.assemble import assemble
from corelm.model.config import ModelConfig

sys.path.append(str(Path(__file__).parents[1] / "parity"))
pytest.importorskip("transformers")
from architectures import drawn_configs

NAMES = sorted(families())


def read_fields(family, config):
    values, notes = family.read_config(config)
    assert notes == []
    assume(family.refused(values) is None)
    return values


@pytest.mark.parametrize("name", NAMES)
@given(st.data())
def test_fields_to_section_to_fields_is_the_identity(name, data):
    family = families()[name]
    values = read_fields(family, data.draw(drawn_configs(family)))
    section = family.section(values)
    found, missing = family.solve(normal_form(section))
    assert missing == []
    again, notes = family.read_config(family.config(found))
    assert notes == []
    assert list(differences(normal_form(section), normal_form(family.section(again)))) == []
    # A field comes back unless the model doesn't show it; then the section was the same above without it.
    for field in found.given:
        if field in values.given and not field.startswith("rope."):
            shown = {**found.given, field: values.given[field]}
            assert same(values.ours(field), found.ours(field)) or same(
                normal_form(family.section(Values(family.fields, shown))), normal_form(section)
            )


@pytest.mark.parametrize("name", NAMES)
@given(st.data())
def test_rules_name_every_tensor_of_the_model_once(name, data):
    family = families()[name]
    values = read_fields(family, data.draw(drawn_configs(family)))
    section = family.section(values)
    model = assemble(ModelConfig.model_validate(section), 0, device="meta")
    found = places(family, values, normal_form(section)["names"])
    ours = [one for layouts in found for one in layouts[0].ours]
    assert sorted(ours) == sorted(model.state_dict())
    theirs = [one for layouts in found for one in layouts[0].theirs]
    assert len(set(theirs)) == len(theirs)


@pytest.mark.parametrize("name", NAMES)
@given(st.data())
def test_a_model_goes_back_to_the_family_that_it_came_from(name, data):
    family = families()[name]
    section = family.section(read_fields(family, data.draw(drawn_configs(family))))
    assert family_for(normal_form(section))[0].name == name


@pytest.mark.parametrize("name", NAMES)
def test_layers_that_a_family_lacks_are_refused(name):
    family = families()[name]
    first = {key: one.examples[0] for key, one in family.file.config.items() if one.examples}
    section = family.section(family.read_config(first)[0])
    section["position"] = [{"use": "alibi", "scale": 0.123}]
    section.pop("pattern", None), section.pop("patterns", None), section.pop("blocks", None)
    values, missing = family.solve(normal_form(section))
    assert values is None and missing


@pytest.mark.parametrize("name", NAMES)
def test_files_name_only_what_there_is(name):
    assert families()[name].mistakes() == []
