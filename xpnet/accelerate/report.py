"""What ran where, told on stderr."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict


class Report:
    """Counts fits until it tells of them.  is_quiet: says nothing, as in processes that others have started."""

    def __init__(self) -> None:
        self.is_quiet = False
        self._said: set[str] = set()
        self._clear()

    def ran(self, name: str, where: str, seconds: float) -> None:
        """Count a fit of the class of that name."""
        self._fits[name, where] += 1
        self._seconds[name, where] += seconds

    def sent(self) -> None:
        """Count an estimator that another process gets."""
        self._sent += 1

    def say_once(self, text: str) -> None:
        """Write a line now, if it has not been written before."""
        if text not in self._said:
            self._said.add(text)
            self._write(text)

    def tell(self) -> None:
        """Write a line on the fits since the last one, if there were any."""
        parts = [
            f"{count} fit{'s' * (count > 1)} of {name} {where} in {self._seconds[name, where]:.2f} s"
            for (name, where), count in self._fits.items()
        ]
        if self._sent:
            parts.append(f"estimators sent {self._sent} times to other processes, whose fits are not counted")
        if parts:
            self._write("; ".join(parts))
        self._clear()

    def _clear(self) -> None:
        self._fits: Counter[tuple[str, str]] = Counter()
        self._seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._sent = 0

    def _write(self, text: str) -> None:
        if not self.is_quiet:
            sys.stderr.write(f"xpnet.accelerate: {text}\n")
            sys.stderr.flush()


REPORT = Report()
