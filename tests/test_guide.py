"""The website: built without a warning, with every public name, links that lead somewhere, nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pages
import pytest

import xpnet
from xpnet import datasets, functional, plots
from xpnet.training import metrics

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "ci/guide"

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("sphinx", reason="the extra docs brings it")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run([ROOT / "ci/docs", folder], capture_output=True, text=True, timeout=600, env=os.environ)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def built(site):
    return {path: pages.Page(path) for path in sorted(site.rglob("*.html"))}


def test_every_page_of_the_guide_is_there(site, built):
    for source in GUIDE.rglob("*.md"):
        page = built[site / source.relative_to(GUIDE).with_suffix(".html")]
        (title,) = re.findall(r"\A# (.+)$", source.read_text(encoding="utf-8"), re.MULTILINE)
        assert title in page.text, source
    assert len(built) > len(list(GUIDE.rglob("*.md")))  # and an index and a search


def test_every_public_name_has_an_entry_with_its_docstring(built):
    """Those of `xpnet`, and of the modules that are used by their name."""
    names = {f"xpnet.{name}" for name in dir(xpnet) if name not in ("__version__", *xpnet._MODULES)}
    for module in (datasets, plots):
        names |= {f"{module.__name__}.{name}" for name in module.__all__}
    names |= {f"xpnet.metrics.{name}" for name in metrics.METRICS}
    names |= {f"xpnet.functional.{name}" for name in ("initialize_model", "forward", "backward", "update", "loss")}
    assert functional.forward and not names - set().union(*(page.ids for page in built.values()))
    training = next(page for path, page in built.items() if path.name == "training.html")
    assert "Train the network in place and return a record an epoch" in training.text
    assert not re.search(r"\bimport_module\b|\bsys\.modules\b", training.text)


def test_links_lead_to_pages_and_to_places_in_them(built):
    n_checked = 0
    for path, page in built.items():
        for link in [*page.links, *page.fetched]:
            parts = urlsplit(link)
            if parts.scheme in ("http", "https", "data", "mailto"):
                continue
            target = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
            assert target.exists(), f"{path.name}: {link}"
            if parts.fragment and target in built:
                assert unquote(parts.fragment) in built[target].ids | {"", "content"}, f"{path.name}: {link}"
            n_checked += 1
    assert n_checked > 500


def test_names_in_texts_are_links_to_the_reference(built):
    moving = next(page for path, page in built.items() if path.name == "moving.html")
    assert {"reference/training.html#xpnet.Checkpoint", "reference/networks.html#xpnet.BatchNorm"} <= set(moving.links)


def test_nothing_is_fetched_from_elsewhere(site, built):
    for page in built.values():
        assert not [link for link in page.fetched if "//" in link], page.path
    for path in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//", path.read_text(encoding="utf-8")), path


@pytest.mark.skipif(pages.browser() is None, reason="there is no Chromium")
@pytest.mark.parametrize("width", [pages.PHONE, pages.DESKTOP])
def test_a_browser_shows_pages_within_its_width_and_without_errors(site, tmp_path, width):
    for name in ("index.html", "moving.html", "examples.html", "reference/training.html"):
        found, errors = pages.seen(site / name, width, tmp_path)
        assert found <= width and not errors, (name, found, errors)
