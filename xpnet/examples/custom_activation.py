"""An activation of one's own: softsign, z / (1 + |z|), whose derivative is (1 - |a|)^2.

It is written as a pair of kernels that fill arrays they are given, in the words of `xpnet.program.WORDS`; the same
pair runs on NumPy and CuPy. When it is made, it is held against central differences: a wrong sign does not get through.
Source: Glorot and Bengio (2010), Understanding the difficulty of training deep feedforward neural networks.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import xpnet
from xpnet import datasets
from xpnet.examples.expected import compare


def softsign(xp: Any, Z: Any, out: Any, work: Any) -> None:
    """A = Z / (1 + |Z|)."""
    xp.abs(Z, out=work)
    xp.add(work, 1.0, out=work)
    xp.divide(Z, work, out=out)


def softsign_backward(xp: Any, A: Any, dA: Any, out: Any, work: Any) -> None:
    """dZ = dA (1 - |A|)^2."""
    xp.abs(A, out=work)
    xp.subtract(1.0, work, out=work)
    xp.multiply(work, work, out=work)
    xp.multiply(dA, work, out=out)


def wrong_backward(xp: Any, A: Any, dA: Any, out: Any, work: Any) -> None:
    """dZ = dA (1 - |A|), the square forgotten."""
    xp.abs(A, out=work)
    xp.subtract(1.0, work, out=work)
    xp.multiply(dA, work, out=out)


def main(argv: Sequence[str] | None = None) -> float:
    """Run the example and return the accuracy on the test digits."""
    parser = argparse.ArgumentParser(prog="python -m xpnet.examples.custom_activation")
    parser.add_argument("--short", action="store_true", help="2 epochs instead of 10")
    short = parser.parse_args(argv).short

    try:
        xpnet.CustomActivation("softsign", softsign, wrong_backward, scratch=("matrix",))
    except ValueError as error:
        print(f"refused: {error}")
    activation = xpnet.CustomActivation("softsign", softsign, softsign_backward, scratch=("matrix",))

    train, test = datasets.load_mnist_sample()
    network = xpnet.Network([784, 100, 10], activation=activation)
    xpnet.train(network, train, xpnet.SGD(lr=0.1), epochs=2 if short else 10, batch_size=32)
    low, high = (0.84, 0.91) if short else (0.90, 0.95)
    return compare("test accuracy", float(xpnet.evaluate(network, test)["accuracy"]), low, high)


if __name__ == "__main__":
    main()
