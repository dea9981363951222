"""`python -m xpnet` is the command `xpnet`."""

import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType

INTERRUPTED = 130


def main() -> int:
    """Run the command line; Ctrl-C during its imports prints one line and no traceback."""
    is_ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not ignored by whoever started us
    if is_ours:
        signal.signal(signal.SIGINT, _leave)
    from xpnet import cli  # the imports that take time

    if is_ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    code = cli.main()
    if code in (INTERRUPTED, cli.TERMINATED) and threading.active_count() > 1:
        with suppress(OSError):  # of a reader that has gone
            sys.stdout.flush()
        os._exit(code)  # does not wait for a thread that compiles
    return code


def _leave(number: int, frame: FrameType | None) -> None:
    """Exit at once: nothing needs cleaning up, and a module that is being imported could swallow an exception."""
    os.write(2, b"xpnet: interrupted\n")
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
