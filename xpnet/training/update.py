"""The base of every optimizer: it records its update on the flat vectors, owns its state, and fills its slots.

The order of an update: gradient, l1 and l2, clip, the rule with its decay, max-norm, average. The rules are in
`xpnet.training.optimizers`.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from xpnet.checks import check_number, is_built_in
from xpnet.kernels import updates
from xpnet.network.parameters import Parameters
from xpnet.program.calls import Buffer
from xpnet.program.recorder import Recorder
from xpnet.training.schedules import Constant, Schedule
from xpnet.training.state import OwnsState
from xpnet.training.state import Snapshot as Snapshot  # where pickled estimators look for it

if TYPE_CHECKING:
    from xpnet.network.network import Network


class Options(TypedDict, total=False):
    """What every optimizer takes besides its own rule; see `Optimizer`."""

    l1: float
    l2: float
    l2_summed: float
    clip_value: float | None
    clip_norm: float | None
    max_norm: float | None
    ema: float | None


@dataclass(frozen=True, eq=False)
class Update:
    """The buffers of one recorded update, and how to ask for more.

    gradient (n,): may be overwritten.  n_weights: elements of theta that are weights; the biases follow them.
    matrices (n_out, n_in): the weight matrices, views of theta.
    """

    recorder: Recorder
    gradient: Buffer
    n_weights: int
    matrices: Sequence[Buffer]

    @property
    def xp(self) -> Any:
        """The namespace that records."""
        return self.recorder.xp

    @property
    def theta(self) -> Buffer:
        """The parameters (n,)."""
        return self.recorder.theta

    @property
    def lr(self) -> Buffer:
        """The slot of the learning rate."""
        return self.recorder["lr"]

    @cached_property
    def scratch(self) -> Buffer:
        """One vector (n,) that every kernel of the update may write over."""
        return self.recorder.flat("scratch", self.theta.size)

    @cached_property
    def weights(self) -> tuple[Buffer, Buffer, Buffer]:
        """The weights' part of theta, of the gradient and of the scratch vector."""
        flats = (self.theta, self.gradient, self.scratch)
        theta, gradient, scratch = (self.recorder.flat_in(x, f"{x.name}[W]", 0, self.n_weights) for x in flats)
        return theta, gradient, scratch

    def state(self, name: str) -> Buffer:
        """Return a vector (n,) that is kept from step to step, zero at first."""
        return self.recorder.state(name, self.theta.size)

    def counters(self, *names: str) -> list[Buffer]:
        """Return 1-element buffers that are kept from step to step, zero at first."""
        return self._scalars(self.recorder.state("counters", len(names)), names)

    def scalars(self, *names: str) -> list[Buffer]:
        """Return 1-element scratch buffers."""
        return self._scalars(self.recorder.flat(f"memory of {', '.join(names)}", len(names)), names)

    def averaged_theta(self) -> tuple[Buffer, Buffer]:
        """Return an average of theta (n,) and its weight, one element, which together are the state "ema"."""
        size = self.theta.size
        memory = self.recorder.state("ema", size + 1)
        mean = self.recorder.flat_in(memory, "averaged theta", 0, size)
        return mean, self.recorder.scalar_in(memory, "weight of it", size)

    def limit_norms(self, limit: float) -> None:
        """Record that each unit's incoming weights, a row of a matrix, are scaled to a norm of at most `limit`."""
        recorder = self.recorder
        norms = recorder.flat("norms", max((W.shape[0] for W in self.matrices), default=1))
        for W in self.matrices:
            n_out, n_in = W.shape
            work = recorder.matrix_in(self.scratch, f"scratch of {W.name}", W.offset - self.theta.offset, (n_out, n_in))
            column = recorder.column_in(norms, f"norms of {W.name}", 0, n_out)
            updates.max_norm(self.xp, W, work, column, limit)

    def decay(self, weight_decay: float) -> None:
        """Record a decoupled decay of the weights, W = W - lr * weight_decay * W; nothing for 0."""
        if weight_decay:
            theta, _, scratch = self.weights
            (rate,) = self.scalars("decay")
            updates.decoupled_decay(self.xp, theta, scratch, rate, self.lr, weight_decay)

    def _scalars(self, flat: Buffer, names: Sequence[str]) -> list[Buffer]:
        return [self.recorder.scalar_in(flat, name, i) for i, name in enumerate(names)]


@dataclass(frozen=True)
class Recording:
    """What decides the recorded update of an optimizer: its type and its options, without rate and state."""

    kind: type[Optimizer]
    options: tuple[tuple[str, Any], ...]

    @property
    def alike(self) -> Recording:
        """Itself."""
        return self

    @property
    def slots(self) -> tuple[str, ...]:
        """See `Optimizer.slots`."""
        return self._optimizer.slots

    @property
    def results(self) -> tuple[str, ...]:
        """See `Optimizer.results`."""
        return self._optimizer.results

    def record(self, *given: Any) -> None:
        """Record the update; see `Optimizer.record`."""
        self._optimizer.record(*given)

    @property
    def _optimizer(self) -> Optimizer:
        made = object.__new__(self.kind)
        vars(made).update(self.options)
        return made


class Optimizer(OwnsState, ABC):
    """Base of all optimizers; every one takes these options by keyword.

    lr: the learning rate, a number above 0 or a schedule of `xpnet.training.schedules`; it may be changed between
    steps. l1, l2: add the gradient of l1 * sum |W| and of l2 / 2 * sum W^2, of weights and not of biases. The loss
    reported is without these.  torch's `weight_decay` is l2, there for biases too.
    l2_summed: add the gradient of l2_summed / 2 * sum W^2 / n, n the samples of the update, or the sum of their weights
    by the mean of all weights given: scikit-learn's `alpha`. If it is not 0, it may be changed between steps too.
    clip_value: limit of each element of the gradient.  clip_norm: limit of its Euclidean norm, over the whole network;
    both as in torch.nn.utils, value before norm.
    max_norm: limit of the norm of each unit's incoming weights, after the update (Hinton et al. 2012).
    ema: decay of an average of theta over the updates, see `averaged`.
    The state (averages, the step's number) belongs to the last network it trained: training it again continues
    exactly, another one starts fresh.  After Ctrl-C within `train`, state and theta may be some updates ahead of
    `steps_done`, which a schedule follows: to continue exactly, resume from a `Checkpoint`.
    Copied or pickled together with its network, as `copy.deepcopy((network, optimizer))`, it continues with that copy.
    All but `lr` and `l2_summed` is recorded in the Program and cannot be changed afterwards.
    Raises TypeError or ValueError for a value that cannot work.
    """

    def __init__(
        self,
        lr: float | Schedule,
        *,
        l1: float = 0.0,
        l2: float = 0.0,
        l2_summed: float = 0.0,
        clip_value: float | None = None,
        clip_norm: float | None = None,
        max_norm: float | None = None,
        ema: float | None = None,
        **others: Any,
    ) -> None:
        self._refuse(others)
        super().__init__()
        self.lr = lr
        self.l1 = self._checked("l1", l1, at_least=0, example=1e-4)
        self.l2 = self._checked("l2", l2, at_least=0, example=1e-4)
        self.l2_summed = self._checked("l2_summed", l2_summed, at_least=0, example=1e-4)
        self.clip_value = None if clip_value is None else self._checked("clip_value", clip_value, above=0, example=1)
        self.clip_norm = None if clip_norm is None else self._checked("clip_norm", clip_norm, above=0, example=1)
        self.max_norm = None if max_norm is None else self._checked("max_norm", max_norm, above=0, example=3)
        self.ema = None if ema is None else self._checked("ema", ema, above=0, below=1, example=0.999)

    def _refuse(self, others: dict[str, Any]) -> None:
        """Refuse keywords of other libraries, such as learning_rate, and list what the optimizer takes."""
        if others:
            name = next(iter(others))
            taken = [*list(inspect.signature(type(self).__init__).parameters)[1:-1], *Options.__annotations__]
            cure = f"lr={others[name]!r}" if name in ("learning_rate", "rate", "eta") else "lr=0.1, l2=1e-4"
            raise TypeError(
                f"{type(self).__name__} has no {name}; it takes {', '.join(taken)}: {type(self).__name__}({cure})"
            )

    @property
    def lr(self) -> float:
        """The learning rate of the next update; set it to a number or a schedule."""
        return float(self._schedule.values(self.steps_done, 1)[0])

    @lr.setter
    def lr(self, value: float | Schedule) -> None:
        if not isinstance(value, Schedule):
            value = Constant(self._checked("lr", value, above=0, example=0.1))
        self._schedule = value

    @property
    def schedule(self) -> Schedule:
        """The schedule of the learning rate; a number is a constant one."""
        return self._schedule

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of what the host fills before each update, the columns of `slot_rows`."""
        return ("lr", "l2_summed") if self.l2_summed else ("lr",)

    @property
    def results(self) -> tuple[str, ...]:
        """Names of what an update tells: the penalty of `l2_summed`, of the weights before it."""
        return ("penalty",) if self.l2_summed else ()

    @property
    def alike(self) -> Recording | None:
        """What records the same update, equal for equal types and options; None for a type of the user's."""
        if not is_built_in(type(self)):
            return None
        options = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        return Recording(type(self), tuple((options | {"l2_summed": float(self.l2_summed > 0)}).items()))

    def record(
        self,
        recorder: Recorder,
        gradient: Buffer,
        n_weights: int,
        matrices: Sequence[Buffer],
        weight: Buffer | float = 1.0,
    ) -> None:
        """Record the update's calls: theta by the gradient, which is overwritten.

        weight: samples of the update, or the sum of their weights.
        """
        update = Update(recorder, gradient, n_weights, matrices)
        xp = update.xp
        if self.l1:
            updates.l1_gradient(xp, *update.weights, self.l1)
        if self.l2:
            updates.l2_gradient(xp, *update.weights, self.l2)
        if self.l2_summed:
            (rate,) = update.scalars("penalty rate")
            updates.penalty_rate(xp, recorder["l2_summed"], weight, rate)
            updates.summed_l2_gradient(xp, *update.weights, rate, recorder["penalty"])
        if self.clip_value is not None:
            updates.clip_value(xp, gradient, self.clip_value)
        if self.clip_norm is not None:
            (factor,) = update.scalars("clip factor")
            updates.clip_norm(xp, gradient, update.scratch, factor, self.clip_norm)
        if self.ema is not None:  # what counts steps advances together, just before the rule's own
            mean, mean_weight = update.averaged_theta()
            updates.average_of_one(xp, mean_weight, self.ema)
        self._rule(update)
        if self.max_norm is not None:
            update.limit_norms(self.max_norm)
        if self.ema is not None:
            updates.average(xp, mean, update.theta, update.scratch, self.ema)

    @abstractmethod
    def _rule(self, update: Update) -> None:
        """Record what moves theta."""

    def slot_rows(self, n_steps: int) -> np.ndarray:
        """What the slots hold in each of the next `n_steps` updates: (n_steps, n_slots) in float64."""
        return self.rows_of(self._schedule.values(self.steps_done, n_steps))

    def rows_of(self, lrs: np.ndarray) -> np.ndarray:
        """What the slots hold in updates with these rates (n_steps,): (n_steps, n_slots) in float64."""
        columns = [lrs] if len(self.slots) == 1 else [lrs, np.full(len(lrs), self.l2_summed)]
        return np.stack(columns, axis=1)

    def averaged(self, network: Network) -> Parameters:
        """Return the average of theta over the updates so far, with weights that fall by the factor `ema`.

        The average is (1 - ema) sum ema^(t-i) theta_i / (1 - ema^t): corrected as Adam's averages are, so it does not
        lean to zero nor to the initial weights.  Source: Kingma and Ba (2015), section 7.2.
        Raises ValueError without `ema`, or if the last network trained was another one.
        """
        if self.ema is None:
            raise ValueError(f"{self!r} keeps no average of the weights; make it with ema=0.999 and train again")
        before, size = self._snapshot, network.parameters.layout.size
        if before.network is None or before.network() is not network or before.steps_done == 0:
            raise ValueError(
                "this optimizer has made no update of that network; train it first, or pass the network "
                "that it trained last"
            )
        mean, weight = before.state[self._ema_start :][:size], before.state[self._ema_start + size :][:1]
        return Parameters(network.parameters.layout, mean / float(network.backend.to_host(weight)[0]))

    @contextmanager
    def averaging(self, network: Network) -> Iterator[Network]:
        """`with optimizer.averaging(network):` the network has the averaged weights, to evaluate, predict or save.

        Running statistics of a batch norm stay those of the training. Do not train inside.
        """
        theta, averaged = network.parameters.flat, self.averaged(network).flat
        kept = theta.copy()
        try:
            theta[...] = averaged
            yield network
        finally:
            theta[...] = kept

    def _checked(self, name: str, value: Any, *, example: float, **bounds: float) -> float:
        return check_number(name, value, example=f"{type(self).__name__}({name}={example:g})", **bounds)

    def _beta(self, name: str, value: float, example: float) -> float:
        return self._checked(name, value, at_least=0, below=1, example=example)

    def _eps(self, value: float, example: float) -> float:
        # float32 holds no smaller one, and an element whose gradient is always zero would divide zero by zero
        return self._checked("eps", value, at_least=1e-37, example=example)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "l2_summed" and self.__dict__.get(name) and value:  # a slot of the Programs that it is part of
            value = self._checked(name, value, above=0, example=1e-4)
        elif name in self.__dict__ and not name.startswith("_"):
            raise AttributeError(
                f"{name} is {self.__dict__[name]} and part of recorded Programs, so it cannot become "
                f"{value!r}; make a new {type(self).__name__}({name}=...)"
            )
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        unset = dict.fromkeys(Options.__annotations__)
        public = {name: value for name, value in self.__dict__.items() if not name.startswith("_")}
        own = [f"{name}={value}" for name, value in public.items() if name not in unset]
        options = [f"{name}={public[name]}" for name in unset if public[name]]
        lr = self._schedule.lr if isinstance(self._schedule, Constant) else self._schedule
        return f"{type(self).__name__}({', '.join([f'lr={lr}', *own, *options])})"
