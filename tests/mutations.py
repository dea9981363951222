"""Files that are almost right: a seeded mutator of bytes, and of the JSON within them."""

from __future__ import annotations

import json
import random
import re

BYTES = [
    b"\0",
    b"\xff",
    b'"',
    b",",
    b"\n",
    b"\r",
    b"[",
    b"{",
    b"}",
    b"]",
    b" ",
    b"\t",
    b"-",
    b"\x1b[31m",
    b"\xc3",
    b"\xed\xa0\x80",
]
BYTES += [
    b"9" * 400,
    b"-1",
    b"0",
    b"1e999",
    b"NaN",
    b"Infinity",
    b"null",
    b"true",
    b"[" * 200,
    b'{"a":' * 200,
    b" " * 3000,
]
BYTES += ["é".encode(), "\u2028".encode(), b"\xef\xbb\xbf", b"1.0.10", b"2**64", b"x" * 3000]
NUMBERS = [b"9" * 400, b"-1", b"0", b"1", b"7", b"1e999", b"NaN", b"Infinity", b"null", b""]
VALUES = [None, True, False, 0, -1, 1, 2, 0.5, -0.0, 1e308, 1e-320, 10**30, -(10**30), 10**400, 2**31, 2**63, 2**64]
VALUES += [
    "",
    "x",
    "relu",
    "\x1b[31m",
    "a\nb",
    "é\ud800",
    "x" * 3000,
    "../../x",
    "/dev/null",
    "1",
    [],
    {},
    [[]],
    [0],
    {"a": 1},
]
VALUES += [float("nan"), float("inf"), [None] * 50, {"": None}]


def mutated(content: bytes, seed: int) -> bytes:
    """Return the content with one to four changes that the seed decides."""
    rng = random.Random(seed)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 4])):
        content = rng.choice([_flip, _cut, _drop, _double, _insert, _insert, _number, _json, _json, _json])(
            content, rng
        )
    return content


def deep(value: object, depth: int = 100_000) -> str:
    """Return JSON text of a value within that many lists."""
    return "[" * depth + json.dumps(value) + "]" * depth


def _span(content, rng, longest=64):
    start = rng.randrange(len(content) + 1)
    return start, min(len(content), start + rng.randrange(1, longest + 1))


def _flip(content, rng):
    if not content:
        return content
    place = rng.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]


def _cut(content, rng):
    return content[: rng.randrange(len(content) + 1)]


def _drop(content, rng):
    start, stop = _span(content, rng)
    return content[:start] + content[stop:]


def _double(content, rng):
    start, stop = _span(content, rng)
    return content[:stop] + content[start:]


def _insert(content, rng):
    start, stop = _span(content, rng, 4)
    return content[:start] + rng.choice(BYTES) + content[rng.choice([start, stop]) :]


def _number(content, rng):
    found = list(re.finditer(rb"\d+", content))
    if not found:
        return content
    match = rng.choice(found)
    return content[: match.start()] + rng.choice(NUMBERS) + content[match.end() :]


def _json(content, rng):
    """Change a value in JSON: the whole file, one of its lines, or the header of a safetensors file."""
    length = int.from_bytes(content[:8], "little")
    if 0 < length <= len(content) - 8:
        header = _changed(content[8 : 8 + length], rng)
        return len(header).to_bytes(8, "little") + header + content[8 + length :]
    whole = _changed(content, rng)
    if whole != content:
        return whole
    lines = content.split(b"\n")
    place = rng.randrange(len(lines))
    lines[place] = _changed(lines[place], rng)
    return b"\n".join(lines)


def _changed(text, rng):
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return json.dumps(_value(value, rng)).encode()


def _value(value, rng):
    """Return a JSON value in which one part is another, missing, or there twice; JSON in texts is changed too."""
    if isinstance(value, str) and value[:1] in "[{" and rng.random() < 0.9:
        return _changed(value.encode("utf-8", "surrogatepass"), rng).decode("utf-8", "surrogatepass")
    if not value or not isinstance(value, (dict, list)) or rng.random() < 0.1:
        return rng.choice(VALUES)
    value = value.copy()
    key = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
    how = rng.random()
    if how < 0.1:
        del value[key]
    elif how < 0.15 and isinstance(value, dict):
        value[rng.choice(["x", "epoch", "", "\x1b[31m"])] = value.pop(key)
    elif how < 0.2 and isinstance(value, list):
        value.append(value[key])
    else:
        value[key] = _value(value[key], rng)
    return value
