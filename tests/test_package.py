"""The house rules as tests: who may import whom, what is documented, what ships, and that the README is true."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import resource
import shlex
import subprocess
import sys
import tomllib
from itertools import groupby
from pathlib import Path

import pytest
from refusals import refusal

import xpnet
from xpnet import cli

ROOT = Path(__file__).parents[1]
PACKAGE = Path(xpnet.__file__).parent

# A module imports only from those above it. A new module needs a place here.
ORDER = [
    "options", "backend", "kernels.activations", "kernels.affine", "kernels.losses", "kernels.accuracy",
    "kernels.updates", "kernels.dropout", "kernels.normalization", "program", "blas", "code_cache", "native",
    "grouping", "printer", "llvm.text", "llvm.products", "llvm.nests", "llvm.mathematics", "llvm.plan",
    "llvm.step", "llvm.run", "parameters",
    "executors.numpy_calls", "executors.replay", "executors.grouped", "executors.compiled", "engines", "losses",
    "custom", "data_checks", "data", "datasets.idx", "datasets.mnist",
    "datasets", "metrics", "layer", "dropout", "normalization", "layers", "architecture", "steps", "model_file",
    "network", "gradcheck", "schedules", "optimizers", "callbacks", "feed", "evaluation", "memory", "checkpoint",
    "epoch", "training", "lr_finder", "functional", "estimator_data", "estimator_options", "estimator_fitting",
    "estimator_bridge", "estimator_base", "estimators", "bench", "grid", "plots.figures", "plots.speed",
    "plots.curves", "plots.diagram", "plots.planes", "plots.images", "plots.live", "plots", "table_files",
    "table_columns", "tables", "runs", "commands.wording", "commands.arguments", "commands.config_file",
    "commands.tables", "commands.table_results", "commands.data", "commands.network_options",
    "commands.optimizer_options", "commands.schedule_options", "commands.loop_options", "commands.report",
    "commands.signals", "commands.resume", "commands.pictures", "commands.train", "commands.find_lr",
    "commands.apply", "commands.plot", "commands.bench", "commands.info", "cli", "__main__", "examples.expected",
    "examples.functional_loop", "examples.circles_and_blobs", "examples.digits_sgd", "examples.layer_list",
    "examples.mnist_relu", "examples.cpu_or_gpu", "examples.custom_activation",
]  # fmt: skip
EMPTY = ("kernels", "llvm", "executors", "commands", "examples")  # packages whose __init__ is a docstring alone
COMMANDS = {"xpnet.cli", *(f"xpnet.{name}" for name in ORDER if name.startswith("commands."))}
EXAMPLES = {f"xpnet.{name}" for name in ORDER if name.startswith("examples.")}
NAMES = ["xpnet", *(f"xpnet.{name}" for name in (*EMPTY, *ORDER))]


def module_name(path):
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


TREES = {module_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
PUBLIC = [name for name in TREES if name != "xpnet.__main__"]


def imports(tree):
    """Every import of a module, also those inside functions, but none for type checking alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        else:
            yield from imports(node)


def imported_names(tree):
    """The full names of all modules that a tree imports, and of what it takes from them."""
    for node in imports(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        else:
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield submodule if submodule in TREES else node.module


def calls(tree, *names):
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) in names]


# --- order -----------------------------------------------------------------------------------------------------------


def test_every_module_has_its_place():
    assert sorted(TREES) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_module_imports_only_from_those_before_it(name):
    found = {other for other in imported_names(TREES[name]) if other.partition(".")[0] == "xpnet"}
    if name == "xpnet":
        allowed = set(NAMES) - COMMANDS - EXAMPLES - {"xpnet.runs", "xpnet.__main__"}
    elif name.removeprefix("xpnet.") in EMPTY:
        allowed = set()
    else:
        allowed = {f"xpnet.{other}" for other in ORDER[: ORDER.index(name.removeprefix("xpnet."))]}
        allowed |= {"xpnet"} if name in COMMANDS | EXAMPLES else set()  # for __version__; a user's way in
    assert found <= allowed, f"{name} imports {sorted(found - allowed)}"


# --- what no module does ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(NAMES) - COMMANDS - EXAMPLES))
def test_only_the_command_line_and_the_examples_print(name):
    assert not calls(TREES[name], "print", "sys.stdout.write", "sys.stderr.write")


@pytest.mark.parametrize("name", NAMES)
def test_no_module_holds_state(name):
    """Module-level names that are not UPPERCASE tables are aliases of types, and no function rebinds a global."""
    made = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp, ast.GeneratorExp, ast.Call)
    for node in TREES[name].body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            if isinstance(getattr(node, "value", None), made) and ast.unparse(target) != "__all__":
                assert ast.unparse(target).isupper(), ast.unparse(node)
    assert not [node for node in ast.walk(TREES[name]) if isinstance(node, ast.Global)]


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"xpnet.backend"}))
def test_only_the_backend_imports_cupy(name):
    found = set(imported_names(TREES[name]))
    assert not {other for other in found if other.partition(".")[0] == "cupy"}
    dynamic = calls(TREES[name], "importlib.import_module", "import_module", "__import__")
    assert [ast.unparse(call) for call in dynamic] == (
        ["import_module(f'xpnet.{name}')", "import_module(f'xpnet.{home}')"] if name == "xpnet" else []
    )


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_pickled(name):
    roots = {other.partition(".")[0] for other in imported_names(TREES[name])}
    assert not roots & {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
    for call in calls(TREES[name], "np.load", "np.save", "np.savez", "np.savez_compressed"):
        assert "allow_pickle=False" in ast.unparse(call), ast.unparse(call)


def test_import_loads_nothing_heavy():
    heavy = ["cupy", "tqdm", "safetensors", "pooch", "requests", "matplotlib", "pandas", "sklearn", "llvmlite", "scipy"]
    code = "import sys; from xpnet import *; assert Network and train; "  # modules are imported on use
    code += f"print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_import_costs_at_most_a_third_more_than_numpy():
    """The one thing here that is asserted by a clock: a ratio of CPU times, each the least of several turns."""

    def cpu_seconds(module):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", f"import {module}"], cwd=ROOT, check=True, timeout=60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    cpu_seconds("xpnet")  # compiles the byte code
    turns = [(cpu_seconds("numpy"), cpu_seconds("xpnet")) for _ in range(9)]
    numpy_seconds, xpnet_seconds = (min(column) for column in zip(*turns, strict=True))
    assert xpnet_seconds <= 1.3 * numpy_seconds, (numpy_seconds, xpnet_seconds)


# --- what is public --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in NAMES if name != "xpnet.__main__"])
def test_all_is_sorted_importable_and_documented(name):
    module = importlib.import_module(name)
    if name in ("xpnet", "xpnet.datasets"):
        assert module.__all__
    names = list(getattr(module, "__all__", []))
    # CONSTANTS, then Classes, then functions: the order that ruff keeps.
    assert names == sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    assert len(set(names)) == len(names)
    for public in names:
        assert (inspect.getdoc(getattr(module, public)) or "").strip(), public


@pytest.mark.parametrize("name", PUBLIC)
def test_everything_public_has_a_docstring(name):
    """Modules, functions, classes and methods; an overriding method may leave it to its base class."""
    module, tree = importlib.import_module(name), TREES[name]
    missing = [] if ast.get_docstring(tree) else [name]
    for node in tree.body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name.startswith("_"):
            continue
        if not ast.get_docstring(node):
            missing.append(node.name)
        for part in node.body if isinstance(node, ast.ClassDef) else []:
            if isinstance(part, ast.FunctionDef) and not part.name.startswith("_"):
                method = getattr(getattr(module, node.name), part.name)
                if not (inspect.getdoc(method) or "").strip():
                    missing.append(f"{node.name}.{part.name}")
    assert not sorted(set(missing))


def test_every_public_name_has_one_home():
    homes = [name for names in xpnet._HOMES.values() for name in names]
    assert sorted(homes) == sorted(xpnet.__all__)
    (block,) = [node for node in TREES["xpnet"].body if isinstance(node, ast.If)]  # what type checkers see
    told = {node.module.removeprefix("xpnet."): {alias.name for alias in node.names} for node in block.body}
    assert told == {home: set(names) for home, names in (xpnet._HOMES | xpnet._EXTRAS).items()}
    extras = {name for names in xpnet._EXTRAS.values() for name in names}  # not for `import *`, they may be missing
    assert not extras & set(xpnet.__all__) and all(inspect.getdoc(getattr(xpnet, name)) for name in extras)
    assert extras | set(xpnet.__all__) <= set(dir(xpnet))
    assert xpnet.datasets.load_mnist and xpnet.functional.forward and xpnet.metrics.accuracy and xpnet.plots
    with refusal(AttributeError, "module 'xpnet'", "no attribute 'nothing'", "take one of dir(xpnet)"):
        xpnet.nothing  # noqa: B018


# --- what ships ------------------------------------------------------------------------------------------------------


def test_licences():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["license"] == "MIT AND CC-BY-SA-3.0"
    for pattern in project["license-files"]:
        assert list(ROOT.glob(pattern)), pattern
    assert {"LICENSE", "xpnet/datasets/NOTICE"} <= set(project["license-files"])
    assert "Permission is hereby granted, free of charge" in (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_sample_and_notice_lie_inside_the_package():
    sample, notice = PACKAGE / "datasets/mnist_sample.npz", PACKAGE / "datasets/NOTICE"
    assert 100_000 < sample.stat().st_size <= 1_500_000
    text = notice.read_text(encoding="utf-8")
    for part in ("mnist_sample.npz", "LeCun", "Cortes", "Burges", "Source", "Changes", "CC BY-SA 3.0", "third parties"):
        assert part in text
    assert (PACKAGE / "py.typed").is_file()


def test_build_takes_the_whole_package_and_the_version_from_it():
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]
    assert tool["build"]["targets"]["wheel"]["packages"] == ["xpnet"]
    assert tool["version"]["path"] == "xpnet/__init__.py"
    assert f'__version__ = "{xpnet.__version__}"' in (ROOT / "xpnet/__init__.py").read_text(encoding="utf-8")


def test_changelog_begins_with_this_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[?v?(\d\S*?)\]?(?:\s|$)", text, re.MULTILINE)
    assert newest and newest[1] == xpnet.__version__


# --- the README ------------------------------------------------------------------------------------------------------


def readme_blocks(language):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert blocks, f"the README has no {language} block"
    return blocks


def test_readme_python_blocks_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XPNET_DEVICE", "cpu")
    namespace = {"__name__": "readme"}
    for block in readme_blocks("python"):
        exec(compile(block, "README.md", "exec"), namespace)
    out, err = capsys.readouterr()
    assert out and err == ""
    assert not re.search(r"\bnan\b|\binf\b", out)


def commands(block):
    """The commands of a shell block as lists of words, without comments, joined by nothing."""
    for line in block.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        for is_operator, words in groupby(lexer, key=lambda word: word in ("&&", "||", ";", "|")):
            if not is_operator:
                yield list(words)


def test_readme_commands_parse():
    found = [words for block in readme_blocks("sh") for words in commands(block)]
    ours = [words[1:] for words in found if words[0] == "xpnet"]
    parsed = {cli._parser().parse_args(words).command for words in ours}
    assert parsed == {"train", "find-lr", "evaluate", "predict", "plot", "bench", "info"}
    assert ["pip", "install", "."] in found and ["pip", "install", ".[test]"] in found


def test_readme_names_files_that_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in re.findall(r"`(?:xpnet/)?([a-z_/]+(?:\.py|/))`", text):
        assert (PACKAGE / name).exists() or (ROOT / name).exists(), name
