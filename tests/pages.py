"""What an HTML page holds, by Python's parser, and what a browser says of it where one is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

VOID = frozenset(
    ["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"]
)
MAY_BE_OPEN = frozenset(
    ["li", "p", "dt", "dd", "tr", "td", "th", "thead", "tbody", "option"]
)  # whose end tag HTML lets out
FETCHED = {"script": ("src",), "img": ("src",), "iframe": ("src",), "link": ("href",), "image": ("href", "xlink:href")}
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
PHONE, DESKTOP = 390, 1280  # pixels


class Page(HTMLParser):
    """The ids, links, fetched files and text of a page; raises AssertionError for tags that do not match."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.ids, self.links, self.fetched, self.texts, self.open = path, set(), [], [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        left = [tag for tag in self.open if tag not in MAY_BE_OPEN]
        assert not left, f"{path}: left open are {left}"

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids |= {found[name] for name in ("id", "name") if found.get(name)}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        self.fetched += [found[name] for name in FETCHED.get(tag, ()) if found.get(name)]
        if tag == "link" and found.get("rel") in ("next", "prev", "index", "search", "canonical"):
            self.links.append(self.fetched.pop())
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        while self.open and self.open[-1] != tag and self.open[-1] in MAY_BE_OPEN:
            self.open.pop()
        assert self.open and self.open[-1] == tag, f"{self.path}: </{tag}> closes {self.open[-3:]}, {self.getpos()}"
        self.open.pop()

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.texts.append(data)

    @property
    def text(self) -> str:
        """The words of the page, with single spaces."""
        return " ".join(" ".join(self.texts).split())


def browser() -> str | None:
    """Return the path of a Chromium, None where there is none."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def seen(path: Path, width: int, folder: Path) -> tuple[int, list[str]]:
    """Return the width in pixels that a page takes in a window of `width`, and the errors that its console shows.

    A second page, written into `folder`, holds the first in a frame and measures it.
    """
    frame = folder / "frame.html"
    frame.write_text(
        f'<!DOCTYPE html><title>-</title><body style="margin:0"><iframe id="f" src="{path.as_uri()}" style="border:0" '
        f'width="{width}" height="800" onload="setTimeout(() => {{ let page = document.getElementById(\'f\')'
        '.contentDocument.documentElement; document.title = `width ${page.scrollWidth}`; }, 300)"></iframe></body>',
        encoding="utf-8",
    )
    command = [browser(), "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    command += ["--enable-logging=stderr", f"--window-size={width},800", "--virtual-time-budget=2000"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'profile'}", "--dump-dom"]
    done = subprocess.run([*command, frame.as_uri()], capture_output=True, text=True, timeout=120)
    measured = re.search(r"<title>width (\d+)</title>", done.stdout)
    assert measured, f"{done.stdout[:300]} {done.stderr[-600:]}"
    return int(measured[1]), [line for line in done.stderr.splitlines() if "CONSOLE" in line]
