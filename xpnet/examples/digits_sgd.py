"""Handwritten digits as in the first chapter of Nielsen's book.

784-30-10 with sigmoids, the quadratic cost 0.5 |a - y|^2 and plain gradient descent, batch 10, learning rate 3. After
each epoch it prints how many test digits the network reads correctly. Without `--data` it learns from the sample inside
the package, a twelfth of MNIST.
Source: Nielsen (2015), Neural Networks and Deep Learning, chapter 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import xpnet
from xpnet import datasets
from xpnet.examples.expected import compare, stop


def main(argv: Sequence[str] | None = None) -> float:
    """Run the example and return the share of test digits read correctly."""
    parser = argparse.ArgumentParser(prog="python -m xpnet.examples.digits_sgd")
    parser.add_argument("--data", metavar="DIR", help="folder of MNIST's four IDX files (else the package's sample)")
    parser.add_argument("--short", action="store_true", help="5 epochs instead of 30")
    args = parser.parse_args(argv)
    try:
        train, test = datasets.load_mnist(args.data) if args.data is not None else datasets.load_mnist_sample()
    except (OSError, ValueError) as error:
        stop(parser, error)

    # init="normal": standard normal weights, as in the book. Sigmoids start flat with them, hence the large rate.
    network = xpnet.Network([784, 30, 10], activation="sigmoid", output="sigmoid", loss="squared_error", init="normal")
    n_epochs = 5 if args.short else 30
    for record in xpnet.epochs(network, train, xpnet.SGD(lr=3.0), epochs=n_epochs, batch_size=10, validation=test):
        right = round(record["val_accuracy"] * test.n_samples)
        print(f"epoch {record['epoch']:2d}: {right} / {test.n_samples}")

    low, high = (RANGES_SHORT if args.short else RANGES)[args.data is not None]
    return compare("read correctly", right / test.n_samples, low, high)


# of the sample, of the whole of MNIST
RANGES = ((0.88, 0.93), (0.94, 0.96))
RANGES_SHORT = ((0.84, 0.91), (0.925, 0.95))

if __name__ == "__main__":
    main()
