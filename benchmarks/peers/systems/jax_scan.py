"""JAX, one jitted call a chunk: lax.scan over its steps, so that Python is out of the loop."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from . import jax_step


class System(jax_step.System):
    def compile(self):
        """Return train(layers, order) -> (layers, sum of the losses)."""
        step, batch = jax_step.training_step(self.work), self.work.batch

        @partial(jax.jit, donate_argnums=0)
        def jitted(layers, X, Y, order):
            layers, losses = jax.lax.scan(lambda kept, samples: step(kept, X, Y, samples), layers, order)
            return layers, jnp.sum(losses)

        return lambda layers, order: jitted(layers, self.X, self.Y, order.reshape(-1, batch))
