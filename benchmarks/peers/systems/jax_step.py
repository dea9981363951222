"""JAX, one jitted call a step: weights, step number and loss are donated, so that a step updates them in place."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np

from ..works import Data, Parameters, Work, initial_parameters


def training_step(work: Work):
    """Return step(layers, X, Y, samples) -> (layers, loss)."""
    activations = {"sigmoid": jax.nn.sigmoid, "tanh": jnp.tanh, "relu": jax.nn.relu, "identity": lambda Z: Z}

    def loss(layers, x, y):
        for i, (W, b) in enumerate(layers):
            x = activations[work.hidden if i < len(layers) - 1 else work.output](x @ W + b)
        if work.loss == "squared_error":
            return 0.5 * jnp.sum((x - y) ** 2) / work.batch
        return -jnp.sum(y * jax.nn.log_softmax(x)) / work.batch

    def step(layers, X, Y, samples):
        x, y = (jnp.take(A, samples, axis=0, mode="clip") for A in (X, Y))
        value, gradients = jax.value_and_grad(loss)(layers, x, y)
        return jax.tree.map(lambda parameter, slope: parameter - work.lr * slope, layers, gradients), value

    return step


class System:
    comparable, whole_epochs = True, False

    @staticmethod
    def unusable(device: str) -> str | None:
        try:
            jax.devices(device)
        except RuntimeError as error:  # without the device's plug-in; where there is a GPU, JAX takes it by itself
            return f"jax {jax.__version__} has no {device} device ({str(error).splitlines()[0]})"
        return None

    def __init__(self, work: Work, data: Data, threads: int, device: str) -> None:
        self.work, self.X, self.Y = work, jnp.asarray(data.X), jnp.asarray(data.Y)
        self.train = self.compile()

    def compile(self):
        """Return train(layers, order) -> (layers, sum of the losses)."""
        step, batch = training_step(self.work), self.work.batch

        # The batch is cut from the order inside the jitted step, which costs less than a slice or an upload outside.
        @partial(jax.jit, donate_argnums=0)
        def jitted(state, X, Y, order):
            layers, t, total = state
            samples = jax.lax.dynamic_slice(order, (t * batch,), (batch,))
            layers, value = step(layers, X, Y, samples)
            return layers, t + 1, total + value

        def train(layers, order):
            state = (layers, jnp.int32(0), jnp.float32(0.0))
            for _ in range(len(order) // batch):
                state = jitted(state, self.X, self.Y, order)
            return state[0], state[2]

        return train

    def reset(self) -> None:
        # jnp.array copies: donated memory must not be NumPy's
        self.layers = [(jnp.array(W.T), jnp.array(b)) for W, b in initial_parameters(self.work)]
        jax.block_until_ready(self.layers)

    def run(self, order: np.ndarray) -> float:
        self.layers, total = self.train(self.layers, jnp.asarray(order, jnp.int32))
        jax.block_until_ready(self.layers)
        return float(total)

    def parameters(self) -> Parameters:
        return [(np.array(W).T, np.array(b)) for W, b in self.layers]

    def versions(self) -> dict[str, str]:
        return {"jax": jax.__version__, "jaxlib": jaxlib.__version__}
