"""One update of a network by hand."""

from __future__ import annotations

from typing import Any

from xpnet.network.network import Network, feed_samples
from xpnet.training.optimizers import Optimizer
from xpnet.training.options import check_optimizer

__all__ = ["step"]


def step(network: Network, optimizer: Optimizer, X: Any, Y: Any, weights: Any = None, *, seed: int = 0) -> float:
    """Update the network once on the batch X (n_inputs, batch), Y (n_outputs, batch) and return the loss before it.

    Arrays of the network's backend and dtype; weights (batch,) or None.  The loss is the batch's (weighted) mean.
    Unlike in `train`, targets are not checked: softmax_cross_entropy needs columns of Y that sum to 1.
    seed: of dropout's masks, which continue from call to call.
    It is never compiled for the CPU: single steps would not repay that.
    """
    check_optimizer(optimizer)
    batch, weights = network.check_samples(X, Y, weights), network.relative(weights)
    weighted = weights is not None
    with network.engine(
        ("step", optimizer, weighted, batch, seed), lambda: network.training_program(batch, optimizer, weighted, seed)
    ) as engine:
        network.inputs = None  # nobody has looked at these
        optimizer.attach(network, engine)
        if network.step_keys is not None:  # of another engine, if the last batch had another size
            engine.keys[...] = network.step_keys
        feed_samples(engine, batch, X, Y, weights)
        engine.set_slots(optimizer.slot_rows(1)[0])
        engine.execute(batch)
        optimizer.advance(1)
        results = engine.read_results()
        if engine.program.n_keys:
            network.step_keys = engine.keys.copy()
    return results["loss"] / results.get("weight", batch)
