"""`python -m xpnet` is the command `xpnet`."""

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130


def main() -> int:
    """Run the command line.  Ctrl-C while NumPy and the commands are imported ends in a line, not in a traceback."""
    is_ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not one that somebody has ignored
    if is_ours:
        signal.signal(signal.SIGINT, _leave)
    from xpnet import cli  # the imports that take time

    if is_ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return cli.main()


def _leave(number: int, frame: FrameType | None) -> None:
    """Nothing is begun, so there is nothing to clean up; an exception could be swallowed by what is being imported."""
    os.write(2, b"xpnet: interrupted\n")
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
