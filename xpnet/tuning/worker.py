"""A process that trains trials of a search: `python -m xpnet.tuning.worker`; see `xpnet.tuning.workers`."""

from __future__ import annotations

import argparse
import json
import os
import queue
import sys
import threading
import warnings
from dataclasses import asdict
from typing import Any

from xpnet.tuning.training import load, train_trial


def main() -> None:
    """Load the data of a search, and train the trials that come by stdin until it ends."""
    heard: queue.Queue[Any] = queue.Queue()
    threading.Thread(target=_listen, args=(heard,), daemon=True).start()
    given = argparse.Namespace(**heard.get())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the search itself has said them
        _, data = load(given)

    def is_poor(epoch: int, value: float) -> bool:
        _say({"epoch": epoch, "value": value})
        return bool(heard.get())

    while True:
        outcome = train_trial(given, heard.get(), data, is_poor, lambda: False)
        assert outcome is not None
        _say({"outcome": asdict(outcome)})


def _listen(heard: queue.Queue[Any]) -> None:
    """Hand on what comes by stdin; at its end the search is over, whatever is being trained."""
    for line in sys.stdin:
        heard.put(json.loads(line))
    os._exit(0)


def _say(message: Any) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
