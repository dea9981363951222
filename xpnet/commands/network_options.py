"""The options that say what network is trained, and the network they make."""

from __future__ import annotations

import argparse
from typing import Any

from xpnet.backend import DTYPES, asked_device
from xpnet.commands.arguments import (
    UsageError,
    add_device,
    in_flags,
    name_list,
    number,
    option,
    rates,
    refuse_stray,
    size_list,
    whole,
)
from xpnet.commands.defaults import told
from xpnet.kernels.activations import ACTIVATIONS
from xpnet.network.architecture import NORMALIZATIONS, Architecture
from xpnet.network.losses import LOSSES, Loss
from xpnet.network.network import Network
from xpnet.network.parameters import WEIGHT_INITIALISERS
from xpnet.recipe.samples import Data
from xpnet.specs import defaults_of
from xpnet.tables.files import called

# For each loss its parameters, by flag: huber's delta is --huber-delta, unless several losses share a parameter.
SHARED = {"smoothing": "label_smoothing"}
LOSS_FLAGS = {
    name: {SHARED.get(key, f"{name}_{key}"): key for key in defaults_of(made)} for name, made in LOSSES.items()
}
MEANINGS = {
    "huber_delta": "residual from which it is linear",
    "label_smoothing": "part of the targets, from 0 to below 1",
}

OF_LOSSES = tuple(dict.fromkeys(flag for flags in LOSS_FLAGS.values() for flag in flags))
# The options that determine the network.
NETWORK = ("layers", "hidden", "activation", "output", "init", "normalization", "dropout", "loss", *OF_LOSSES)


def add_network(command: argparse.ArgumentParser) -> None:
    """Add the options of the network."""
    group = command.add_argument_group("network")
    group.add_argument(
        "--layers", type=size_list(2, "784,100,200,10"), metavar="N,N,...", help="sizes, the data's own at both ends"
    )
    group.add_argument(
        "--hidden",
        type=size_list(1, "64,32"),
        metavar="N[,N...]",
        help=f"sizes of the hidden layers between the data's own {told('hidden')}",
    )
    group.add_argument(
        "--activation",
        type=name_list("activation", ACTIVATIONS),
        default=["relu"],
        metavar="NAME[,NAME...]",
        help=f"of hidden layers, one for all or one each: {', '.join(ACTIVATIONS)} (default: relu)",
    )
    group.add_argument(
        "--output",
        type=_output,
        default="identity",
        metavar="NAME",
        help="activation of the last layer (default: %(default)s)",
    )
    group.add_argument(
        "--init",
        type=option("init", WEIGHT_INITIALISERS),
        metavar="NAME",
        help=f"of all weights: {', '.join(WEIGHT_INITIALISERS)} (default: what suits each activation)",
    )
    group.add_argument(
        "--normalization",
        type=option("normalization", NORMALIZATIONS),
        metavar="NAME",
        help=f"before each hidden activation: {' or '.join(NORMALIZATIONS)}",
    )
    group.add_argument(
        "--dropout",
        type=rates,
        metavar="RATE[,RATE...]",
        help=f"after each hidden activation, one for all or one each {told('dropout')}",
    )
    _add_loss(group)
    group.add_argument(
        "--seed",
        type=whole(0),
        default=0,
        metavar="N",
        help="of weights, order of samples and dropout (default: %(default)s)",
    )
    group.add_argument(
        "--dtype",
        type=option("dtype", DTYPES),
        default="float32",
        metavar="NAME",
        help=f"{' or '.join(DTYPES)} (default: %(default)s)",
    )
    add_device(group)


def _add_loss(group: Any) -> None:
    group.add_argument(
        "--loss",
        type=option("loss", LOSSES),
        metavar="NAME",
        help=f"{', '.join(LOSSES)} (default: softmax_cross_entropy for classes, "
        "sigmoid_cross_entropy for a table's two, else squared_error)",
    )
    for flag in OF_LOSSES:
        defaults = {name: defaults_of(LOSSES[name])[key[flag]] for name, key in LOSS_FLAGS.items() if flag in key}
        group.add_argument(
            f"--{flag.replace('_', '-')}",
            type=number("0.1"),
            metavar="X",
            help=f"{', '.join(f'{name} ({default:g})' for name, default in defaults.items())}: "
            f"{MEANINGS.get(flag, 'a parameter')}",
        )


def _output(text: str) -> str:
    if text == "softmax":
        raise argparse.ArgumentTypeError(
            "'softmax' is no activation here: it is in the loss, which needs the plain output; leave --output out, "
            "or take --loss softmax_cross_entropy"
        )
    return option("output", ACTIVATIONS)(text)


def check_network(arguments: argparse.Namespace) -> None:
    """Refuse options that are wrong for any data; raises UsageError."""
    if arguments.layers is not None and arguments.hidden is not None:
        layers, hidden = (",".join(map(str, sizes)) for sizes in (arguments.layers, arguments.hidden))
        raise UsageError(
            f"--layers {layers} names all sizes and --hidden {hidden} those between the data's own; leave one of them "
            "out"
        )
    sizes = sizes_between(arguments, 1, 2)
    loss = "squared_error" if arguments.loss is None else _loss(arguments, arguments.loss)
    for name in ("dropout", "normalization"):
        if len(sizes) == 2 and getattr(arguments, name) not in (None, [0.0]):
            raise UsageError(
                f"--{name} works on hidden layers, and --layers {sizes[0]},{sizes[1]} has none; "
                "leave it out, or add a size between them"
            )
    if arguments.normalization == "batch" and arguments.batch_size == 1:
        raise UsageError(
            "--normalization batch needs 2 samples a step, --batch-size is 1; raise it, or take --normalization layer"
        )
    try:
        Architecture.of_sizes(sizes, loss=loss, **_shape(arguments))
    except ValueError as error:
        raise UsageError(str(error)) from None


def sizes_between(arguments: argparse.Namespace, n_inputs: int, n_outputs: int) -> list[int]:
    """Return the sizes that --layers names, or those of --hidden between the data's own."""
    return arguments.layers or [n_inputs, *arguments.hidden, n_outputs]


def make_network(arguments: argparse.Namespace, data: Data) -> Network:
    """Make the network that the options describe, for these data; raises UsageError if they do not fit."""
    training = data.training
    sizes = sizes_between(arguments, training.n_features, training.n_outputs)
    if (sizes[0], sizes[-1]) != (training.n_features, training.n_outputs):
        several = "classes" if training.is_classification else "outputs"
        outputs = several if training.n_outputs > 1 else "output"
        raise UsageError(
            f"--layers goes from {sizes[0]} to {sizes[-1]}, {called(arguments.dataset)} has {training.n_features} "
            f"feature{'s' * (training.n_features > 1)} and {training.n_outputs} {outputs}; "
            "begin and end with these"
        )
    return network_of(arguments, sizes, data.default_loss)


def network_of(arguments: argparse.Namespace, sizes: list[int], default_loss: str) -> Network:
    """Make the network that the options describe, of these sizes; raises UsageError for what does not go together."""
    loss = _loss(arguments, arguments.loss or default_loss)
    asked_device(arguments.device)  # refuses what the environment says, which is no option
    where = {"device": arguments.device, "dtype": arguments.dtype}
    try:
        return Network(sizes, loss=loss, **where, seed=arguments.seed, **_shape(arguments))
    except ValueError as error:
        raise UsageError(str(error)) from None


def _shape(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what stands between the sizes; a list of one is for all hidden layers."""
    names, drop = arguments.activation, arguments.dropout
    return {
        "activation": names[0] if len(names) == 1 else names,
        "output": arguments.output,
        "init": arguments.init,
        "normalization": arguments.normalization,
        "dropout": drop[0] if drop and len(drop) == 1 else drop,
    }


def _loss(arguments: argparse.Namespace, name: str) -> Loss:
    refuse_stray(arguments, OF_LOSSES, "--loss", name, LOSS_FLAGS)
    given = {
        parameter: getattr(arguments, flag)
        for flag, parameter in LOSS_FLAGS[name].items()
        if getattr(arguments, flag) is not None
    }
    try:
        return LOSSES[name](**given)
    except ValueError as error:
        flags = {f"{parameter} of {name}": flag for flag, parameter in LOSS_FLAGS[name].items()}
        raise UsageError(in_flags(error, flags)) from None
