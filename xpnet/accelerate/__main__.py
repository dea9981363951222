"""`python -m xpnet.accelerate script.py [args]`, or `-m module [args]`, runs it with xpnet's MLPs."""

from __future__ import annotations

import os
import runpy
import sys
from importlib.util import find_spec

USAGE = "usage: python -m xpnet.accelerate script.py [args], or python -m xpnet.accelerate -m module [args]"


def main(words: list[str]) -> int:
    """Run the script or the module that the words name; returns an exit status, unless the script ends by its own."""
    is_module, rest = words[:1] == ["-m"], words[1:] if words[:1] == ["-m"] else words
    if not rest or (rest[0].startswith("-") and rest[0] not in ("-h", "--help")):
        return _said(USAGE)
    if rest[0] in ("-h", "--help"):
        sys.stdout.write(f"{USAGE}\n")
        return 0
    if is_module:
        sys.path[0] = os.getcwd()
        package = rest[0].partition(".")[0]  # to look for more would import it, before `install`
        if not package or find_spec(package) is None:
            return _said(f"there is no module {rest[0]}; give the name of one, or the path of a script")
    elif not os.path.exists(os.path.join(rest[0], "__main__.py") if os.path.isdir(rest[0]) else rest[0]):
        return _said(f"there is no script {rest[0]}; give the path of one, or -m and the name of a module")
    try:
        from xpnet.accelerate import install
        from xpnet.backend import BackendUnavailable
    except ImportError as error:
        return _said(str(error))
    try:
        install()
    except (ValueError, BackendUnavailable) as error:
        return _said(str(error))
    sys.argv = list(rest)
    if is_module:
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = os.path.dirname(os.path.abspath(rest[0]))
        runpy.run_path(rest[0], run_name="__main__")
    return 0


def _said(text: str) -> int:
    sys.stderr.write(f"xpnet.accelerate: {text}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
