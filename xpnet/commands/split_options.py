"""The options that say which samples are held out, and the split they make."""

from __future__ import annotations

import argparse

from xpnet.commands.arguments import CommandParser, UsageError, checked, whole
from xpnet.commands.image_data import FORM
from xpnet.commands.samples import Samples
from xpnet.datasets.mnist import FAMILY
from xpnet.recipe.samples import TableSamples
from xpnet.tables import splitting
from xpnet.tables.files import as_folder, called, is_images, is_table, kind_of
from xpnet.tables.formats import TABLE, either, example, suffixes
from xpnet.tables.splitting import (
    BY_COLUMN,
    FEWEST,
    GROUP,
    LAST,
    PART,
    SHUFFLE,
    STRATIFY,
    TIME,
    Split,
    kind_and_column,
    usual_count,
    usual_split,
)

VALIDATION = dict.fromkeys(FAMILY, 10_000)  # samples held out of these, the last ones


def add_split(command: CommandParser, group: argparse._ActionsContainer) -> None:
    """Add --validation and --split."""
    command.two_words = {"--split": BY_COLUMN}
    table = example(TABLE, "V")
    group.add_argument(
        "--validation",
        type=_part,
        metavar=f"N|FRACTION|{table}|FOLDER",
        help="training samples to hold out, 0 for none, another table with the same columns, or of images "
        "another folder with the same classes "
        f"(default: 10000 of {' and '.join(FAMILY)}, {PART:g} of the others, more of few, none of less than {FEWEST})",
    )
    group.add_argument(
        "--split",
        type=checked(_split),
        metavar="NAME [COLUMN]",
        help=f"which samples are held out: {SHUFFLE}, {STRATIFY} (the same part of each class), {GROUP} COLUMN (no "
        f"value of it on both sides), time COLUMN (the latest), {LAST} "
        f"(default: {STRATIFY} for classes, else {SHUFFLE}; "
        f"{LAST} of {', '.join(FAMILY)}, the sample and large files)",
    )


def add_judges(command: argparse.ArgumentParser, with_folds: bool = True) -> None:
    """Add --test and --folds.  with_folds: the latter too."""
    group = command.add_argument_group("judgement", "of what is learnt, on other samples than those trained on")
    group.add_argument(
        "--test",
        type=as_folder,
        metavar=f"{example(TABLE, 'T')}|FOLDER",
        help="of a table: another one with the same columns, measured at the end; of images: a folder with the same "
        "classes",
    )
    if not with_folds:
        return
    group.add_argument(
        "--folds",
        type=whole(2),
        metavar="K",
        help="before the run, train K times without a Kth of the samples; print mean and spread of the scores on that",
    )


def check_split(arguments: argparse.Namespace) -> None:
    """Refuse options that do not fit the data by their kind; raises UsageError."""
    files, formats = other_files(arguments), f"a {either(suffixes(TABLE))} file"
    if getattr(arguments, "folds", None) is not None:
        _check_folds(arguments)
    if is_table(arguments.dataset):
        test = files.get("test")
        if test is not None and not is_table(test):
            raise UsageError(f"--test is {test}; it must be a table, {formats}; name one")
        return
    if is_images(arguments.dataset):
        for flag, path in files.items():
            if not is_images(path):
                raise UsageError(f"--{flag} is {path}; it must be {FORM}, as --dataset is; name one")
        files = {}
    for flag, path in files.items():
        raise UsageError(
            f"--{flag} {path} goes with a table, {formats}, not with {called(arguments.dataset)}; leave it out"
        )
    if arguments.split is not None and (kind := kind_and_column(arguments.split)[0]) in BY_COLUMN:
        raise UsageError(
            f"--split {arguments.split} goes with a table, whose columns have names, and {called(arguments.dataset)} "
            f"has none; take --split {SHUFFLE if kind == GROUP else LAST}"
        )


def other_files(arguments: argparse.Namespace) -> dict[str, str]:
    """Return the files that the options name to validate and to test, by the names of the options."""
    validation, test = arguments.validation, getattr(arguments, "test", None)
    files = {"validation": validation if validation is not None and _is_other(validation) else None, "test": test}
    return {flag: path for flag, path in files.items() if path is not None}


def _check_folds(arguments: argparse.Namespace) -> None:
    text = f"--folds {arguments.folds}"
    if arguments.split is not None and kind_and_column(arguments.split)[0] in (TIME, LAST):
        raise UsageError(
            f"{text} takes rows from anywhere, and --split {arguments.split} keeps their order; leave one out, or take "
            f"--split {SHUFFLE}"
        )
    if arguments.validation is not None and _is_other(arguments.validation):
        raise UsageError(
            f"{text} holds out the rows of {called(arguments.dataset)} in turn, and --validation "
            f"{arguments.validation} holds others; leave one of them out"
        )


def may_validate(arguments: argparse.Namespace) -> bool:
    """Whether the options leave room for a validation."""
    text = arguments.validation
    return text is None or _is_other(text) or float(text) > 0


def split_of(arguments: argparse.Namespace, samples: Samples | TableSamples) -> Split:
    """Return the split that the options describe; raises UsageError where it does not fit the samples."""
    n_held_out, labels = count_of(arguments, samples.name, samples.n), samples.labels
    if arguments.split is not None:
        kind, column = kind_and_column(arguments.split)
        if kind == STRATIFY and labels is None:
            raise UsageError(
                f"--split {STRATIFY} needs classes, and the targets of {samples.name} are numbers; take --split "
                f"{SHUFFLE}"
            )
        return Split(kind, n_held_out, arguments.seed, column)
    has_order = kind_of(arguments.dataset) is None
    if samples.is_large or has_order:
        return Split(LAST, n_held_out, arguments.seed)
    return usual_split(n_held_out, arguments.seed, labels)


def count_of(arguments: argparse.Namespace, name: str, n: int) -> int:
    """Return how many of n samples are to be held out; raises UsageError for a part that cannot be.  name: of all."""
    text = arguments.validation
    if text is not None and _is_other(text):
        return 0
    if text is None:
        count = VALIDATION.get(called(arguments.dataset), usual_count(n))
        text = str(count)
    else:
        wanted = float(text)
        count = splitting.count_of(wanted, n)
        if wanted > 0.0 and count == 0:
            raise UsageError(f"--validation {text} of {n} samples of {name} is none; give more, or 0 for none")
    if count >= n:
        raise UsageError(f"--validation {text}, which leaves none of the {n} samples of {name} to train on; give fewer")
    return count


def _split(text: str) -> str:
    kind, column = kind_and_column(text)
    return kind if column is None else f"{kind} {column}"


def _is_other(text: str) -> bool:
    """Whether a text is the name of other samples, and no number of these."""
    return is_table(text) or is_images(text)


def _part(text: str) -> str:
    text = as_folder(text)
    if _is_other(text):
        return text
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not (0.0 <= value < 1.0 or (value >= 1.0 and value.is_integer())):
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a number of samples nor a fraction below 1, nor a table or a folder of images; write "
            "one such as 1000 or 0.1"
        )
    return text
