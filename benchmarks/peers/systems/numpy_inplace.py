"""NumPy by hand, in place: what is left to gain by changing how NumPy is called.

Nothing is allocated in a step. Samples are rows, gathered and kept contiguous; weights are (n_in, n_out); parameters
are one flat vector, so the update is two calls; the batch's mean is folded into the learning rate; sums over samples
and of losses are products with a vector of ones, which BLAS does in a fraction of a ufunc's time; every view and
constant is made once, and `out` is positional.
"""

from __future__ import annotations

import numpy as np

from ..works import Data, Parameters, Work, initial_parameters


def aligned(*shape: int) -> np.ndarray:
    """Return float32 zeros that start on a cache line."""
    size = int(np.prod(shape))
    memory = np.zeros(size + 16, np.float32)
    start = -memory.ctypes.data % 64 // 4
    return memory[start : start + size].reshape(shape)


def constant(value: float) -> np.ndarray:
    return np.array(value, np.float32)


class System:
    comparable, whole_epochs = True, False

    @staticmethod
    def unusable(device: str) -> str | None:
        return None if device == "cpu" else "NumPy works on a CPU"

    def __init__(self, work: Work, data: Data, threads: int, device: str) -> None:
        self.work, self.X, self.Y = work, data.X, data.Y
        batch, pairs = work.batch, list(zip(work.sizes, work.sizes[1:], strict=False))
        offsets = np.cumsum([0] + [-(-size // 16) * 16 for n_in, n_out in pairs for size in (n_in * n_out, n_out)])
        self.theta, self.gradient = aligned(int(offsets[-1])), aligned(int(offsets[-1]))
        self.xb, self.yb = aligned(batch, work.sizes[0]), aligned(batch, work.sizes[-1])
        outputs = [self.xb, *(aligned(batch, n_out) for _, n_out in pairs)]
        slopes = [aligned(batch, n_out) for _, n_out in pairs]

        def layers(flat):
            views = zip(pairs, offsets[::2], offsets[1::2], strict=False)
            return [(flat[w : w + i * o].reshape(i, o), flat[b : b + o]) for (i, o), w, b in views]

        self.views = layers(self.theta)
        self.forward_views = [
            (outputs[k].dot, V, b, outputs[k + 1], k < len(pairs) - 1) for k, (V, b) in enumerate(self.views)
        ]
        ones = aligned(batch)
        ones[...] = 1.0
        # Of a layer, last first: what its gradients are made of, and where the layer below it is, if there is one.
        self.backward_views = [
            (
                ones.dot,
                db,
                outputs[k].T.dot,
                dV,
                slopes[k],
                slopes[k].dot,
                V.T,
                slopes[k - 1],
                outputs[k],
                aligned(batch, work.sizes[k]) if k else None,
            )
            for k, ((V, _), (dV, db)) in reversed(list(enumerate(zip(self.views, layers(self.gradient), strict=True))))
        ]
        self.output, self.slope = outputs[-1], slopes[-1]
        self.scratch, self.row, self.row2 = aligned(batch, work.sizes[-1]), aligned(batch, 1), aligned(batch, 1)
        self.ones = ones

    def reset(self) -> None:
        for (V, b), (W, initial_b) in zip(self.views, initial_parameters(self.work), strict=True):
            V[...], b[...] = W.T, initial_b

    def run(self, order: np.ndarray) -> float:
        with np.errstate(all="ignore"):  # exp(-z) may be infinite: then the sigmoid is 0
            return self.steps(order.reshape(-1, self.work.batch)) / self.work.batch

    def steps(self, batches: np.ndarray) -> float:
        """Run a step for each row of `batches`; returns the sum of the samples' losses."""
        add, subtract, multiply, maximum, greater = np.add, np.subtract, np.multiply, np.maximum, np.greater
        tanh = np.tanh
        zero, one, rate = constant(0.0), constant(1.0), constant(self.work.lr / self.work.batch)
        take_X, take_Y, xb, yb = self.X.take, self.Y.take, self.xb, self.yb
        theta, gradient, output, slope = self.theta, self.gradient, self.output, self.slope
        forward_views, backward_views, loss = self.forward_views, self.backward_views, self.loss()
        sigmoid_hidden, tanh_hidden = self.work.hidden == "sigmoid", self.work.hidden == "tanh"
        sigmoid_output = self.work.output == "sigmoid"
        total = 0.0
        for samples in batches:
            take_X(samples, 0, xb, "clip")
            take_Y(samples, 0, yb, "clip")
            for dot, V, b, A, is_hidden in forward_views:
                dot(V, A)
                add(A, b, A)
                if sigmoid_hidden and (is_hidden or sigmoid_output):
                    sigmoid(A, one)
                elif tanh_hidden and is_hidden:
                    tanh(A, A)
                elif is_hidden:
                    maximum(A, zero, out=A)
            total += loss()
            if sigmoid_output:
                sigmoid_slope(output, slope, self.scratch, one)
            for sum_into, db, dot, dV, D, D_dot, V_T, D_below, A_below, scratch in backward_views:
                sum_into(D, db)
                dot(D, dV)
                if scratch is None:
                    continue
                D_dot(V_T, D_below)
                if sigmoid_hidden:
                    sigmoid_slope(A_below, D_below, scratch, one)
                elif tanh_hidden:
                    tanh_slope(A_below, D_below, scratch, one)
                else:
                    greater(A_below, zero, scratch)
                    multiply(D_below, scratch, D_below)
            multiply(gradient, rate, gradient)
            subtract(theta, gradient, theta)
        return total

    def loss(self):
        """Return the function that leaves the slope of the loss and returns its sum over the batch."""
        output, Y, slope, scratch = self.output, self.yb, self.slope, self.scratch
        flat_slope, flat_Y, flat_scratch = slope.reshape(-1), Y.reshape(-1), scratch.reshape(-1)
        largest, total, flat_total = self.row, self.row2, self.row2.reshape(-1)
        ones, maximum, add = self.ones, np.maximum.reduce, np.add.reduce
        subtract, exp, divide, log = np.subtract, np.exp, np.divide, np.log

        def squared_error() -> float:
            subtract(output, Y, slope)
            return 0.5 * float(flat_slope.dot(flat_slope))

        def softmax_cross_entropy() -> float:
            maximum(output, 1, None, largest, True)
            subtract(output, largest, scratch)
            exp(scratch, slope)
            add(slope, 1, None, total, True)
            divide(slope, total, slope)
            subtract(slope, Y, slope)
            log(flat_total, flat_total)
            return float(flat_total.dot(ones)) - float(flat_scratch.dot(flat_Y))

        return {"squared_error": squared_error, "softmax_cross_entropy": softmax_cross_entropy}[self.work.loss]

    def parameters(self) -> Parameters:
        return [(V.T.copy(), b.copy()) for V, b in self.views]

    def versions(self) -> dict[str, str]:
        return {"numpy": np.__version__}


def sigmoid(A: np.ndarray, one: np.ndarray) -> None:
    """A = 1 / (1 + exp(-A)), in place."""
    np.negative(A, A)
    np.exp(A, A)
    np.add(A, one, A)
    np.divide(one, A, A)


def sigmoid_slope(A: np.ndarray, D: np.ndarray, scratch: np.ndarray, one: np.ndarray) -> None:
    """D = D A (1 - A), in place."""
    np.subtract(one, A, scratch)
    np.multiply(scratch, A, scratch)
    np.multiply(D, scratch, D)


def tanh_slope(A: np.ndarray, D: np.ndarray, scratch: np.ndarray, one: np.ndarray) -> None:
    """D = D (1 - A^2), in place."""
    np.multiply(A, A, scratch)
    np.subtract(one, scratch, scratch)
    np.multiply(D, scratch, D)
