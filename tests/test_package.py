"""The house rules as tests: who may import whom, what is documented, what ships, and that the README is true."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shlex
import subprocess
import sys
import tomllib
from functools import cache
from itertools import groupby
from pathlib import Path

import pytest
from refusals import refusal

import xpnet
from xpnet import cli

ROOT = Path(__file__).parents[1]
PACKAGE = Path(xpnet.__file__).parent

# A package imports only from those before it; a module of the top level counts as a package.
PACKAGES = (
    *(
        "checks",
        "specs",
        "files",
        "cores",
        "rows",
        "backend",
        "kernels",
        "program",
        "parallel",
        "engines",
        "network",
        "data",
        "datasets",
        "tables",
    ),
    *(
        "training",
        "functional",
        "recipe",
        "estimators",
        "accelerate",
        "exporting",
        "timing",
        "plots",
        "reports",
        "commands",
        "tuning",
        "cli",
    ),
    *("__main__", "examples"),
)
SPEAK = ("accelerate", "commands", "tuning", "cli", "examples")  # they print, and may import xpnet as a user does


def module_name(path):
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


PATHS = {module_name(path): path for path in PACKAGE.rglob("*.py")}
NAMES = sorted(PATHS)
PUBLIC = [name for name in NAMES if name != "xpnet.__main__"]


@cache
def tree_of(name):
    return ast.parse(PATHS[name].read_text(encoding="utf-8"))


def each(names):
    """Make one test of what is checked of each name: as tests of their own, hundreds of them would cost more."""

    def test_of(check):
        def test():
            for name in names:
                check(name)

        test.__doc__ = check.__doc__
        return test

    return test_of


def imports(tree, types=False):
    """Every import of a module, also those inside functions; those for type checking alone only with types."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not types:
            continue
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        else:
            yield from imports(node, types)


def imported_names(tree, types=False):
    """The full names of all modules that a tree imports, and of what it takes from them."""
    for node in imports(tree, types):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        else:
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield submodule if submodule in PATHS else node.module


def calls(tree, *names):
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) in names]


# --- walls -----------------------------------------------------------------------------------------------------------


def package_of(name):
    return name.split(".")[1] if "." in name else "xpnet"


def arrows(name, types=False):
    """The modules of xpnet that a module imports."""
    return {other for other in imported_names(tree_of(name), types) if other in PATHS} - {name}


def test_every_package_has_its_place():
    assert {package_of(name) for name in NAMES} == {"xpnet", *PACKAGES}


@each([name for name in NAMES if name != "xpnet"])
def test_a_package_imports_only_from_those_before_it(name):
    allowed = PACKAGES[: PACKAGES.index(package_of(name)) + 1] + ("xpnet",) * (package_of(name) in SPEAK)
    assert {package_of(other) for other in arrows(name)} <= set(allowed), name


def test_no_modules_import_each_other_in_a_circle():
    """Imports for type checking alone count too."""
    after = {
        name: {other for other in arrows(name, types=True) if other != "xpnet"} for name in NAMES if name != "xpnet"
    }
    while free := [name for name, others in after.items() if not others & set(after)]:
        after = {name: others for name, others in after.items() if name not in free}
    assert not after, f"in or above a circle: {sorted(after)}"


# --- what no module does ---------------------------------------------------------------------------------------------


@each([name for name in NAMES if package_of(name) not in SPEAK])
def test_only_the_command_line_and_the_examples_print(name):
    assert not calls(tree_of(name), "print", "sys.stdout.write", "sys.stderr.write")


@each(NAMES)
def test_no_module_holds_state(name):
    """Module-level names that are not UPPERCASE tables are aliases of types, and no function rebinds a global."""
    made = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp, ast.GeneratorExp, ast.Call)
    for node in tree_of(name).body:
        if isinstance(node, ast.Expr):  # estimators tell pickles of before where classes are now
            assert isinstance(node.value, ast.Constant) or name == "xpnet.estimators", ast.unparse(node)
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            if isinstance(getattr(node, "value", None), made) and ast.unparse(target) != "__all__":
                assert ast.unparse(target).isupper(), ast.unparse(node)
    assert not [node for node in ast.walk(tree_of(name)) if isinstance(node, ast.Global)]


@pytest.mark.full
@each(sorted(set(NAMES) - {"xpnet.backend"}))
def test_only_the_backend_imports_cupy(name):
    found = set(imported_names(tree_of(name)))
    assert not {other for other in found if other.partition(".")[0] == "cupy"}
    dynamic = calls(tree_of(name), "importlib.import_module", "import_module", "__import__")
    assert [ast.unparse(call) for call in dynamic] == (
        ["import_module(f'xpnet.{_MODULES[name]}')", "import_module(f'xpnet.{_HOME[name]}')"] if name == "xpnet" else []
    )


@pytest.mark.full
@each(NAMES)
def test_nothing_is_pickled(name):
    found = {*imported_names(tree_of(name))}
    if name == "xpnet.accelerate.swapping":  # joblib pickles what its processes get, and is told how: nothing else is
        found.remove("joblib.externals.loky.backend")
        used = {ast.unparse(node) for node in ast.walk(tree_of(name)) if isinstance(node, ast.Attribute)}
        assert {each for each in used if each.startswith("reduction.")} == {"reduction.register"}
    roots = {other.partition(".")[0] for other in found}
    assert not roots & {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
    for call in calls(tree_of(name), "np.load", "np.save", "np.savez", "np.savez_compressed"):
        assert "allow_pickle=False" in ast.unparse(call), ast.unparse(call)


@pytest.mark.full
def test_import_loads_nothing_heavy():
    heavy = ["cupy", "tqdm", "safetensors", "pooch", "requests", "matplotlib", "pandas", "sklearn", "llvmlite", "scipy"]
    code = "import sys; from xpnet import *; assert Network and train; "  # modules are imported on use
    code += f"print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_import_loads_no_other_module():
    """Neither of ours, nor NumPy: what a name needs is loaded when it is first used."""
    code = "import sys; before = {*sys.modules}; import xpnet; found = {*sys.modules} - before; "
    code += "print({name for name in found if name.partition('.')[0] not in sys.stdlib_module_names})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.stderr) == ("{'xpnet'}\n", "")


# --- what is public --------------------------------------------------------------------------------------------------


@each([name for name in NAMES if name != "xpnet.__main__"])
def test_all_is_sorted_importable_and_documented(name):
    module = importlib.import_module(name)
    if name in ("xpnet", "xpnet.datasets"):
        assert module.__all__
    names = list(getattr(module, "__all__", []))
    # CONSTANTS, then Classes, then functions: the order that ruff keeps.
    if name != "xpnet":  # which groups them by home
        assert names == sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    assert len(set(names)) == len(names)
    for public in names:
        assert (inspect.getdoc(getattr(module, public)) or "").strip(), public


@each(PUBLIC)
def test_everything_public_has_a_docstring(name):
    """Modules, functions, classes and methods; an overriding method may leave it to its base class."""
    module, tree = importlib.import_module(name), tree_of(name)
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


def test_type_checkers_see_every_public_name_where_it_is():
    """They import all names of each home, whose `__all__` holds what the table has of it, and the modules."""
    block = next(node for node in tree_of("xpnet").body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    seen = {(node.module, alias.name): alias.asname for node in block.body for alias in node.names}
    homes = xpnet._HOMES | xpnet._EXTRAS
    modules = {tuple(f"xpnet.{home}".rsplit(".", 1)): name for name, home in xpnet._MODULES.items()}
    assert seen == {(f"xpnet.{home}", "*"): None for home in homes} | modules
    for home, names in homes.items():
        assert sorted(importlib.import_module(f"xpnet.{home}").__all__) == sorted(names.split()), home
    assert {"__version__", *xpnet._HOME, *xpnet._MODULES} == set(dir(xpnet))
    extras = set(" ".join(xpnet._EXTRAS.values()).split())  # not for `import *`, scikit-learn or pandas may be missing
    assert set(xpnet._HOME) - set(xpnet.__all__) == extras and all(inspect.getdoc(getattr(xpnet, e)) for e in extras)
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


PAGES = [ROOT / "README.md", *sorted((ROOT / "ci/guide").rglob("*.md"))]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {*PROJECT["optional-dependencies"]}


def examples(page):
    """The language and text of each block of a page that can be run, in order."""
    return re.findall(r"^```(python|sh)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands(block):
    """The commands of a shell block as lists of words, without comments, joined by nothing."""
    for line in block.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        for is_operator, words in groupby(lexer, key=lambda word: word in ("&&", "||", ";", "|")):
            if not is_operator:
                yield list(words)


@pytest.mark.full
def test_commands_of_the_pages_parse():
    found = {
        page: [words for language, block in examples(page) if language == "sh" for words in commands(block)]
        for page in PAGES
    }
    ours = [words[1:] for page in PAGES for words in found[page] if words[0] == "xpnet"]
    parsed = {cli._parser().parse_args(words).command for words in ours}
    assert parsed == {*cli._parser()._subparsers._group_actions[0].choices}  # each is shown
    assert ["pip", "install", "."] in found[PAGES[0]] and ["pip", "install", ".[test]"] in found[PAGES[0]]


def test_pages_name_files_and_extras_that_exist():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for name in re.findall(r"`(?:xpnet/)?([a-z_/]+(?:\.py|/))`", text):
            assert (PACKAGE / name).exists() or (ROOT / name).exists(), name
        named = re.findall(r"pip install '\.?(?:xpnet)?\[([\w,-]+)\]'", text)
        assert {extra for names in named for extra in names.split(",")} <= EXTRAS, page


DOCUMENTS = [*PAGES, ROOT / "CHANGELOG.md", ROOT / "benchmarks/README.md", *PACKAGE.glob("examples/*.py")]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_dotted_path_of_the_documents_can_be_imported(path):
    for dotted in set(re.findall(r"\bxpnet(?:\.[A-Za-z_]\w*)+", path.read_text(encoding="utf-8"))):
        if not dotted.endswith(".NAME"):  # which stands for any
            assert resolved(dotted) is not None, dotted


def resolved(dotted):
    """What a dotted path names: a module, or an attribute of one."""
    module, _, name = dotted.rpartition(".")
    try:
        return importlib.import_module(dotted)
    except ModuleNotFoundError:
        return getattr(resolved(module), name)
