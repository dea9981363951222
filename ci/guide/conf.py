"""How Sphinx builds the website: Markdown of this folder, and the docstrings of every public name."""

from __future__ import annotations

import re
from pathlib import Path

from docutils import nodes
from sphinx.util.nodes import make_refnode

import xpnet

project, author, version = "xpnet", "the authors of xpnet", xpnet.__version__
release, copyright = version, "the authors of xpnet"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
html_theme, html_title, html_show_sphinx = "furo", f"xpnet {version}", False
html_theme_options = {
    "source_repository": "",  # no links to a host
    "light_css_variables": {"font-stack": "system-ui, sans-serif", "font-stack--monospace": "ui-monospace, monospace"},
}
html_static_path, html_css_files, html_copy_source = ["static"], ["wide.css"], False
exclude_patterns = ["static"]
smartquotes = False
nitpicky, nitpick_ignore_regex = True, [("py:.*", ".*")]  # types of other libraries; names in texts are looked up below
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints_format, maximum_signature_line_length = "short", 80
suppress_warnings = ["config.cache"]  # functions below are no part of what a page depends on

REFERENCE = Path(__file__).with_name("reference")
NAMES = re.compile(r"^<!-- names of ([\w. ]+) -->$", re.MULTILINE)
# What a docstring says of an argument begins with "lr: ", "beta1, beta2: " or "X (n_features, n_samples): ".
ARGUMENT = re.compile(r"((?:\w+(?: \([^)]*\))?, )*\w+(?: \([^)]*\))?): +(?=\S)")
SENTENCE = re.compile(r"(?:Raises|Returns|Source|Warns)\b")
NEXT = re.compile(rf"  (?={ARGUMENT.pattern}|{SENTENCE.pattern})".replace("((?:", "(?:(?:", 1))  # within a line


def names_of(homes: str) -> list[str]:
    """Return the full names of what is public in modules of `xpnet`; of those that no page names for "the rest"."""
    homes_of = xpnet._HOMES | xpnet._EXTRAS
    if homes == "the rest":
        pages = "".join(page.read_text(encoding="utf-8") for page in REFERENCE.glob("*.md"))
        named = " ".join(NAMES.findall(pages)).split()
        return [f"xpnet.{name}" for home in homes_of if home not in named for name in homes_of[home].split()]
    found = []
    for home in homes.split():
        if home in homes_of:
            found += [f"xpnet.{name}" for name in homes_of[home].split()]
        else:
            module = getattr(xpnet, home)
            listed = getattr(module, "__all__", None) or [
                name
                for name in vars(module)
                if not name.startswith("_") and getattr(vars(module)[name], "__module__", None) == module.__name__
            ]
            found += [f"xpnet.{home}.{name}" for name in listed]
    return found


def with_names(app, docname, source):
    """Put what autodoc reads in place of a line such as `<!-- names of training.loop -->`."""

    def entries(match):
        lines = []
        for full in names_of(match[1]):
            value = xpnet
            for part in full.split(".")[1:]:
                value = getattr(value, part)
            kind = "autoclass" if isinstance(value, type) else "autofunction" if callable(value) else "autodata"
            lines.append(f".. {kind}:: {full}")
            if match[1] == "estimators" and kind == "autoclass":  # methods are of base classes, but for scikit-learn's
                others = [base.__name__ for base in value.__mro__ if not base.__module__.startswith("xpnet")]
                lines.append(f"   :inherited-members: {', '.join(others)}")
            lines.append("")
        return "\n".join(["```{eval-rst}", *lines, "```"])

    source[0] = NAMES.sub(entries, source[0])


def as_rst(app, what, name, obj, options, lines):
    """Write a docstring of xpnet as reStructuredText: an item an argument, names in code, no other markup."""
    written = []
    for block in re.split(r"\n\s*\n", "\n".join(lines).strip("\n")):
        if all(line.startswith("    ") for line in block.splitlines()):
            written += ["::", "", *block.splitlines(), ""]
            continue
        parts = [""]
        for line in block.splitlines():
            begins = ARGUMENT.match(line.strip()) or SENTENCE.match(line.strip())
            pieces = NEXT.split(line.strip())
            parts += pieces if begins else [f"{parts.pop()} {pieces[0]}".strip(), *pieces[1:]]
        for part in filter(None, parts):
            argument = ARGUMENT.match(part)
            if argument:
                written += [f"- **{escaped(argument[1])}**: {escaped(part[argument.end() :])}"]
            else:
                written += ["", escaped(part), ""]
        written.append("")
    lines[:] = written


def escaped(text: str) -> str:
    """Return a text whose backquotes mark code, with all else as it stands."""
    pieces = re.split(r"`([^`]+)`", text)  # every other one is code
    pieces[::2] = [re.sub(r"([\\*_|`<>])", r"\\\1", piece) for piece in pieces[::2]]
    pieces[1::2] = [f"\\ ``{piece}``\\ " for piece in pieces[1::2]]
    return "".join(pieces).strip()


def with_links(app, doctree, docname):
    """Link names in code that the reference has, such as `Network.predict`, but those that head a row or a section."""
    known = app.env.domains["py"].objects
    for node in list(doctree.findall(nodes.literal)):
        cell = next((parent for parent in parents_of(node) if isinstance(parent, nodes.entry)), None)
        if isinstance(node.parent, (nodes.reference, nodes.title)) or (
            cell is not None and cell.parent.index(cell) == 0
        ):
            continue
        name = re.sub(r"\(.*\)$", "", node.astext())
        is_word = name.islower() and "." not in name  # such as `epochs`, an argument too
        tried = [name] if is_word and not docname.startswith("reference") else [f"xpnet.{name}", name]
        target = next((full for full in tried if full in known), None)
        if target is not None:
            place = known[target]
            link = make_refnode(app.builder, docname, place.docname, place.node_id, [node.deepcopy()], target)
            node.replace_self(link)


def parents_of(node):
    """Yield what a node of a document lies in, the nearest first."""
    while node.parent is not None:
        node = node.parent
        yield node


def setup(app):
    """Connect the functions above."""
    app.connect("source-read", with_names)
    app.connect("autodoc-process-docstring", as_rst)
    app.connect("doctree-resolved", with_links)
    return {"parallel_read_safe": True}
