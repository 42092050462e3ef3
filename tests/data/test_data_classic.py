"""The classic corpora, from copies of their repositories made here."""

import gzip
import json

import pyarrow
import pytest
from corelm_data.classic_corpora import CORPORA, ClassicCorpus
from pyarrow import parquet
from reading import build, read

from corelm.errors import UserError

README = "---\nconfigs:\n{}---\n# A corpus\n"


def _configs(*configs):
    return README.format(
        "".join(
            f"- config_name: {name}\n  data_files:\n  - split: {split}\n    path: {path}\n"
            for name, split, path in configs
        )
    )


def _parquet(path, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table(columns), path)


def _wikipedia(root):
    for language, text in (("en", "Cats sleep."), ("de", "Katzen schlafen.")):
        columns = {"id": ["1"], "url": ["u"], "title": ["Cat"], "text": [text]}
        _parquet(root / f"20231101.{language}" / "train-00000-of-00001.parquet", **columns)
    return _configs(*((f"20231101.{x}", "train", f"20231101.{x}/train-*") for x in ("en", "de")))


def _bookcorpus(root):
    _parquet(root / "plain_text" / "train" / "0000.parquet", text=["the cat slept ."])
    return _configs(("plain_text", "train", "plain_text/train/*.parquet"))


def _openwebtext(root):
    for number in range(2):
        _parquet(root / "plain_text" / f"train-{number:05}-of-00002.parquet", text=[f"page {number}"])
    return _configs(("plain_text", "train", "plain_text/train-*"))


def _c4(root):
    (root / "en").mkdir(parents=True)
    for split in ("train", "validation"):
        row = json.dumps({"text": f"a page to {split}", "timestamp": "2019-04-25T12:57:54Z", "url": "http://x"})
        (root / "en" / f"c4-{split}.00000-of-00001.json.gz").write_bytes(gzip.compress(f"{row}\n".encode()))
    return (
        "---\nconfigs:\n- config_name: en\n  data_files:\n  - split: train\n    path: en/c4-train.*.json.gz\n"
        "  - split: validation\n    path: en/c4-validation.*.json.gz\n---\n"
    )


def _fineweb(root):
    columns = {"text": ["a fine page"], "id": ["<urn>"], "dump": ["CC"], "token_count": [3], "score": [0.9]}
    _parquet(root / "sample" / "10BT" / "000_00000.parquet", **columns)
    _parquet(root / "data" / "CC-MAIN-2024-10" / "000_00000.parquet", **columns | {"text": ["one of all"]})
    return _configs(("default", "train", "data/*/*"), ("sample-10BT", "train", "sample/10BT/*"))


def _tinystories(root):
    for split in ("train", "validation"):
        _parquet(root / "data" / f"{split}-00000-of-00001.parquet", text=[f"Once upon a {split}."])
    return "---\nlicense: cdla-sharing-1.0\n---\n"


@pytest.mark.parametrize(
    ("corpus", "write", "options", "expected"),
    [
        ("wikipedia", _wikipedia, {}, ["Cats sleep."]),
        ("wikipedia", _wikipedia, {"configuration": "20231101.de"}, ["Katzen schlafen."]),
        ("bookcorpus", _bookcorpus, {}, ["the cat slept ."]),
        ("openwebtext", _openwebtext, {}, ["page 0", "page 1"]),
        ("c4", _c4, {}, ["a page to train"]),
        ("c4", _c4, {"split": "validation"}, ["a page to validation"]),
        ("fineweb", _fineweb, {}, ["a fine page"]),
        ("fineweb", _fineweb, {"configuration": "default"}, ["one of all"]),
        ("tinystories", _tinystories, {}, ["Once upon a train."]),
    ],
)
def test_a_copy_of_the_repository_is_read(corpus, write, options, expected, tmp_path):
    (tmp_path / "README.md").write_text(write(tmp_path), encoding="utf-8")
    source = build(ClassicCorpus, corpus=corpus, files=str(tmp_path), **options)
    records = list(source.read())
    assert [record.text for record in records] == expected
    assert records[0].name == f"classic: {corpus} [{options.get('split', 'train')}], row 0"
    assert list(source.records(1)) == records[1:]
    (note,) = source.notes()
    assert note.startswith(f"corpus {corpus} ({CORPORA[corpus].repository}): ")


@pytest.mark.parametrize("corpus", CORPORA)
def test_every_name_reaches_the_library_with_its_configuration(corpus, monkeypatch):
    asked = {}

    class Library:
        @staticmethod
        def load_dataset(**options):
            asked.update(options)
            return [{CORPORA[corpus].column: "a"}]

    monkeypatch.setattr("corelm_data.hugging_face._library", lambda: Library)
    assert [record.text for record in read(ClassicCorpus, corpus=corpus)] == ["a"]
    entry = CORPORA[corpus]
    assert asked == {
        "path": entry.repository,
        "name": entry.configuration,
        "revision": entry.revision,
        "split": entry.split,
        "streaming": True,
    }


def test_without_a_network_the_way_to_a_copy_is_told(monkeypatch):
    class Library:
        @staticmethod
        def load_dataset(**options):
            raise ConnectionError("Couldn't reach the hub")

    monkeypatch.setattr("corelm_data.hugging_face._library", lambda: Library)
    with pytest.raises(UserError) as caught:
        read(ClassicCorpus, corpus="bookcorpus")
    assert "source classic: bookcorpus/bookcorpus [train]: ConnectionError: Couldn't reach the hub" in str(
        caught.value
    )
    assert (
        "`hf download bookcorpus/bookcorpus --repo-type dataset --revision refs/convert/parquet --local-dir FOLDER`"
        in caught.value.remedy
    )


def test_rows_without_text_are_refused_or_counted(tmp_path):
    _parquet(tmp_path / "data" / "train-0.parquet", text=["a", None, "b"])
    with pytest.raises(UserError, match=r"\[train\], row 1: column 'text': expected text, found NoneType"):
        read(ClassicCorpus, corpus="tinystories", files=str(tmp_path))
    source = build(ClassicCorpus, corpus="tinystories", files=str(tmp_path), broken="skip")
    assert [record.text for record in source.read()] == ["a", "b"]
    assert source.report.left_out == {"broken-row": 1}
    assert source.report.records == 2
    assert [record.text for record in source.records(1)] == ["b"]
    _parquet(tmp_path / "data" / "train-0.parquet", text=[None, "a", "b"])
    assert [record.text for record in source.records(1)] == ["b"]


def test_what_a_download_notes_beside_the_data_is_no_data(tmp_path):
    _parquet(tmp_path / "data" / "train-0.parquet", text=["a"])
    source = build(ClassicCorpus, corpus="tinystories", files=str(tmp_path))
    before = source.fingerprint()
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "time").write_text("now", encoding="utf-8")
    assert source.fingerprint() == before
    _parquet(tmp_path / "data" / "train-0.parquet", text=["b"])
    assert source.fingerprint() != before


def test_a_folder_that_is_not_there_and_a_configuration_that_is_none_are_named(tmp_path):
    with pytest.raises(UserError, match="source classic: .*none: no such file or folder"):
        read(ClassicCorpus, corpus="c4", files=str(tmp_path / "none"))
    (tmp_path / "README.md").write_text(_wikipedia(tmp_path), encoding="utf-8")
    with pytest.raises(UserError, match=r"BuilderConfig '20231101.xx' not found"):
        read(ClassicCorpus, corpus="wikipedia", files=str(tmp_path), configuration="20231101.xx")
