"""Your own activation: softsign, z / (1 + |z|), whose derivative is (1 - |a|)^2.

It is a pair of functions that write into the arrays they are given. They use only the operations listed in
`xpnet.program.calls.WORDS`, so the same pair runs on NumPy and CuPy. When the activation is made, its derivative
is compared with central differences: the example first tries a wrong one, which is refused.
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
    """Compute A = Z / (1 + |Z|)."""
    xp.abs(Z, out=work)
    xp.add(work, 1.0, out=work)
    xp.divide(Z, work, out=out)


def softsign_backward(xp: Any, A: Any, dA: Any, out: Any, work: Any) -> None:
    """Compute dZ = dA (1 - |A|)^2."""
    xp.abs(A, out=work)
    xp.subtract(1.0, work, out=work)
    xp.multiply(work, work, out=work)
    xp.multiply(dA, work, out=out)


def wrong_backward(xp: Any, A: Any, dA: Any, out: Any, work: Any) -> None:
    """Compute dZ = dA (1 - |A|), without the square."""
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
    low, high = (0.85, 0.92) if short else (0.89, 0.94)
    return compare("test accuracy", float(xpnet.evaluate(network, test)["accuracy"]), low, high)


if __name__ == "__main__":
    main()
