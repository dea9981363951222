"""What a shell is told when it asks how a line may go on."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("argcomplete", reason="the extra completion brings it")


@pytest.mark.full
@pytest.mark.parametrize(
    ("line", "answers"), [("xpnet pre", {"predict"}), ("xpnet train --weight-d", {"--weight-decay"})]
)
def test_the_tab_key_completes_commands_and_options(line, answers, tmp_path):
    """Into a file, since a shell reads another stream than stdout."""
    asked = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_IFS": "\n"}
    asked |= {"_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "answer"), "_ARGCOMPLETE_SUPPRESS_SPACE": "1"}
    words = [sys.executable, "-m", "xpnet"]
    subprocess.run(words, env=os.environ | asked, capture_output=True, timeout=300)
    assert {*(tmp_path / "answer").read_text(encoding="utf-8").split("\n")} == answers
