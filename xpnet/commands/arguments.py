"""What several commands share: converters of options, and the error for options that do not fit each other."""

from __future__ import annotations

import argparse
import difflib
import itertools
import math
import os
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn, TypeVar

from xpnet.backend import DEVICES, check_device
from xpnet.checks import NEAR, OutOfBounds, check_number, check_option, one_line, shown
from xpnet.commands.wording import plain, wrapped
from xpnet.files import check_target
from xpnet.parallel.mpi import rank_given

# Common names of options, losses and metrics that have others here.
FLAGS = {"learning-rate": "lr", "rate": "lr"}
ALIASES = {
    "mae": "absolute_error",
    "mse": "squared_error",
    "rmse": "root_mean_squared_error",
    "bce": "sigmoid_cross_entropy",
    "auc": "roc_auc",
}
_T = TypeVar("_T")
LARGEST_DIGITS = 15  # of a whole number; more than any run or seed needs


class UsageError(Exception):
    """The options do not fit each other."""


def in_flags(error: ValueError, flags: Mapping[str, str]) -> str:
    """Say what the library refused in the words of a command.  flags: the attribute of each of its arguments."""
    if not isinstance(error, OutOfBounds):
        return str(error)
    name = flags.get(error.argument)
    called = error.argument if name is None else f"--{name.replace('_', '-')}"
    return f"{called} is {error.found}; it must be a finite {error.needed}; give another"


class Several(argparse.Action):
    """An option that may be given several times: all its values as a list, a single one by itself."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Add the values to those given before."""
        before = getattr(namespace, self.dest)
        setattr(namespace, self.dest, joined(values if before is self.default else [before, values]))


def joined(values: Any) -> Any:
    """Return values, and lists of values, as one list, a single value by itself."""
    parts = values if isinstance(values, list) else [values]
    flat = [value for part in parts for value in (part if isinstance(part, list) else [part])]
    return flat[0] if len(flat) == 1 else flat


class CommandParser(argparse.ArgumentParser):
    """A parser that takes a word without a flag, anywhere among the options, for the value of one of them.

    word_for: that option's attribute, which takes all such words if it is one of Several.
    word_needed: whether the option or the word must be there, unless the flag `without_word` is.
    two_words: for each flag, the values after which another word belongs to the value.
    argparse's own optional words get lost behind options before Python 3.12.7.
    """

    word_for: str | None = None
    word_needed = False
    without_word = ""
    two_words: Mapping[str, Collection[str]] = MappingProxyType({})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parse as the base class does, and take the words that it leaves over."""
        args = None if args is None else self._joined(list(args))
        for flag in (word.removesuffix("=--") for word in args or () if re.fullmatch("--[a-z0-9-]+=--", word)):
            self.error(f"{flag} has no value but '--', which ends the options; give a value, or leave it out")
        found, rest = super().parse_known_args(args, namespace)
        stray = next((word for word in rest if word.startswith("--")), None)
        if stray is not None:
            self._refuse(stray.partition("=")[0])
        return self._with_word(found, rest, args)

    def _joined(self, args: list[str]) -> list[str]:
        """Return the words with those that belong to one value as one."""
        for place in range(len(args) - 3, -1, -1):
            flag, value, more = args[place : place + 3]
            if value in self.two_words.get(flag, ()):
                args[place + 1 : place + 3] = [f"{value} {more}"]
        return args

    def error(self, message: str) -> NoReturn:
        """Print the usage and the message in one plain line, and exit; of several processes the first one prints."""
        if rank_given():
            self.exit(2)
        super().error(plain(message))

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print help, usage or an error, in lines of the terminal; raises OSError if stdout cannot take it."""
        file = file or sys.stderr
        lines = [wrapped(line, file, " " * (len(line) - len(line.lstrip()) + 2)) for line in message.split("\n")]
        with suppress(OSError) if file is sys.stderr else nullcontext():  # the exit code says it too
            print("\n".join(lines), end="", file=file, flush=True)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse a word that is none of the choices, such as an unknown command, and suggest the nearest."""
        if action.choices is not None and value not in action.choices:
            try:
                check_option(str(action.metavar or action.dest).lower(), value, action.choices)
            except ValueError as error:
                self.error(str(error))

    def _refuse(self, flag: str) -> None:
        """Refuse an unknown option; suggest a known one that is meant, begins like it or is spelled like it."""
        options = [word for action in self._actions for word in action.option_strings]
        known, name = [word.removeprefix("--") for word in options if word.startswith("--")], flag.removeprefix("--")
        near = [FLAGS[name]] if FLAGS.get(name) in known else [word for word in known if word.startswith(name)]
        near = near or difflib.get_close_matches(name, known, 1, NEAR)
        hint = f"did you mean --{near[0]}?" if near else f"{self.prog} --help lists them"
        self.error(f"{one_line(flag, 60)} is none of the options of {self.prog}; {hint}")

    def _with_word(self, found: Any, rest: list[str], args: Any) -> tuple[Any, list[str]]:
        """Take the first words of the rest for the option that they stand for."""
        if self.word_for is None:
            return found, rest
        flag = f"--{self.word_for}"
        words = list(itertools.takewhile(lambda word: word == "-" or not word.startswith("-"), rest))
        if words:
            if any(word == flag or word.startswith(f"{flag}=") for word in args or ()):
                self.error(f"{shown(rest[0])} stands for {flag}, which is given too; leave one of them out")
            try:
                action = next(action for action in self._actions if action.dest == self.word_for)
                words = words if isinstance(action, Several) else words[:1]
                setattr(found, self.word_for, joined([_converted(action, word) for word in words]))
                rest = rest[len(words) :]
            except argparse.ArgumentTypeError as error:
                self.error(str(error))
        needed = self.word_needed and not getattr(found, self.without_word, False)
        if needed and getattr(found, self.word_for) is None:
            self.error(f"the following arguments are required: a file, or {flag}; name the file to read")
        if rest:
            self.error(
                f"unrecognized arguments: {one_line(' '.join(rest))}; `{self.prog} --help` lists those that it has"
            )
        return found, rest


def _converted(action: argparse.Action, text: str) -> Any:
    return action.type(text) if callable(action.type) else text


def option(name: str, choices: Any) -> Callable[[str], str]:
    """Return a converter that takes one of `choices`."""
    return checked(lambda text: check_option(name, _named(text, choices), choices))


def _named(text: str, choices: Iterable[str]) -> str:
    """Return the choice that a text means by its letters or by a common short name, else the text."""
    choices, low = tuple(choices), text.lower().replace("-", "_")
    whole = ALIASES.get(low, low)
    meant = (text, whole, whole.replace("_", "-"), f"mean_{whole}")
    return next((name for name in meant if name in choices), text)


def checked(check: Callable[[str], _T]) -> Callable[[str], _T]:
    """Return a converter that takes what a check returns; what it refuses is told in options."""

    def convert(text: str) -> _T:
        try:
            return check(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def whole(at_least: int, at_most: int = 10**LARGEST_DIGITS - 1) -> Callable[[str], int]:
    """Return a converter that takes a whole number of at least `at_least` and at most `at_most`."""

    def convert(text: str) -> int:
        if not (text.isascii() and text.isdigit()):
            raise argparse.ArgumentTypeError(
                f"{shown(text)} is not a whole number of at least {at_least}; "
                f"write its digits, such as {max(at_least, 10)}"
            )
        if len(text.lstrip("0")) > LARGEST_DIGITS:
            raise argparse.ArgumentTypeError(
                f"{shown(text)} is too large; give a whole number of at most {LARGEST_DIGITS} digits"
            )
        if int(text) > at_most:
            raise argparse.ArgumentTypeError(f"{int(text)} is too large; give a whole number of at most {at_most}")
        if int(text) < at_least:
            raise argparse.ArgumentTypeError(f"{shown(text)} is too small; give a whole number of at least {at_least}")
        return int(text)

    return convert


def size_list(at_least: int, example: str) -> Callable[[str], list[int]]:
    """Return a converter that takes `at_least` sizes or more, separated by commas.  example: for the message."""

    def convert(text: str) -> list[int]:
        parts = text.split(",")
        if any(re.fullmatch("[1-9][0-9]{10,}", part) for part in parts):
            raise argparse.ArgumentTypeError(
                f"{shown(text)} has a size too large; write sizes of at most 10 digits as {example}"
            )
        if len(parts) < at_least or not all(re.fullmatch("[1-9][0-9]{0,9}", part) for part in parts):
            raise argparse.ArgumentTypeError(f"{shown(text)} is not a list of sizes; write them as {example}")
        return [int(part) for part in parts]

    return convert


def positive(example: str) -> Callable[[str], float]:
    """Return a converter that takes a finite number above 0.  example: for the message."""
    return number(example, above=0.0)


def number(example: str, above: float = -math.inf) -> Callable[[str], float]:
    """Return a converter that takes a finite number.

    example: for the message.  above: the bound, if any; others are checked where the number is used.
    """
    bound = f" above {above:g}" if math.isfinite(above) else ""

    def convert(text: str) -> float:
        try:
            return check_number("the number", float(text), above=above, example=example)
        except ValueError:  # no number, or none such
            raise argparse.ArgumentTypeError(
                f"{shown(text)} is not a finite number{bound}; write one such as {example}"
            ) from None

    return convert


def rates(text: str) -> list[float]:
    """Convert rates from 0 to below 1, separated by commas."""
    try:
        return [check_number("a rate", float(part), at_least=0, below=1, example="0.5") for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{shown(text)} is not a rate from 0 to below 1; write one as 0.5, or several as 0.2,0.5"
        ) from None


def name_list(name: str, choices: Iterable[str]) -> Callable[[str], list[str]]:
    """Return a converter that takes names out of `choices`, separated by commas."""
    convert = option(name, choices)
    return lambda text: [convert(part) for part in text.split(",")]


def refuse_stray(
    arguments: argparse.Namespace, flags: Iterable[str], choice: str, name: str, takers: Mapping[str, Collection[str]]
) -> None:
    """Refuse a flag that the chosen name does not use.

    flags: their attributes in `arguments`.  choice, name: such as "--optimizer", "adam".
    takers: for each name that can be chosen, the flags it takes.
    """
    for flag in flags:
        if getattr(arguments, flag) is not None and flag not in takers[name]:
            others = [other for other, taken in takers.items() if flag in taken]
            raise UsageError(
                f"--{flag.replace('_', '-')} goes with {choice} {' or '.join(others)}, not with {name}; "
                f"leave it out, or choose another {choice}"
            )


def check_writable(flag: str, text: str) -> None:
    """Refuse a file that could not be written in the end, before anything is computed; raises UsageError or OSError."""
    folder = Path(text).parent
    if text == "" or Path(text).is_dir():
        raise UsageError(f"{flag} is {shown(text)}, a folder; name a file")
    check_target(text)
    if not folder.is_dir():
        raise FileNotFoundError(f"{flag} {text}: there is no folder {folder}; make it first")
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{flag} {text}: the folder {folder} cannot be written; name another")


def add_device(command: argparse._ActionsContainer, auto: str = "") -> None:
    """Add --device.  auto: what "auto" means, where that is special."""
    command.add_argument(
        "--device",
        type=checked(lambda text: check_device("device", text.lower())),
        metavar="NAME",
        help=f"{', '.join(DEVICES)}{auto}, or a GPU by its number such as cuda:1 (default: $XPNET_DEVICE, else auto)",
    )
