"""A run on disk: the name of its directory, and a config that is whole or not there."""

from __future__ import annotations

import json
import os
import re
import stat
import threading
import time
from pathlib import Path

import pytest
from refusals import says

from xpnet.cli import main
from xpnet.commands import runs


@pytest.fixture(autouse=True)
def in_an_empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def stopped_clock(monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda pattern: "20260131-120000")


def test_names():
    """Other programs look for these."""
    assert (runs.CONFIG, runs.HISTORY, runs.MODEL) == ("config.json", "history.jsonl", "model.safetensors")


def test_default_directory_is_named_after_data_and_time():
    before = time.strftime("%Y%m%d-%H%M%S")
    run = runs.create_run(None, "mnist")
    after = time.strftime("%Y%m%d-%H%M%S")
    assert run.parent == Path("runs") and run.is_dir() and not any(run.iterdir())
    assert re.fullmatch(r"mnist-\d{8}-\d{6}", run.name)
    assert before <= run.name.removeprefix("mnist-") <= after


def test_runs_of_one_second_have_names_of_their_own(stopped_clock):
    made = [runs.create_run(None, "mnist") for _ in range(3)]
    assert [run.name for run in made] == ["mnist-20260131-120000" + end for end in ("", "-2", "-3")]
    assert runs.create_run(None, "other").name == "other-20260131-120000"


def test_runs_begun_at_once_never_share_a_directory(stopped_clock):
    made = []
    start = threading.Barrier(8)

    def create():
        start.wait()
        made.append(runs.create_run(None, "mnist"))

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 8


def test_a_second_of_too_many_runs(stopped_clock):
    for number in range(1, 1000):
        Path("runs", "mnist-20260131-120000" + (f"-{number}" if number > 1 else "")).mkdir(parents=True)
    with pytest.raises(FileExistsError) as error:
        runs.create_run(None, "mnist")
    says(error, "runs/mnist-20260131-120000", "exist already", "--out DIR")


def test_runs_that_is_a_file():
    Path("runs").write_text("mine", encoding="utf-8")
    with pytest.raises(OSError, match="runs"):
        runs.create_run(None, "mnist")
    assert Path("runs").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("out", ["new", "new/and/deep"])
def test_out_is_made_where_it_is_not_there(out):
    assert runs.create_run(out, "mnist") == Path(out)
    assert Path(out).is_dir() and not Path("runs").exists()


def test_out_that_is_empty_is_taken():
    Path("out").mkdir()
    assert runs.create_run("out", "mnist") == Path("out")


@pytest.mark.parametrize("kept", ["out", "out/file", "out/.hidden", "out/folder/file"])
def test_out_that_holds_something_is_refused(kept):
    Path(kept).parent.mkdir(parents=True, exist_ok=True)
    Path(kept).write_text("precious", encoding="utf-8")
    with pytest.raises(FileExistsError) as error:
        runs.create_run("out", "mnist")
    says(error, "--out out", "not an empty directory", "name another one")
    assert Path(kept).read_text(encoding="utf-8") == "precious"
    assert sum(path.is_file() for path in Path().rglob("*")) == 1


CONFIG = {"data": {"dataset": "mnist", "scale": 1 / 255, "data_dir": None}, "reason": "pr\u00fcfte \u2013 nichts"}


def test_config_comes_back_as_it_was():
    run = runs.create_run("run", "mnist")
    runs.write_config(run, CONFIG)
    assert runs.read_config("run") == runs.read_config(run) == CONFIG
    text = (run / "config.json").read_text(encoding="utf-8")
    assert json.loads(text) == CONFIG and text.endswith("}\n") and len(text.splitlines()) > 3  # made to be read
    assert [path.name for path in run.iterdir()] == ["config.json"]  # no temporary file stays


def test_config_has_the_rights_of_any_new_file():
    run = runs.create_run("run", "mnist")
    before = os.umask(0o027)
    try:
        runs.write_config(run, CONFIG)
    finally:
        os.umask(before)
    assert stat.S_IMODE((run / "config.json").stat().st_mode) == 0o640


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_config_is_whole_or_as_before(monkeypatch, function):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    run = runs.create_run("run", "mnist")
    runs.write_config(run, CONFIG)
    with monkeypatch.context() as patch:
        patch.setattr(os, function, fail)
        with pytest.raises(OSError, match="No space left"):
            runs.write_config(run, {"data": {"dataset": "other"}})
    assert runs.read_config(run) == CONFIG
    assert [path.name for path in run.iterdir()] == ["config.json"]


def test_config_is_on_the_disk_before_it_has_its_name(monkeypatch):
    """Renamed first, a crash could leave an empty file under the final name."""
    order = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *arguments, name=name, real=real: (order.append(name), real(*arguments)))
    runs.write_config(runs.create_run("run", "mnist"), CONFIG)
    assert order[:2] == ["fsync", "replace"]


def test_config_that_is_no_json_is_not_written():
    run = runs.create_run("run", "mnist")
    with pytest.raises(TypeError):
        runs.write_config(run, {"data": {1, 2}})
    assert not any(run.iterdir())


@pytest.mark.parametrize("kind", ["missing", "empty", "file", "config is a directory"])
def test_what_is_not_a_run(kind):
    if kind == "file":
        Path("run").write_text("{}", encoding="utf-8")
    elif kind != "missing":
        Path("run" if kind == "empty" else "run/config.json").mkdir(parents=True)
    with pytest.raises(FileNotFoundError) as error:
        runs.read_config("run")
    says(error, "run is not a run directory", "no config.json", "`xpnet train` makes one")


@pytest.mark.parametrize(
    "content",
    [b"", b"\0", b'{"data": {', b'{"data": {}} trailing', b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000],
    ids=lambda content: repr(content[:12]),
)
def test_config_that_is_not_json(content):
    run = runs.create_run("run", "mnist")
    (run / "config.json").write_bytes(content)
    with pytest.raises(ValueError) as error:
        runs.read_config(run)
    says(error, str(run / "config.json"), "is not JSON", "train again, or restore it")


@pytest.mark.parametrize("content", ["[]", "null", '"data"', "3", "{}", '{"data": null}', '{"data": ["dataset"]}'])
def test_config_that_is_another_json(content):
    run = runs.create_run("run", "mnist")
    (run / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError) as error:
        runs.read_config(run)
    says(error, str(run / "config.json"), "not the config of a run", "no data section", "train again, or restore it")


def test_an_out_that_another_process_fills_meanwhile_is_refused(monkeypatch, capsys):
    """Two commands find the same folder empty, and one has trained in it before the other gets the lock."""
    create = runs.create_run

    def create_and_wait(out, dataset):
        path = create(out, dataset)
        (path / "config.json").write_text("precious", encoding="utf-8")
        return path

    monkeypatch.setattr(runs, "create_run", create_and_wait)
    argv = ["train", "--layers", "784,2,10", "--epochs", "1", "--device", "cpu", "--quiet", "--out", "out"]
    assert main(argv) == 1
    says(capsys.readouterr().err.strip(), "--out out", "not an empty directory", "name another one")
    assert Path("out/config.json").read_text(encoding="utf-8") == "precious" and len(list(Path("out").iterdir())) == 1
