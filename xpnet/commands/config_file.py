"""--config: a file of options, which stand for flags that the command line leaves out."""

from __future__ import annotations

import argparse
import difflib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xpnet.checks import NEAR, one_line, shown
from xpnet.commands.arguments import Several, UsageError, joined
from xpnet.commands.defaults import IN_PLACE_OF, of_before
from xpnet.files import parse_json, read_whole

# Not kept for repeating a run: where it goes and how it reports.
NOT_KEPT = (
    "command",
    "run",
    "parser",
    "config",
    "resume",
    "out",
    "json",
    "quiet",
    "plan",
    "plot",
    "reading",
    "defaulted",
    "images",
    "communicator",
    "no_mpi",
)


def add_config(command: argparse.ArgumentParser) -> None:
    """Add --config to a command."""
    command.add_argument(
        "--config",
        metavar="FILE",
        help="options by their long names, such as batch-size = 32, in a "
        "TOML file, or the config.json of a run, which repeats it; the command line wins",
    )
    command.set_defaults(parser=command)


def apply_config(
    command: argparse.ArgumentParser, path: Path, *, all_known: bool = True, given: argparse.Namespace | None = None
) -> None:
    """Make the options in a file the command's defaults.

    all_known: whether to refuse an unknown key, or to skip it.
    given: the options of the command line, of which one may stand in the place of one in the file.
    Raises FileNotFoundError, or UsageError for a file or a key that it cannot take.
    """
    command.set_defaults(**converted(command, _read(path), str(path), all_known=all_known, given=given))


def converted(
    command: argparse.ArgumentParser,
    options: Mapping[str, Any],
    source: str,
    *,
    all_known: bool = True,
    given: argparse.Namespace | None = None,
) -> dict[str, Any]:
    """Return the attributes of a command's options by their long names, as if they had been typed.

    source: where they are written, for messages.  all_known, given: as for `apply_config`.
    Raises UsageError for an option that the command does not have, or a value that it cannot take.
    """
    actions = {action.option_strings[-1].removeprefix("--"): action for action in command._actions}
    for key in ("help", "config", "resume"):
        actions.pop(key, None)
    values: dict[str, Any] = {}
    for written, value in options.items():
        key = written.replace("_", "-")
        if getattr(given, IN_PLACE_OF.get(key, ""), None) is not None:
            continue
        if key not in actions and not all_known:
            continue
        if key not in actions:
            near = difflib.get_close_matches(key, actions, 1, NEAR)
            hint = f"did you mean {near[0]!r}?" if near else "leave it out"
            raise UsageError(
                f"{source} has {shown(written)}, which is none of the options of {command.prog} --help; {hint}"
            )
        if actions[key].dest in values:
            raise UsageError(f"{source} says {key} twice, with - and with _; leave one of them out")
        try:
            values[actions[key].dest] = _converted(actions[key], value)
        except argparse.ArgumentTypeError as error:
            raise UsageError(f"{source}: {key}: {error}") from None
    return values


def kept_options(arguments: argparse.Namespace, data: dict[str, Any]) -> dict[str, Any]:
    """Return the options given to a run, as `apply_config` takes them.

    data: the source of `xpnet.commands.data.Data`, whose paths do not depend on the folder we are in.
    Defaults that depend on other options, such as the optimizer's rate, are left to follow them again.
    """
    options = {**vars(arguments), **data}
    return {
        name.replace("_", "-"): value
        for name, value in options.items()
        if name not in NOT_KEPT and value is not None and value is not False and value != []
    }


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"--config {path}: there is no such file; name a TOML file, or a run's config.json")
    is_json = path.suffix == ".json"
    try:
        text = read_whole(path).decode()
        found = parse_json(text) if is_json else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        cause = one_line(error)
        kind, cure = ("JSON", "restore it") if is_json else ("TOML", "write lines such as batch-size = 32")
        raise UsageError(f"--config {path} is not {kind} ({cause}); {cure}") from None
    if not is_json:
        return found
    options = found.get("options") if isinstance(found, dict) else None
    if not isinstance(options, dict):
        raise UsageError(
            f"--config {path} has no options section; it must be the config.json of a run of this version, "
            "or a TOML file"
        )
    data = found.get("data")
    return options if isinstance(data, dict) and "split" in data else of_before(options)


def _converted(action: argparse.Action, value: Any) -> Any:
    """Return the option's value, as if it had been typed after the flag."""
    if action.nargs == 0:  # a switch
        if not isinstance(value, bool):
            raise argparse.ArgumentTypeError(f"{_shown(value)}; it must be true or false; write one of these")
        return value
    items = value if isinstance(value, list) else [value]
    if not items or not all(isinstance(item, (str, int, float)) and not isinstance(item, bool) for item in items):
        raise argparse.ArgumentTypeError(f"{_shown(value)}; it must be {action.metavar or 'text'}; write it like that")
    if action.type is None:
        if not isinstance(value, str):
            raise argparse.ArgumentTypeError(f"{_shown(value)}; it must be text; write it in quotes")
        return value
    convert: Any = action.type
    if isinstance(action, Several):
        return joined([convert(str(item)) for item in items])
    converted = convert(",".join(map(str, items)))
    first = converted[0] if isinstance(converted, list) else converted
    if isinstance(first, (int, float)) and isinstance(items[0], str):
        raise argparse.ArgumentTypeError(f"{_shown(value)}; it must be a number; write it without quotes")
    return converted


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return f"it is {text if len(text) <= 60 else text[:57] + '...'}"
