"""A process that tokenizes spans of a corpus; ``token_workers`` starts it and gives it its work.

Reads one JSON object per line: first what the work is about, then one job after the other. Answers with one per line:
documents that are done meanwhile, the end of a job, or an error. When its input ends it is gone at once: it never
outlives a run that was killed.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from corelm.errors import UserError
from corelm.model import loading
from corelm.pipeline.tokenizing import Span, make_span


def main() -> None:
    """Work until the input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what parts print must not be taken for an answer

    def say(**message: Any) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    jobs: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(jobs,), daemon=True).start()
    try:
        tokenizer = loading.load_tokenizer(jobs.get()["tokenizer"])
        while True:
            job = jobs.get()
            span = Span(Path(job["corpus"]), job["start"], job["stop"], Path(job["folder"]))
            make_span(span, tokenizer, lambda documents: say(done=documents))
            say(end=True)
    except UserError as error:
        say(error=error.message, remedy=error.remedy, code=error.code)
    except Exception:
        say(crash=traceback.format_exc())


def _listen(jobs: queue.Queue[dict[str, Any]]) -> None:
    for line in sys.stdin:
        jobs.put(json.loads(line))
    os._exit(0)


if __name__ == "__main__":
    main()
