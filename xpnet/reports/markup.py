"""The HTML of a report: tables, pictures, and the page around them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
:root { color-scheme: light; --line: #d5d9de; --soft: #f5f6f8; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1rem; color: #1b1f24; background: #fff;
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
h3 { margin-bottom: .4rem; }
.scroll { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
td { min-width: 5rem; font-variant-numeric: tabular-nums; }
thead th { background: var(--soft); } tbody th { font-weight: 600; }
.best { font-weight: 700; }
.pictures { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 28rem), 1fr)); }
figure { margin: 0; } figure svg { width: 100%; height: auto; max-height: 34rem; } figcaption { font-weight: 600; }
.note { background: var(--soft); padding: .6rem .9rem; border-left: 4px solid #d55e00; }
summary { cursor: pointer; font-weight: 600; }
@media print { body { max-width: none; } h2, figure, tr { break-inside: avoid; } }
"""
_PROLOGUE = re.compile(r"<metadata>.*?</metadata>|<\?xml.*?\?>|<!DOCTYPE.*?>", re.DOTALL)
_NAMES = re.compile(r'\bid="|xlink:href="#|\bhref="#|url\(#')


def page(title: str, parts: Iterable[str]) -> str:
    """Return a whole page.  parts: HTML."""
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">\n'
    head += f'<title>{escape(title)}</title>\n<link rel="icon" href="data:,">\n<style>{STYLE}</style>'
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n'
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def heading(level: int, text: str) -> str:
    """Return a heading."""
    return f"<h{level}>{escape(text)}</h{level}>"


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph.  kind: a class of the style, such as "note"."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], best: Iterable[tuple[int, int]] = ()) -> str:
    """Return a table whose rows begin with their name.  best: (row, column) of cells to mark."""
    marked = set(best)
    lines = ["<thead><tr>" + "".join(f'<th scope="col">{escape(name)}</th>' for name in head) + "</tr></thead>"] * any(
        head
    )
    lines.append("<tbody>")
    for number, (name, *cells) in enumerate(rows):
        written = (
            f'<td class="best">{escape(cell)}</td>' if (number, column) in marked else f"<td>{escape(cell)}</td>"
            for column, cell in enumerate(cells, 1)
        )
        lines.append(f'<tr><th scope="row">{escape(name)}</th>{"".join(written)}</tr>')
    return '<div class="scroll"><table>' + "\n".join([*lines, "</tbody>"]) + "</table></div>"


def folded(summary: str, part: str) -> str:
    """Return a part that opens at a click, without a script."""
    return f"<details><summary>{escape(summary)}</summary>\n{part}\n</details>"


def pictures(found: Iterable[tuple[str, bytes]], prefix: str) -> str:
    """Return pictures with their captions.  prefix: of the names within each SVG, which are one page's now."""
    figures = []
    for number, (caption, svg) in enumerate(found):
        text = _PROLOGUE.sub("", svg.decode("utf-8")).strip()
        text = _NAMES.sub(lambda match, own=f"{prefix}{number}-": match[0] + own, text)  # type: ignore[misc]
        text = text.replace("<svg ", f'<svg role="img" aria-label="{escape(caption)}" ', 1)
        figures.append(f"<figure><figcaption>{escape(caption)}</figcaption>\n{text}\n</figure>")
    return '<div class="pictures">\n' + "\n".join(figures) + "\n</div>"
