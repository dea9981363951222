"""The model of steps on many ranks: its arithmetic, and that what prints it says that it is one."""

from __future__ import annotations

import json

import pytest
from refusals import says

from xpnet.cli import main
from xpnet.timing.ranks import Wire, step_seconds

SMALL = ["bench", "--widths", "8", "--batches", "4", "--repeats", "1", "--seconds", "0.01", "--device", "cpu"]


def test_a_message_is_sent_by_halves():
    wire = Wire(gbits=8.0, latency=1e-3)  # 1e9 bytes a second
    assert wire.seconds(4e9, 2) == pytest.approx(2 * 1e-3 + 4.0)
    assert wire.seconds(4e9, 1024) == pytest.approx(20 * 1e-3 + 8.0 * 1023 / 1024)
    assert step_seconds(0.5, 4e9, 2, wire) == pytest.approx(4.502)
    assert Wire.of(25).latency > Wire.of(400).latency


def test_bench_prints_the_model_and_says_so(capsys):
    assert main([*SMALL, "--ranks", "2,64", "--quiet", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    step, rows = result["points"][0]["seconds"], result["model"]
    assert [(row["gbits"], row["ranks"]) for row in rows] == [(25, 2), (25, 64), (400, 2), (400, 64)]
    assert rows[0]["seconds"] == pytest.approx(step + 40e-6 + rows[0]["bytes"] * 8 / 25e9)
    assert all(row["efficiency"] == step / row["seconds"] < 1 for row in rows)
    assert main([*SMALL, "--ranks", "8", "--network", "100"]) == 0
    out = capsys.readouterr().out
    assert "a model, no measurement" in out and "100 Gbit/s" in out and "8 ranks" in out


def test_a_network_without_ranks_is_refused(capsys):
    assert main([*SMALL, "--network", "25"]) == 2
    says(capsys.readouterr().err.strip(), "--network", "the model for many ranks", "--ranks 8,64,1024")
