"""Activation functions, each beside its backward.

A backward reads the activation's OUTPUT A, so that the forward may overwrite its input (`out` may be `Z`), or, where
the table below sets `from_input`, the input Z; then `out` of the forward must not be `Z`. `out` of a backward must be
neither the value it reads nor `dA`. work, work2 (n, batch) and row (1, batch) are scratch; the table says which of them
a forward and a backward take.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Array = Any

LEAK = 0.01  # slope of leaky_relu on the left
# Klambauer et al. (2017), eq. 14 and appendix: the fixed point of mean 0 and variance 1.
SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805
GELU_ROOT, GELU_CUBE = 0.7978845608028654, 0.044715  # sqrt(2 / pi), and the factor of the cube


def sigmoid(xp: Any, Z: Array, out: Array) -> None:
    """A = 1 / (1 + exp(-Z)): the logistic function.

    Z, out (n, batch): weighted input and activation; they may be the same array.
    Far below 0 exp(-Z) is infinite and A is 0, as it should be: NumPy's warning is silenced by the caller.
    Source: Nielsen, eq. 3.
    """
    xp.multiply(Z, -1.0, out=out)
    xp.exp(out, out=out)
    xp.add(out, 1.0, out=out)
    xp.divide(1.0, out, out=out)


def sigmoid_backward(xp: Any, A: Array, dA: Array, out: Array) -> None:
    """dZ = dA * A * (1 - A): the derivative of the logistic function, from its output.

    A, dA, out (n, batch): activation, gradient by it, and gradient by the weighted input.
    """
    xp.subtract(1.0, A, out=out)
    xp.multiply(out, A, out=out)
    xp.multiply(out, dA, out=out)


def tanh(xp: Any, Z: Array, out: Array) -> None:
    """A = tanh(Z): the hyperbolic tangent.

    Z, out (n, batch): weighted input and activation; they may be the same array.
    Source: LeCun et al. (1998), Efficient BackProp, section 4.4.
    """
    xp.tanh(Z, out=out)


def tanh_backward(xp: Any, A: Array, dA: Array, out: Array) -> None:
    """dZ = dA * (1 - A^2): the derivative of tanh, from its output.

    A, dA, out (n, batch): activation, gradient by it, and gradient by the weighted input.
    """
    xp.multiply(A, A, out=out)
    xp.subtract(1.0, out, out=out)
    xp.multiply(out, dA, out=out)


def relu(xp: Any, Z: Array, out: Array) -> None:
    """A = max(Z, 0): the rectified linear unit; NaN stays NaN.

    Z, out (n, batch): weighted input and activation; they may be the same array.
    Source: Glorot, Bordes and Bengio (2011), Deep Sparse Rectifier Neural Networks.
    """
    xp.maximum(Z, 0.0, out=out)


def relu_backward(xp: Any, A: Array, dA: Array, out: Array) -> None:
    """dZ = dA where A > 0, else 0: the slope of relu at 0 is taken as 0.

    A, dA, out (n, batch): activation, gradient by it, and gradient by the weighted input.
    Source: derivative of `relu`.
    """
    xp.greater(A, 0.0, out=out)
    xp.multiply(out, dA, out=out)


def leaky_relu(xp: Any, Z: Array, out: Array, work: Array) -> None:
    """A = max(Z, 0.01 Z): the leaky rectified linear unit.

    Z, out (n, batch): weighted input and activation; they may be the same array.  work (n, batch): scratch.
    Source: Maas, Hannun and Ng (2013), Rectifier Nonlinearities Improve Neural Network Acoustic Models.
    """
    xp.multiply(Z, LEAK, out=work)
    xp.maximum(Z, work, out=out)


def leaky_relu_backward(xp: Any, A: Array, dA: Array, out: Array) -> None:
    """dZ = dA where A > 0, else 0.01 dA: the slope at 0 is taken as 0.01.

    A, dA, out (n, batch): activation, gradient by it, and gradient by the weighted input.
    Source: derivative of `leaky_relu`.
    """
    xp.greater(A, 0.0, out=out)
    xp.maximum(out, LEAK, out=out)
    xp.multiply(out, dA, out=out)


def elu(xp: Any, Z: Array, out: Array, work: Array) -> None:
    """A = Z where Z > 0, else exp(Z) - 1: the exponential linear unit, alpha = 1.

    Z, out (n, batch): weighted input and activation; they may be the same array.  work (n, batch): scratch.
    Source: Clevert, Unterthiner and Hochreiter (2016), Fast and Accurate Deep Network Learning by ELUs, section 3.
    """
    exp_minus_one(xp, Z, work)
    xp.maximum(work, Z, out=out)  # exp(Z) - 1 >= Z, and equal to it up to rounding where Z is cut


def exp_minus_one(xp: Any, Z: Array, out: Array) -> None:
    """out = exp(z) - 1 with z = min(Z, -1e-30): by t = tanh(z / 2) it is 2 t / (1 - t), in which nothing cancels.

    Z, out (n, batch): weighted input and result; two arrays.
    Source: the half-angle formula of tanh.
    """
    xp.minimum(Z, -1e-30, out=out)
    xp.multiply(out, 0.5, out=out)
    xp.tanh(out, out=out)
    xp.divide(0.5, out, out=out)
    xp.subtract(out, 0.5, out=out)
    xp.divide(1.0, out, out=out)


def elu_backward(xp: Any, A: Array, dA: Array, out: Array) -> None:
    """dZ = dA * (min(A, 0) + 1): the slope of elu, from its output; it is 1 from 0 on.

    A, dA, out (n, batch): activation, gradient by it, and gradient by the weighted input.
    Source: derivative of `elu`.
    """
    xp.minimum(A, 0.0, out=out)
    xp.add(out, 1.0, out=out)
    xp.multiply(out, dA, out=out)


def selu(xp: Any, Z: Array, out: Array, work: Array) -> None:
    """A = scale * (Z where Z > 0, else alpha (exp(Z) - 1)): the scaled exponential linear unit; never overflows.

    Z, out (n, batch): weighted input and activation; they may be the same array.  work (n, batch): scratch.
    scale = 1.0507, alpha = 1.6733: layers of it keep mean 0 and variance 1.
    Source: Klambauer et al. (2017), Self-Normalizing Neural Networks, eq. 2.
    """
    exp_minus_one(xp, Z, work)
    xp.maximum(work, Z, out=work)
    xp.minimum(work, 0.0, out=out)
    xp.multiply(out, SELU_SCALE * SELU_ALPHA, out=out)
    xp.maximum(work, 0.0, out=work)
    xp.multiply(work, SELU_SCALE, out=work)
    xp.add(out, work, out=out)


def selu_backward(xp: Any, A: Array, dA: Array, out: Array, work: Array) -> None:
    """dZ = dA * (scale where A > 0, else A + scale alpha); the slope at 0 is taken from the left.

    A, dA, out (n, batch): activation, gradient by it, and gradient by the weighted input.  work (n, batch): scratch.
    Source: derivative of `selu`.
    """
    xp.greater(A, 0.0, out=out)
    xp.multiply(out, SELU_SCALE - SELU_SCALE * SELU_ALPHA, out=out)
    xp.minimum(A, 0.0, out=work)
    xp.add(out, work, out=out)
    xp.add(out, SELU_SCALE * SELU_ALPHA, out=out)
    xp.multiply(out, dA, out=out)


def softplus(xp: Any, Z: Array, out: Array) -> None:
    """A = log(1 + exp(Z)): a smooth relu; never overflows and never cancels.

    Z, out (n, batch): weighted input and activation, two arrays.
    From 40 on log(1 + exp(Z)) is Z to the last bit of float64.
    Source: Dugas et al. (2001), Incorporating Second-Order Functional Knowledge for Better Option Pricing.
    """
    xp.minimum(Z, 40.0, out=out)
    xp.exp(out, out=out)
    xp.log1p(out, out=out)
    xp.maximum(out, Z, out=out)


def softplus_backward(xp: Any, Z: Array, dA: Array, out: Array) -> None:
    """dZ = dA * sigmoid(Z): the derivative of softplus, from its input.

    Z, dA, out (n, batch): weighted input, gradient by the activation, and gradient by the weighted input.
    """
    sigmoid(xp, Z, out)
    xp.multiply(out, dA, out=out)


def silu(xp: Any, Z: Array, out: Array) -> None:
    """A = Z sigmoid(Z): the sigmoid linear unit, also called swish.

    Z, out (n, batch): weighted input and activation, two arrays.
    Source: Elfwing, Uchibe and Doya (2017); Ramachandran, Zoph and Le (2017), Searching for Activation Functions.
    """
    sigmoid(xp, Z, out)
    xp.multiply(out, Z, out=out)


def silu_backward(xp: Any, Z: Array, dA: Array, out: Array, work: Array) -> None:
    """dZ = dA * S (1 + Z (1 - S)) with S = sigmoid(Z): the derivative of silu, from its input.

    Z, dA, out (n, batch): weighted input, gradient by the activation, and gradient by the weighted input.
    work (n, batch): scratch.
    """
    sigmoid(xp, Z, out)
    xp.subtract(1.0, out, out=work)
    xp.multiply(work, Z, out=work)
    xp.add(work, 1.0, out=work)
    xp.multiply(out, work, out=out)
    xp.multiply(out, dA, out=out)


def gelu_gate(xp: Any, Z: Array, out: Array) -> None:
    """S = sigmoid(2 sqrt(2 / pi) (Z + 0.044715 Z^3)): the smooth gate of gelu, from 0 to 1.

    It is (1 + tanh(sqrt(2 / pi) (Z + 0.044715 Z^3))) / 2, which far below 0 would cancel.

    Z, out (n, batch): weighted input and gate, two arrays.
    Source: Hendrycks and Gimpel (2016), Gaussian Error Linear Units, section 2.
    """
    xp.multiply(Z, Z, out=out)
    xp.multiply(out, 2.0 * GELU_ROOT * GELU_CUBE, out=out)
    xp.add(out, 2.0 * GELU_ROOT, out=out)
    xp.multiply(out, Z, out=out)
    sigmoid(xp, out, out)


def gelu(xp: Any, Z: Array, out: Array) -> None:
    """A = Z S with S of gelu_gate: the Gaussian error linear unit in its tanh form.

    Z, out (n, batch): weighted input and activation, two arrays.
    Source: Hendrycks and Gimpel (2016), Gaussian Error Linear Units, section 2. The exact form needs erf.
    """
    gelu_gate(xp, Z, out)
    xp.multiply(out, Z, out=out)


def gelu_backward(xp: Any, Z: Array, dA: Array, out: Array, work: Array, work2: Array) -> None:
    """dZ = dA * S (1 + (1 - S) Z 2 sqrt(2 / pi) (1 + 3 * 0.044715 Z^2)): from the input.

    Z, dA, out (n, batch): weighted input, gradient by the activation, and gradient by the weighted input.
    work, work2 (n, batch): scratch.
    Source: derivative of `gelu`.
    """
    gelu_gate(xp, Z, out)
    xp.multiply(Z, Z, out=work)
    xp.multiply(work, 6.0 * GELU_ROOT * GELU_CUBE, out=work)
    xp.add(work, 2.0 * GELU_ROOT, out=work)
    xp.multiply(work, Z, out=work)
    xp.subtract(1.0, out, out=work2)
    xp.multiply(work, work2, out=work)
    xp.add(work, 1.0, out=work)
    xp.multiply(out, work, out=out)
    xp.multiply(out, dA, out=out)


def hard_sigmoid(xp: Any, Z: Array, out: Array) -> None:
    """A = min(max((Z + 3) / 6, 0), 1): straight lines in place of the sigmoid, PyTorch's (Keras 2 had Z / 5).

    Z, out (n, batch): weighted input and activation; they may be the same array.
    Source: Howard et al. (2019), Searching for MobileNetV3, section 5.2: ReLU6(Z + 3) / 6.
    """
    xp.add(Z, 3.0, out=out)  # exact where it is small
    xp.multiply(out, 1.0 / 6.0, out=out)
    xp.maximum(out, 0.0, out=out)
    xp.minimum(out, 1.0, out=out)


def hard_sigmoid_backward(xp: Any, A: Array, dA: Array, out: Array) -> None:
    """dZ = dA / 6 where 0 < A < 1, else 0.

    A, dA, out (n, batch): activation, gradient by it, and gradient by the weighted input.
    Source: derivative of `hard_sigmoid`.
    """
    xp.subtract(1.0, A, out=out)
    xp.multiply(out, A, out=out)
    xp.greater(out, 0.0, out=out)
    xp.multiply(out, 1.0 / 6.0, out=out)
    xp.multiply(out, dA, out=out)


def log_softmax(xp: Any, Z: Array, out: Array, work: Array, row: Array) -> None:
    """log P = Z - max Z - log sum exp(Z - max Z), over the outputs of each sample; never overflows.

    For the last layer, before `negative_log_likelihood`.
    Z, out (n, batch): weighted input and log probabilities; they may be the same array.
    work (n, batch), row (1, batch): scratch.
    Source: Goodfellow, Bengio and Courville, Deep Learning, eqs. 6.29 and 6.30.
    """
    xp.max(Z, axis=0, keepdims=True, out=row)
    xp.subtract(Z, row, out=out)
    xp.exp(out, out=work)
    xp.sum(work, axis=0, keepdims=True, out=row)
    xp.log(row, out=row)
    xp.subtract(out, row, out=out)


def log_softmax_backward(xp: Any, A: Array, dA: Array, out: Array, row: Array) -> None:
    """dZ = dA - exp(A) * sum of dA over the outputs: the derivative of log_softmax, from its output.

    A, dA, out (n, batch): log probabilities, gradient by them, and gradient by the weighted input.
    row (1, batch): scratch.
    """
    xp.sum(dA, axis=0, keepdims=True, out=row)
    xp.exp(A, out=out)
    xp.multiply(out, row, out=out)
    xp.subtract(dA, out, out=out)


@dataclass(frozen=True)
class ActivationFunction:
    """A pair of kernels and its properties.

    forward(xp, Z, out, *scratch), backward(xp, A or Z, dA, out, *backward_scratch): the functions above.
    from_input: whether the backward reads Z rather than A.
    scratch: "matrix" (n, batch) or "row" (1, batch) for each scratch array of the forward.
    backward_scratch: the same for the backward; None: as the forward.
    kinks: values of Z where the slope, or its derivative, jumps: no differences are taken across them.
    init: the suitable initialiser of weights.
    """

    forward: Callable[..., None]
    backward: Callable[..., None]
    from_input: bool = False
    scratch: tuple[str, ...] = ()
    kinks: tuple[float, ...] = ()
    init: str = "glorot"
    backward_scratch: tuple[str, ...] = None  # type: ignore[assignment]  # never None once made

    def __post_init__(self) -> None:
        if self.backward_scratch is None:
            object.__setattr__(self, "backward_scratch", self.scratch)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({"backward_scratch": state["scratch"], **state})  # older pickles have no backward_scratch


# One table from name to function. None: the identity records nothing, its output IS its input.
# init: "he" for relu and its like (He et al. (2015) derive it for relu and leaky_relu, Clevert et al. use it for elu;
# silu, gelu and softplus tend to relu for large inputs), "lecun" for selu (Klambauer et al., section "Initialization"),
# "glorot" for the others.
ACTIVATIONS: dict[str, ActivationFunction | None] = {
    "identity": None,
    "sigmoid": ActivationFunction(sigmoid, sigmoid_backward),
    "tanh": ActivationFunction(tanh, tanh_backward),
    "relu": ActivationFunction(relu, relu_backward, kinks=(0.0,), init="he"),
    "leaky_relu": ActivationFunction(
        leaky_relu, leaky_relu_backward, scratch=("matrix",), kinks=(0.0,), init="he", backward_scratch=()
    ),
    "elu": ActivationFunction(elu, elu_backward, scratch=("matrix",), kinks=(0.0,), init="he", backward_scratch=()),
    "selu": ActivationFunction(selu, selu_backward, scratch=("matrix",), kinks=(0.0,), init="lecun"),
    "softplus": ActivationFunction(softplus, softplus_backward, from_input=True, init="he"),
    "silu": ActivationFunction(silu, silu_backward, from_input=True, init="he", backward_scratch=("matrix",)),
    "gelu": ActivationFunction(gelu, gelu_backward, from_input=True, init="he", backward_scratch=("matrix", "matrix")),
    "hard_sigmoid": ActivationFunction(hard_sigmoid, hard_sigmoid_backward, kinks=(-3.0, 3.0)),
    "log_softmax": ActivationFunction(
        log_softmax, log_softmax_backward, scratch=("matrix", "row"), backward_scratch=("row",)
    ),
}
