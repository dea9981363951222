"""What a wheel must hold: `--same A B` that two hold the same files; `--installed` that what is installed is whole.

It is run outside the checkout, where xpnet can only be the one that was installed.
"""

from __future__ import annotations

import argparse
import zipfile
from importlib.metadata import distribution
from pathlib import Path


def contents(wheel: Path) -> dict[str, int]:
    """The name of each file in a wheel, and the checksum of what it holds."""
    with zipfile.ZipFile(wheel) as archive:
        return {entry.filename: entry.CRC for entry in archive.infolist()}


def check_same(wheels: list[Path]) -> None:
    one, other = map(contents, wheels)
    differ = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
    assert not differ, f"{wheels[0]} and {wheels[1]} differ in {', '.join(differ)}"
    print(f"{len(one)} files in the wheel, the same from the sdist and from the checkout")


def check_installed() -> None:
    import xpnet

    package, found = Path(xpnet.__file__).parent, distribution("xpnet")
    assert "site-packages" in package.parts, f"xpnet is imported from {package}"
    assert xpnet.__version__ == found.version
    names = {str(path) for path in found.files or []}
    needed = {"xpnet/py.typed", "xpnet/datasets/NOTICE", "xpnet/datasets/mnist_sample.npz"}
    assert needed <= names, f"not installed: {needed - names}"
    notices = found.metadata.get_all("License-File") or []
    assert {"LICENSE", "xpnet/datasets/NOTICE"} <= set(notices), notices
    for notice in notices:
        (path,) = [path for path in found.files or [] if str(path).endswith(f"licenses/{notice}")]
        assert path.locate().read_text(encoding="utf-8").strip(), path
    print(f"xpnet {found.version} is installed with py.typed and {', '.join(sorted(notices))}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--same", nargs=2, type=Path, metavar="WHEEL")
    parser.add_argument("--installed", action="store_true")
    options = parser.parse_args()
    if options.same:
        check_same(options.same)
    if options.installed:
        check_installed()
