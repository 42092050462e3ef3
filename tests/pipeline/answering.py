"""Stands in for a process that tokenizes: does what its jobs say. Run as a module by ``Workers``."""

from __future__ import annotations

import json
import os
import signal
import sys
import time


def say(**message):
    print(json.dumps(message), flush=True)


about = json.loads(sys.stdin.readline())
for line in sys.stdin:
    job = json.loads(line)
    if job["do"] == "work":
        say(done=about["each"])
        say(done=about["each"])
        say(end=True)
    elif job["do"] == "refuse":
        say(error="no such text", remedy="Write one.", code="no-text")
    elif job["do"] == "crash":
        say(crash="Traceback: a mistake of ours")
    elif job["do"] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif job["do"] == "hang":
        time.sleep(60)
