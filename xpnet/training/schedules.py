"""Learning-rate schedules: the rate of every update, as a function of the updates made before it.

Any optimizer takes one as its `lr`: `xpnet.SGD(lr=schedules.Cosine(0.1, total_steps=1000))`. A step here is an update;
with `accumulate=n` the training loop makes one every n steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from xpnet.checks import check_number, check_option, check_whole
from xpnet.specs import from_spec, values_of

__all__ = ["Constant", "Cosine", "Exponential", "InverseScaling", "OneCycle", "Schedule", "Step", "WarmUp"]


class Schedule(ABC):
    """Base of all schedules: a rule from the number of updates made, 0, 1, 2, ..., to a learning rate."""

    warms_up: ClassVar[bool] = False  # whether it begins with a rise
    least_steps: ClassVar[int] = 1  # the fewest total_steps

    @abstractmethod
    def values(self, first_step: int, n_steps: int) -> np.ndarray:
        """Return the rates (n_steps,) of the updates first_step, first_step + 1, ..., in float64."""

    def to_spec(self) -> dict[str, Any]:
        """Return the schedule as a JSON-ready dict for `schedule_of`; raises ValueError for a class of your own."""
        name = next((name for name, made in SCHEDULES.items() if made is type(self)), None)
        if name is None:
            raise ValueError(
                f"the schedule is {self!r}, and a spec cannot hold a class of your own; take one of xpnet.schedules, "
                "such as Cosine(0.1, total_steps=1000)"
            )
        values = values_of(self).items()
        return {
            "type": name,
            **{key: value.to_spec() if isinstance(value, Schedule) else value for key, value in values},
        }


def _counted(first_step: int, n_steps: int) -> np.ndarray:
    return np.arange(first_step, first_step + n_steps, dtype=np.float64)


def _make_plain(schedule: Schedule) -> None:
    """Make NumPy's numbers among the values Python's, which JSON has and which do not wrap."""
    for name, value in list(vars(schedule).items()):
        if isinstance(value, np.generic):
            object.__setattr__(schedule, name, value.item())


def _check_lr(schedule: Schedule, lr: float) -> None:
    _make_plain(schedule)
    name = type(schedule).__name__
    check_number("lr", lr, above=0, example=f"{name}(0.1{'' if isinstance(schedule, Constant) else ', ...'})")


@dataclass(frozen=True)
class Constant(Schedule):
    """The same rate at every update; what a number as `lr` stands for."""

    lr: float

    def __post_init__(self) -> None:
        _check_lr(self, self.lr)

    def values(self, first_step: int, n_steps: int) -> np.ndarray:
        return np.full(n_steps, float(self.lr))


@dataclass(frozen=True)
class Step(Schedule):
    """lr * factor^floor(t / every), t the updates made: torch's StepLR."""

    lr: float
    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        _check_lr(self, self.lr)
        check_whole("every", self.every, at_least=1)
        check_number("factor", self.factor, above=0, at_most=1, example="Step(0.1, every=1000, factor=0.1)")

    def values(self, first_step: int, n_steps: int) -> np.ndarray:
        return self.lr * self.factor ** np.floor(_counted(first_step, n_steps) / self.every)


@dataclass(frozen=True)
class Exponential(Schedule):
    """lr * factor^t: torch's ExponentialLR."""

    lr: float
    factor: float

    def __post_init__(self) -> None:
        _check_lr(self, self.lr)
        check_number("factor", self.factor, above=0, at_most=1, example="Exponential(0.1, factor=0.999)")

    def values(self, first_step: int, n_steps: int) -> np.ndarray:
        return self.lr * self.factor ** _counted(first_step, n_steps)


@dataclass(frozen=True)
class Cosine(Schedule):
    """lr_end + (lr - lr_end) (1 + cos(pi t / total_steps)) / 2: half a wave down, then it stays at lr_end.

    Source: Loshchilov and Hutter (2017), SGDR, eq. 5; torch's CosineAnnealingLR, which rises again after total_steps.
    """

    lr: float
    total_steps: int
    lr_end: float = 0.0

    def __post_init__(self) -> None:
        _check_lr(self, self.lr)
        check_whole("total_steps", self.total_steps, at_least=1)
        check_number("lr_end", self.lr_end, at_least=0, at_most=self.lr, example="Cosine(0.1, 1000, lr_end=0)")

    def values(self, first_step: int, n_steps: int) -> np.ndarray:
        done = np.minimum(_counted(first_step, n_steps) / self.total_steps, 1.0)
        return _cosine(self.lr, self.lr_end, done)


@dataclass(frozen=True)
class WarmUp(Schedule):
    """A linear rise over `steps` updates from start * lr to lr, the first rate of `after`; then `after` from its start.

    after: a schedule, or a number for a constant rate.
    Source: Goyal et al. (2017), section 2.2; torch's SequentialLR of LinearLR(start_factor=start) and another.
    """

    after: Schedule | float
    steps: int
    start: float = 1 / 3

    warms_up: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _make_plain(self)
        if not isinstance(self.after, Schedule):
            Constant(self.after)  # refuses what is no rate
        elif self.after.warms_up:
            raise ValueError(f"after is {self.after}, which has its own warm-up; give it as lr without WarmUp")
        check_whole("steps", self.steps, at_least=1)
        total_steps = getattr(self.after, "total_steps", self.steps)
        if self.steps > total_steps:
            raise ValueError(
                f"steps is {self.steps}, longer than the {total_steps} steps of {self.after}; "
                "warm up for a part of them: WarmUp(Cosine(0.1, total_steps=950), steps=50)"
            )
        check_number("start", self.start, above=0, at_most=1, example="WarmUp(0.1, steps=500, start=0.1)")

    def values(self, first_step: int, n_steps: int) -> np.ndarray:
        after = self.after if isinstance(self.after, Schedule) else Constant(self.after)
        n_warm = min(max(self.steps - first_step, 0), n_steps)
        risen = self.start + (1.0 - self.start) * _counted(first_step, n_warm) / self.steps
        rest = after.values(max(first_step - self.steps, 0), n_steps - n_warm)
        return np.concatenate([after.values(0, 1) * risen, rest])


@dataclass(frozen=True)
class OneCycle(Schedule):
    """From lr / div up to lr and down to lr / div / final_div, both on half a cosine; then it stays there.

    lr: the highest rate.  total_steps: updates of the whole run, epochs * ceil(n_samples / batch_size).
    rise: the part of them that rises.  The momentum does not cycle.
    Source: Smith and Topin (2018), in the two phases of torch's OneCycleLR, which refuses steps beyond total_steps.
    """

    lr: float
    total_steps: int
    rise: float = 0.3
    div: float = 25.0
    final_div: float = 1e4

    warms_up: ClassVar[bool] = True
    least_steps: ClassVar[int] = 2

    def __post_init__(self) -> None:
        example = "OneCycle(0.1, total_steps=epochs * steps_per_epoch)"
        _check_lr(self, self.lr)
        if self.total_steps is None:
            raise TypeError(f"total_steps is None; a cycle needs the updates of the whole run: {example}")
        check_whole("total_steps", self.total_steps, at_least=self.least_steps)
        check_number("rise", self.rise, above=0, below=1, example=f"{example[:-1]}, rise=0.3)")
        check_number("div", self.div, at_least=1, example=f"{example[:-1]}, div=25)")
        check_number("final_div", self.final_div, at_least=1, example=f"{example[:-1]}, final_div=1e4)")
        if self.rise * self.total_steps <= 1:
            raise ValueError(
                f"rise is {self.rise} of {self.total_steps} steps, which leaves no step to rise in; "
                f"make it more than {1 / self.total_steps:g}, or give the steps of the whole run"
            )

    def values(self, first_step: int, n_steps: int) -> np.ndarray:
        steps = _counted(first_step, n_steps)
        peak, last = self.rise * self.total_steps - 1.0, self.total_steps - 1.0
        low = self.lr / self.div
        rising = _cosine(low, self.lr, np.minimum(steps / peak, 1.0))
        falling = _cosine(self.lr, low / self.final_div, np.clip((steps - peak) / (last - peak), 0.0, 1.0))
        return np.where(steps <= peak, rising, falling)


@dataclass(frozen=True)
class InverseScaling(Schedule):
    """lr / (t + 1)^power: scikit-learn's "invscaling", eta0 / t^power_t with t counted from 1."""

    lr: float
    power: float = 0.5

    def __post_init__(self) -> None:
        _check_lr(self, self.lr)
        check_number("power", self.power, above=0, example="InverseScaling(0.1, power=0.5)")

    def values(self, first_step: int, n_steps: int) -> np.ndarray:
        return self.lr / (_counted(first_step, n_steps) + 1.0) ** self.power


# The one table of names, for specs, the command line and the estimators.
SCHEDULES: dict[str, Any] = {
    "constant": Constant,
    "step": Step,
    "exponential": Exponential,
    "cosine": Cosine,
    "one-cycle": OneCycle,
    "inverse-scaling": InverseScaling,
    "warm-up": WarmUp,
}


def schedule_of(spec: Any) -> Schedule:
    """Return the schedule that a `Schedule.to_spec` describes: {"type": "cosine", "lr": 0.1, "total_steps": 1000}.

    Raises ValueError for an unknown type, an unknown or a missing key, or a bad value.
    """
    if not isinstance(spec, dict):
        raise ValueError(f'the schedule is {spec!r}; it must be a dict such as {{"type": "constant", "lr": 0.1}}')
    name = check_option("schedule", spec.get("type"), SCHEDULES)
    values = {key: schedule_of(value) if isinstance(value, dict) else value for key, value in spec.items()}
    schedule: Schedule = from_spec(SCHEDULES[name], values, "type", f"{name} schedule")
    return schedule


def _cosine(start: float, end: float, done: np.ndarray) -> np.ndarray:
    """Return values from start to end on half a cosine.  done: the share of the way, 0 to 1."""
    return end + (start - end) * (1.0 + np.cos(np.pi * done)) / 2.0
