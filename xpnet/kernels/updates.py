"""Update rules on the flat parameter vector: one rule updates the whole network.

theta, gradient, work and an optimizer's averages are vectors (n,) of one length; every scalar is a Python float or a
1-element array. Gradient and work are overwritten. No rule reads the step's number t: it keeps c = 1 - beta^t, the
average of a constant 1, which starts at zero like the averages it corrects and is exact in float32 at step 1.
"""

from __future__ import annotations

from typing import Any

Array = Any


def sgd(xp: Any, theta: Array, gradient: Array, lr: Any) -> None:
    """theta = theta - lr * gradient: stochastic gradient descent.

    theta, gradient: same shape.  lr: learning rate, a Python float or a 1-element array.
    The gradient is overwritten by the step taken, which saves a vector of its size.
    Source: Nielsen, eqs. 20 and 21.
    """
    xp.multiply(gradient, lr, out=gradient)
    xp.subtract(theta, gradient, out=theta)


def momentum(xp: Any, theta: Array, gradient: Array, velocity: Array, lr: Any, mu: float) -> None:
    """v = mu v + gradient, theta = theta - lr v: momentum, or the heavy ball.

    velocity: v, zero at first.  As in torch, the rate multiplies v and not the gradient in it.
    Source: Polyak (1964); Sutskever et al. (2013), eqs. 1 and 2, with v in units of the gradient.
    """
    xp.multiply(velocity, mu, out=velocity)
    xp.add(velocity, gradient, out=velocity)
    xp.multiply(velocity, lr, out=gradient)
    xp.subtract(theta, gradient, out=theta)


def nesterov(xp: Any, theta: Array, gradient: Array, damped: Array, lr: Any, mu: float) -> None:
    """u = mu (u + gradient), theta = theta - lr (gradient + u): Nesterov's momentum.

    damped: u = mu v with torch's velocity v, zero at first; so gradient + mu v needs no vector.
    Source: Sutskever et al. (2013), eqs. 3 and 4, in torch's form: the gradient is taken at theta, not ahead of it.
    """
    xp.add(damped, gradient, out=damped)
    xp.multiply(damped, mu, out=damped)
    xp.add(gradient, damped, out=gradient)
    xp.multiply(gradient, lr, out=gradient)
    xp.subtract(theta, gradient, out=theta)


def momentum_of_steps(xp: Any, theta: Array, gradient: Array, velocity: Array, lr: Any, mu: float) -> None:
    """v = mu v + lr gradient, theta = theta - v: momentum that keeps each step at the rate of its time.

    velocity: v, zero at first, in units of theta.  It is `momentum` where the rate never changes.
    Source: Sutskever et al. (2013), eqs. 1 and 2, with the sign of v reversed; as in scikit-learn.
    """
    xp.multiply(gradient, lr, out=gradient)
    xp.multiply(velocity, mu, out=velocity)
    xp.add(velocity, gradient, out=velocity)
    xp.subtract(theta, velocity, out=theta)


def nesterov_of_steps(xp: Any, theta: Array, gradient: Array, damped: Array, lr: Any, mu: float) -> None:
    """u = mu (u + lr gradient), theta = theta - (lr gradient + u): Nesterov's, each step kept at the rate of its time.

    damped: u = mu v with the velocity v of `momentum_of_steps`, zero at first.
    Source: Sutskever et al. (2013), eqs. 3 and 4, the gradient taken at theta, not ahead of it; as in scikit-learn.
    """
    xp.multiply(gradient, lr, out=gradient)
    xp.add(damped, gradient, out=damped)
    xp.multiply(damped, mu, out=damped)
    xp.add(gradient, damped, out=gradient)
    xp.subtract(theta, gradient, out=theta)


def adagrad(xp: Any, theta: Array, gradient: Array, squares: Array, work: Array, lr: Any, eps: float) -> None:
    """s = s + gradient^2, theta = theta - lr gradient / (sqrt(s) + eps): AdaGrad.

    squares: s, zero at first.
    Source: Duchi, Hazan and Singer (2011), the diagonal form of section 1.3; eps outside the root, as in torch.
    """
    xp.multiply(gradient, gradient, out=work)
    xp.add(squares, work, out=squares)
    xp.sqrt(squares, out=work)
    xp.add(work, eps, out=work)
    xp.multiply(gradient, lr, out=gradient)
    xp.divide(gradient, work, out=gradient)
    xp.subtract(theta, gradient, out=theta)


def rmsprop(
    xp: Any, theta: Array, gradient: Array, squares: Array, work: Array, lr: Any, alpha: float, eps: float
) -> None:
    """s = alpha s + (1 - alpha) gradient^2, theta = theta - lr gradient / (sqrt(s) + eps): RMSProp.

    squares: s, zero at first and not corrected for it.  eps is outside the root, as in torch.
    Source: Tieleman and Hinton (2012), Neural Networks for Machine Learning, lecture 6e.
    """
    xp.multiply(gradient, gradient, out=work)
    average(xp, squares, work, work, alpha)
    xp.sqrt(squares, out=work)
    xp.add(work, eps, out=work)
    xp.multiply(gradient, lr, out=gradient)
    xp.divide(gradient, work, out=gradient)
    xp.subtract(theta, gradient, out=theta)


def adam(
    xp: Any,
    theta: Array,
    gradient: Array,
    m: Array,
    v: Array,
    work: Array,
    c2: Any,
    rate: Any,
    beta1: float,
    beta2: float,
    eps: Any,
) -> None:
    """m, v = averages of gradient and gradient^2, theta = theta - rate m / (sqrt(v / c2) + eps): Adam.

    m, v: zero at first.  c2: 1 - beta2^t.  rate: lr / (1 - beta1^t), from `adam_rate`.
    Source: Kingma and Ba (2015), algorithm 1.
    """
    average(xp, m, gradient, work, beta1)
    xp.multiply(gradient, gradient, out=gradient)
    average(xp, v, gradient, work, beta2)
    corrected_root(xp, v, c2, eps, work)
    xp.multiply(m, rate, out=gradient)
    xp.divide(gradient, work, out=gradient)
    xp.subtract(theta, gradient, out=theta)


def adam_rate(xp: Any, c1: Array, c2: Array, rate: Array, lr: Any, beta1: float, beta2: float) -> None:
    """c1 = 1 - beta1^t, c2 = 1 - beta2^t, rate = lr / c1: Adam's correction of averages that began at zero.

    c1, c2: zero before the first step.  Source: Kingma and Ba (2015), section 3.
    """
    average_of_one(xp, c1, beta1)
    average_of_one(xp, c2, beta2)
    xp.divide(lr, c1, out=rate)


def uncorrected_eps(xp: Any, c2: Array, eps: float, out: Array) -> None:
    """out = eps / sqrt(c2): added to the corrected root of v, it is eps added to the root as it is.

    c2: 1 - beta2^t.  Source: Kingma and Ba (2015), section 2, the order of computation with epsilon hat.
    """
    xp.sqrt(c2, out=out)
    xp.divide(eps, out, out=out)


def nadam(
    xp: Any,
    theta: Array,
    gradient: Array,
    m: Array,
    v: Array,
    work: Array,
    c2: Any,
    rate: Any,
    next_rate: Any,
    beta1: float,
    beta2: float,
    eps: float,
) -> None:
    """theta = theta - (rate gradient + next_rate m) / (sqrt(v / c2) + eps): Adam with Nesterov's momentum.

    m, v: averages of gradient and gradient^2, zero at first.  c2, rate, next_rate: from `nadam_rates`.
    Source: Dozat (2016), algorithm 2 with the momentum schedule of its section 3; torch's form.
    """
    average(xp, m, gradient, work, beta1)
    xp.multiply(gradient, gradient, out=work)
    average(xp, v, work, work, beta2)
    corrected_root(xp, v, c2, eps, work)
    xp.multiply(gradient, rate, out=gradient)
    xp.divide(gradient, work, out=gradient)
    xp.subtract(theta, gradient, out=theta)
    xp.multiply(m, next_rate, out=gradient)
    xp.divide(gradient, work, out=gradient)
    xp.subtract(theta, gradient, out=theta)


def nadam_rates(
    xp: Any,
    warmth: Array,
    c1: Array,
    c2: Array,
    rate: Array,
    next_rate: Array,
    lr: Any,
    beta1: float,
    beta2: float,
    decay: float,
) -> None:
    """rate = lr (1 - mu_t) / (1 - prod mu_1..t), next_rate = lr mu_(t+1) / (1 - prod mu_1..t+1), for `nadam`.

    mu_t = beta1 (1 - decay^t / 2).  warmth = 1 - decay^t, c1 = 1 - prod mu_1..t, c2 = 1 - beta2^t: zero at first.
    Source: Dozat (2016), section 3; torch's decay is 0.96^momentum_decay.
    """
    average_of_one(xp, warmth, decay)
    average_of_one(xp, c2, beta2)
    # mu_t in next_rate, then c1 = 1 - mu_t (1 - c1) and rate = lr (1 - mu_t) / c1
    xp.multiply(warmth, 0.5 * beta1, out=next_rate)
    xp.add(next_rate, 0.5 * beta1, out=next_rate)
    xp.subtract(1.0, c1, out=c1)
    xp.multiply(c1, next_rate, out=c1)
    xp.subtract(1.0, c1, out=c1)
    xp.subtract(1.0, next_rate, out=rate)
    xp.multiply(rate, lr, out=rate)
    xp.divide(rate, c1, out=rate)
    # mu_(t+1) = beta1 / 2 (1 + warmth_(t+1)), then lr mu / (1 - mu (1 - c1)) = lr / (1 / mu - 1 + c1)
    xp.multiply(warmth, 0.5 * beta1 * decay, out=next_rate)
    xp.add(next_rate, 0.5 * beta1 * (2.0 - decay), out=next_rate)
    xp.divide(1.0, next_rate, out=next_rate)
    xp.subtract(next_rate, 1.0, out=next_rate)
    xp.add(next_rate, c1, out=next_rate)
    xp.divide(lr, next_rate, out=next_rate)


def lion(xp: Any, theta: Array, gradient: Array, m: Array, work: Array, lr: Any, beta1: float, beta2: float) -> None:
    """theta = theta - lr sign(beta1 m + (1 - beta1) gradient), m = beta2 m + (1 - beta2) gradient: Lion.

    m: zero at first.  A gradient that was always zero moves nothing: sign(0) is 0.
    Source: Chen et al. (2023), Symbolic Discovery of Optimization Algorithms, algorithm 2.
    """
    xp.multiply(m, beta1 / (1.0 - beta1), out=work)  # the factor 1 - beta1 does not change a sign
    xp.add(work, gradient, out=work)
    xp.sign(work, out=work)
    xp.multiply(work, lr, out=work)
    xp.subtract(theta, work, out=theta)
    average(xp, m, gradient, gradient, beta2)


def average(xp: Any, mean: Array, value: Array, work: Array, beta: float) -> None:
    """mean = beta mean + (1 - beta) value: an exponential average; `work` may be `value`."""
    xp.multiply(mean, beta, out=mean)
    xp.multiply(value, 1.0 - beta, out=work)
    xp.add(mean, work, out=mean)


def average_of_one(xp: Any, c: Array, beta: float) -> None:
    """c = beta c + (1 - beta): from zero it is 1 - beta^t, what `average` would make of a constant 1."""
    xp.multiply(c, beta, out=c)
    xp.add(c, 1.0 - beta, out=c)


def corrected_root(xp: Any, v: Array, c2: Any, eps: float, out: Array) -> None:
    """out = sqrt(v / c2) + eps: the denominator of Adam and its kin."""
    xp.divide(v, c2, out=out)
    xp.sqrt(out, out=out)
    xp.add(out, eps, out=out)


def l1_gradient(xp: Any, W: Array, dW: Array, work: Array, l1: float) -> None:
    """dW = dW + l1 sign(W): the gradient of the penalty l1 * sum |W|, whose slope at 0 is 0.

    Source: Nielsen, chapter 3, "Other techniques for regularization".
    """
    xp.sign(W, out=work)
    xp.multiply(work, l1, out=work)
    xp.add(dW, work, out=dW)


def l2_gradient(xp: Any, W: Array, dW: Array, work: Array, l2: float) -> None:
    """dW = dW + l2 W: the gradient of the penalty l2 / 2 * sum W^2.

    Source: Nielsen, eq. 87, with l2 for his lambda / n.
    """
    xp.multiply(W, l2, out=work)
    xp.add(dW, work, out=dW)


def penalty_rate(xp: Any, l2: Any, weight: Any, rate: Array) -> None:
    """rate = l2 / weight, or 0 where the weight is below 1e-30: the share of a penalty in one update.

    weight: the samples of the update, or the sum of their weights.  rate (1, 1): receives the share.
    """
    if isinstance(weight, float):
        xp.divide(l2, weight, out=rate)
        return
    xp.greater(weight, 1e-30, out=rate)
    xp.multiply(rate, l2, out=rate)
    xp.divide(rate, weight, out=rate)


def summed_l2_gradient(xp: Any, W: Array, dW: Array, work: Array, rate: Any, penalty: Array) -> None:
    """dW = dW + rate W, penalty = rate / 2 * sum W^2: a penalty on the sum of the losses, and its gradient.

    W, dW, work (n,): weights, their gradient, scratch.  rate: from `penalty_rate`.  penalty (1, 1): receives it.
    Source: Nielsen, eqs. 85 and 87, with rate for his lambda / n.
    """
    xp.multiply(W, W, out=work)
    xp.sum(work, axis=0, keepdims=True, out=penalty)
    xp.multiply(penalty, rate, out=penalty)
    xp.multiply(penalty, 0.5, out=penalty)
    xp.multiply(W, rate, out=work)
    xp.add(dW, work, out=dW)


def clip_value(xp: Any, gradient: Array, limit: float) -> None:
    """gradient = max(min(gradient, limit), -limit), each element for itself.

    Source: Goodfellow, Bengio and Courville, Deep Learning, section 10.11.1; as torch.nn.utils.clip_grad_value_.
    """
    xp.minimum(gradient, limit, out=gradient)
    xp.maximum(gradient, -limit, out=gradient)


def clip_norm(xp: Any, gradient: Array, work: Array, factor: Array, limit: float) -> None:
    """gradient = gradient min(1, limit / (||gradient|| + 1e-6)): its Euclidean norm is limited, its direction kept.

    factor (1, 1): scratch.  Source: Pascanu, Mikolov and Bengio (2013), algorithm 1; 1e-6 as in torch.
    """
    xp.multiply(gradient, gradient, out=work)
    xp.sum(work, axis=0, keepdims=True, out=factor)
    xp.sqrt(factor, out=factor)
    xp.add(factor, 1e-6, out=factor)
    xp.divide(limit, factor, out=factor)
    xp.minimum(factor, 1.0, out=factor)
    xp.multiply(gradient, factor, out=gradient)


def decoupled_decay(xp: Any, W: Array, work: Array, rate: Array, lr: Any, decay: float) -> None:
    """W = W - lr decay W: weight decay apart from the gradient.

    rate: 1-element scratch.  Not W (1 - lr decay): float32 would round that factor alike at every step.
    Source: Loshchilov and Hutter (2019), algorithm 2, with lr for their eta_t as in torch.
    """
    xp.multiply(lr, decay, out=rate)
    xp.multiply(W, rate, out=work)
    xp.subtract(W, work, out=W)


def max_norm(xp: Any, W: Array, work: Array, norms: Array, limit: float) -> None:
    """W_i = W_i min(1, limit / ||W_i||): the incoming weights of unit i, row i of W, are no longer than the limit.

    W (n_out, n_in).  work like W, norms (n_out, 1): scratch.
    Source: Hinton et al. (2012), section 2; Srivastava et al. (2014), section 5.1.
    """
    xp.multiply(W, W, out=work)
    xp.sum(work, axis=1, keepdims=True, out=norms)
    xp.sqrt(norms, out=norms)
    xp.maximum(norms, limit, out=norms)
    xp.divide(limit, norms, out=norms)
    xp.multiply(W, norms, out=W)


def accumulate(xp: Any, gradient: Array, weight: Any, total: Array, total_weight: Array) -> None:
    """total = total + weight gradient, total_weight = total_weight + weight: from a batch's mean to a sum of sums.

    weight: samples of the batch, or the sum of their weights.  total, total_weight: zero after an update.
    """
    xp.multiply(gradient, weight, out=gradient)
    xp.add(total, gradient, out=total)
    xp.add(total_weight, weight, out=total_weight)


def accumulated_mean(xp: Any, total: Array, total_weight: Array, gradient: Array) -> None:
    """gradient = total / total_weight, then total = 0: the mean over all samples since the last update."""
    xp.divide(total, total_weight, out=gradient)
    xp.multiply(total, 0.0, out=total)


def forget_weight(xp: Any, total_weight: Array) -> None:
    """total_weight = 0: the update is over that went by it."""
    xp.multiply(total_weight, 0.0, out=total_weight)
