"""Write tests/fixtures/evaluation/lm_eval.json with lm-evaluation-harness; run in an environment of its own.

    pip install lm_eval==0.4.13
    CORELM_DATA=… python tests/parity/make_evaluation_fixtures.py

The model is a hash of the strings it is asked about, so the fixture holds the *tasks*: how requests are made of
records and metrics of answers. The same hash is in tests/evaluation/.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("CORELM_DATA", ROOT.parent.parent / "shared" / "data"))
SEED = 20_260_102
MEAN = {"aggregation": "mean", "higher_is_better": True}
MULTIPLE = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{query}}",
    "doc_to_target": "{{gold}}",
    "doc_to_choice": "choices",
    "metric_list": [{"metric": "acc", **MEAN}, {"metric": "acc_norm", **MEAN}],
}
LAST_WORD = {
    "output_type": "loglikelihood",
    "doc_to_text": "{{text.split(' ')[:-1]|join(' ')}}",
    "doc_to_target": "{{' '+text.split(' ')[-1]}}",
    "metric_list": [
        {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
        {"metric": "acc", **MEAN},
    ],
}


def pseudo(context: str, continuation: str) -> tuple[float, bool]:
    number = int.from_bytes(hashlib.sha256(f"{context}\0{continuation}".encode()).digest()[:6], "big")
    return -(number % 10**7) / 10**6, number % 3 == 0


def documents() -> dict[str, list[dict]]:
    rng = random.Random(SEED)
    words = [
        "river",
        "élan",
        "box  of",
        "[title] Washing",
        "tea [step] pour",
        "naïve",
        "日本",
        "of",
        "a",
        "🙂",
        "the",
        "don't",
    ]

    def text(low: int, high: int) -> str:
        return " ".join(rng.choice(words) for _ in range(rng.randint(low, high)))

    choices = [
        {
            "activity_label": text(1, 2),
            "ctx_a": text(2, 6),
            "ctx_b": text(0, 3),
            "endings": [text(1, 9) for _ in range(4)],
            "label": str(rng.randrange(4)),
        }
        for _ in range(60)
    ]
    pairs = [
        {
            "sentence": f"{text(1, 4)} _ {text(1, 4)} .",
            "option1": text(1, 2),
            "option2": text(1, 2),
            "answer": str(rng.randint(1, 2)),
        }
        for _ in range(40)
    ]
    passages = [{"text": text(3, 9)} for _ in range(50)]
    pages = [{"page": text(5, 60) + rng.choice(["", "\n", " \n\n "])} for _ in range(12)]
    return {"hellaswag": choices, "winogrande": pairs, "lambada": passages, "pages": pages}


def real_documents() -> dict[str, list[dict]]:
    def lines(path: str) -> list[dict]:
        return [json.loads(line) for line in (DATA / path).read_text().splitlines()]

    passages = [{"text": f"{d['context']} {d['continuation']}"} for d in lines("lambada/lambada_openai.jsonl")]
    return {"real_hellaswag": lines("hellaswag/hellaswag_val_1000.jsonl"), "real_lambada": passages}


def choice(doc: dict) -> dict:
    from lm_eval.tasks.hellaswag.utils import preprocess

    query = preprocess(f"{doc['activity_label']}: {doc['ctx_a']} {doc['ctx_b'].capitalize()}")
    return {"query": query, "choices": [preprocess(e) for e in doc["endings"]], "gold": int(doc["label"])}


def task(folder: str, name: str, rows: list[dict], **options) -> dict:
    """A task over these rows, which are written into the folder for it."""
    path = Path(folder) / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(path)}},
        "test_split": "test",
        **options,
    }


def tasks(folder: str, docs: dict[str, list[dict]]) -> list[dict]:
    """All that is asked of the harness: its own ways with documents that were drawn, and with real ones."""
    from lm_eval.tasks.wikitext.preprocess_wikitext import process_results
    from lm_eval.tasks.winogrande import preprocess_winogrande

    real = real_documents()
    as_choices = [{"query": d["ctx"], "choices": d["endings"], "gold": d["label"]} for d in real["real_hellaswag"]]
    return [
        task(folder, "hellaswag", [choice(doc) for doc in docs["hellaswag"]], **MULTIPLE),
        task(
            folder,
            "winogrande",
            docs["winogrande"],
            output_type="multiple_choice",
            doc_to_text=preprocess_winogrande.doc_to_text,
            doc_to_target=preprocess_winogrande.doc_to_target,
            doc_to_choice=preprocess_winogrande.doc_to_choice,
            metric_list=[{"metric": "acc", **MEAN}],
        ),
        task(folder, "lambada", docs["lambada"], **LAST_WORD),
        task(
            folder,
            "pages",
            docs["pages"],
            output_type="loglikelihood_rolling",
            doc_to_text="",
            doc_to_target="{{page}}",
            process_results=process_results,
            metric_list=[{"metric": m} for m in ("word_perplexity", "byte_perplexity", "bits_per_byte")],
        ),
        task(folder, "real_hellaswag", as_choices, **MULTIPLE),
        task(folder, "real_lambada", real["real_lambada"], **LAST_WORD),
    ]


def main() -> None:
    import lm_eval
    from lm_eval.api.model import LM

    class Pseudo(LM):
        def loglikelihood(self, requests):
            return [pseudo(*request.args) for request in requests]

        def loglikelihood_rolling(self, requests):
            return [pseudo("", request.args[0])[0] for request in requests]

        def generate_until(self, requests):
            raise NotImplementedError

    docs = documents()
    with tempfile.TemporaryDirectory() as folder:
        asked = tasks(folder, docs)
        found = lm_eval.simple_evaluate(model=Pseudo(), tasks=asked, bootstrap_iters=2)["results"]
    results = {
        name: {key.removesuffix(",none"): value for key, value in figures.items() if isinstance(value, float)}
        for name, figures in found.items()
    }
    text = json.dumps(
        {"versions": {"lm_eval": version("lm_eval")}, "seed": SEED, "documents": docs, "results": results}, indent=1
    )
    target = ROOT / "fixtures" / "evaluation" / "lm_eval.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text + "\n")
    json.dump(results, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
