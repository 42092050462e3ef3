"""Mixtures: shares, ends, epochs, positions, and the report of what came."""

import json

import pytest
from corelm_data.even_shares import EvenShares
from corelm_data.mixture import Mixture
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from reading import build

from corelm.errors import UserError
from corelm.kinds import Conversation

WEIGHTS = st.lists(st.one_of(st.sampled_from([1.0, 2.0, 0.01, 30.0]), st.floats(0.01, 10)), min_size=1, max_size=7)


@given(weights=WEIGHTS, turns=st.integers(1, 300))
def test_nobody_is_ever_a_turn_behind_or_ahead(weights, turns):
    names = [str(number) for number in range(len(weights))]
    shares = EvenShares(dict(zip(names, weights, strict=True)))
    had = dict.fromkeys(names, 0)
    bound = 1 - 1 / (2 * len(weights) - 2) if len(weights) > 1 else 0
    for number in range(1, turns + 1):
        name = shares.next()
        shares.taken(name)
        had[name] += 1
        for key, weight in zip(names, weights, strict=True):
            assert abs(had[key] - number * weight / sum(weights)) <= bound + 1e-6


def _parts(folder, counts, weights=None):
    parts = {}
    for name, count in counts.items():
        path = folder / f"{name}.jsonl"
        path.write_text("\n".join(json.dumps({"text": f"{name} {n}"}) for n in range(count)), encoding="utf-8")
        parts[name] = {"source": {"use": "jsonl", "path": str(path)}, "weight": (weights or {}).get(name, 1.0)}
    return parts


@given(
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    weights=st.lists(st.sampled_from([1.0, 2.0, 0.3, 5.0]), min_size=4, max_size=4),
    epochs=st.integers(1, 3),
    ends=st.sampled_from(["first", "all"]),
    temperature=st.sampled_from([1.0, 0.5, 3.0]),
)
def test_a_mixture_goes_on_at_any_position(counts, weights, epochs, ends, temperature, tmp_path_factory):
    folder = tmp_path_factory.mktemp("m")
    parts = _parts(folder, {f"p{i}": count for i, count in enumerate(counts)})
    for part, weight in zip(parts.values(), weights, strict=False):
        part["weight"] = weight
    options = {"parts": parts, "epochs": epochs, "ends": ends, "temperature": temperature}
    whole = list(build(Mixture, **options).records())
    assert len({record.name for record in whole}) == len(whole)
    if ends == "all":
        assert len(whole) == epochs * sum(counts)
        assert sorted({record.text for record in whole}) == sorted(
            f"p{i} {n}" for i, c in enumerate(counts) for n in range(c)
        )
    for start in range(len(whole) + 3):
        assert list(build(Mixture, **options).records(start)) == whole[start:]


def test_temperature_evens_shares_out():
    parts = {name: {"source": "python-stdlib", "weight": weight} for name, weight in (("a", 9.0), ("b", 1.0))}
    shares = lambda temperature: dict(build(Mixture, parts=parts, temperature=temperature).shares())  # noqa: E731
    assert shares(1.0) == pytest.approx({"a": 0.9, "b": 0.1})
    assert shares(2.0) == pytest.approx({"a": 0.75, "b": 0.25})
    assert shares(0.5) == pytest.approx({"a": 81 / 82, "b": 1 / 82})
    assert shares(1e9) == pytest.approx({"a": 0.5, "b": 0.5})
    with pytest.raises(ValidationError, match="b has a share of .*raise its weight or the temperature"):
        Mixture.Config(parts=parts, temperature=0.05)


def test_it_ends_with_the_first_part_or_with_all(tmp_path):
    parts = _parts(tmp_path, {"long": 12, "short": 2}, {"long": 3.0})
    names = lambda **options: "".join(r.text[0] for r in build(Mixture, parts=parts, **options).records())  # noqa: E731
    assert names() == "llslllslll"
    assert names(ends="all").count("l") == 12
    assert names(epochs=2, ends="all").count("s") == 4


def test_what_each_part_gave_is_reported(tmp_path):
    source = build(Mixture, parts=_parts(tmp_path, {"a": 3, "b": 3}, {"a": 2.0}), epochs=2, ends="all")
    names = [record.name for record in source.read()]
    first = [f"mixture: a: jsonl: a.jsonl:{line}" for line in (1, 2, 3)]
    assert [name for name in names if name.startswith("mixture: a")] == [
        *first,
        *(f"{name} (epoch 2)" for name in first),
    ]
    assert {name: part.records for name, part in source.report.parts.items()} == {"a": 6, "b": 6}
    assert source.report.sentences("source mixture")[0] == "source mixture: a: 6 records (50.0%), 18 characters"


def test_what_a_part_leaves_out_is_reported_under_its_name(tmp_path):
    parts = _parts(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "b.jsonl").write_text('{"text": "x"}\nbroken\n', encoding="utf-8")
    parts["b"]["source"]["broken"] = "skip"
    source = build(Mixture, parts=parts, ends="all")
    assert len(list(source.read())) == 3
    assert "b: left out as broken-line: 1 (b.jsonl:2)" in source.report.sentences()


def test_parts_without_records_and_of_other_types_are_named(tmp_path):
    with pytest.raises(UserError, match="part b: source jsonl yielded no records"):
        list(build(Mixture, parts=_parts(tmp_path, {"a": 3, "b": 0})).records())
    parts = _parts(tmp_path, {"a": 1, "b": 1})
    parts["b"]["source"]["yields"] = "conversation"
    config = Mixture.Config(parts=parts)
    (problem,) = Mixture.check(config, {})
    assert problem.path == ("parts", "b", "source")
    assert "jsonl yields records of type conversation, the first part text" in problem.message
    assert Mixture.yields(Mixture.Config(parts={"b": parts["b"]})) == "conversation"
    with pytest.raises(ValidationError):
        Mixture.Config(parts={})


def test_other_records_are_mixed_too_and_the_fingerprint_is_that_of_the_parts(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text('{"prompt": "a", "response": "b"}\n', encoding="utf-8")
    parts = {"c": {"source": {"use": "jsonl", "path": str(path), "yields": "conversation"}}}
    source = build(Mixture, parts=parts)
    (record,) = source.read()
    assert isinstance(record, Conversation)
    assert source.report.characters == 2
    before = source.fingerprint()
    path.write_text('{"prompt": "a", "response": "c"}\n', encoding="utf-8")
    assert source.fingerprint() != before
    assert build(Mixture, parts={"d": parts["c"]}).fingerprint() != source.fingerprint()


def test_what_came_before_a_position_is_not_read_again(tmp_path, monkeypatch):
    from corelm_data.jsonl import JsonLines

    parts = _parts(tmp_path, {"a": 40, "b": 40})
    made, whole = [], JsonLines._parsed
    monkeypatch.setattr(
        JsonLines, "_parsed", lambda self, line, name: (made.append(name), whole(self, line, name))[1]
    )
    assert len(list(build(Mixture, parts=parts).records(60))) == 20
    assert len(made) == 22
