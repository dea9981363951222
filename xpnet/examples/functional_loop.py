"""A network as plain functions on a dict: forward, backward, update, 30,000 times.

The data are noise, so the network can only memorise the 50 samples. The loss falls fast at first; then the
hidden units sit at 0 or 1, where a sigmoid is flat, and it goes up and down around a quarter of where it began.
`--plot loss.png` draws it on a logarithmic axis.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from xpnet import plots
from xpnet.examples.expected import compare, stop
from xpnet.functional import backward, forward, initialize_model, loss, update


def main(argv: Sequence[str] | None = None) -> float:
    """Run the example and return the last loss divided by the first."""
    parser = argparse.ArgumentParser(prog="python -m xpnet.examples.functional_loop")
    parser.add_argument("--short", action="store_true", help="1,800 updates instead of 30,000")
    parser.add_argument("--plot", metavar="FILE", help="write the picture: a .png or .svg (extra: xpnet[plot])")
    args = parser.parse_args(argv)
    if args.plot:
        try:  # before the work, not after it
            plots.check_suffix(args.plot)
            ax = plots.new_axes()
        except (ImportError, ValueError) as error:
            stop(parser, error)

    rng = np.random.default_rng(0)
    X = rng.standard_normal((784, 50))  # 50 samples, each a column
    Y = rng.random((10, 50))  # between 0 and 1, where a sigmoid can reach it
    model = initialize_model([784, 15, 10], seed=0)  # a dict of weights and biases

    n_updates = 1_800 if args.short else 30_000
    updates, losses = [], []
    for i in range(n_updates + 1):
        yhat, model = forward(X, model)  # adds activations and z_inputs to the dict
        if i % (n_updates // 60) == 0:
            updates.append(i)
            losses.append(float(loss(yhat, Y)))
        model = backward(Y, model)  # adds the gradients
        model = update(0.5, model)  # moves weights and biases, and removes what the other two added

    for i in range(0, 61, 10):
        print(f"update {updates[i]:6d}  loss {losses[i]:.4f}")
    if args.plot:
        ax.semilogy(updates, losses)
        ax.set_xlabel("updates")
        ax.set_ylabel("loss, summed over the batch")
        try:
            plots.save(ax, args.plot)
        except OSError as error:
            stop(parser, error)
    # The mean of Y, whatever x is, would give 0.39.
    return compare("last loss / first loss", losses[-1] / losses[0], 0.15, 0.35)


if __name__ == "__main__":
    main()
