"""The same network on the CPU and the GPU, times side by side.

Weights, batches and their order are the same on both, so the accuracies differ by accumulated rounding only. A small
network may well be faster on the CPU: a GPU waits for the launch of every operation. `xpnet bench` measures from
which width the GPU is ahead. Without a GPU the CPU runs alone, and the reason is printed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import xpnet
from xpnet import datasets
from xpnet.examples.expected import compare


def main(argv: Sequence[str] | None = None) -> float:
    """Run the example and return the accuracy on the CPU."""
    parser = argparse.ArgumentParser(prog="python -m xpnet.examples.cpu_or_gpu")
    parser.add_argument("--short", action="store_true", help="hidden layers of 64 units instead of 512")
    width = 64 if parser.parse_args(argv).short else 512

    backends = [xpnet.select_backend("cpu")]
    try:
        backends.append(xpnet.select_backend("cuda"))
    except xpnet.BackendUnavailable as error:
        print(f"the CPU alone: {' '.join(str(error).split())}")

    train, test = datasets.load_mnist_sample()
    accuracies = []
    for backend in backends:
        network = xpnet.Network([784, width, width, 10], backend=backend, seed=0)
        optimizer = xpnet.SGD(lr=0.02)
        xpnet.train(network, train, optimizer, epochs=1, batch_size=32)  # warms up
        history = xpnet.train(network, train, optimizer, epochs=4, batch_size=32, seed=1)
        seconds = sum(record["seconds"] for record in history)
        accuracies.append(xpnet.evaluate(network, test)["accuracy"])
        print(f"{backend.device:5s} {seconds:7.3f} s for 4 epochs of 784-{width}-{width}-10, test {accuracies[-1]:.4f}")

    if len(accuracies) == 2:
        compare("difference of the accuracies", abs(accuracies[0] - accuracies[1]), 0.0, 0.02)
    low, high = (0.86, 0.93) if width == 64 else (0.88, 0.94)
    return compare("accuracy on the CPU", accuracies[0], low, high)


if __name__ == "__main__":
    main()
