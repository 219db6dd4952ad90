r"""The weight of a penalty in the loss: constant, rising, or by what the task has learned.

Why a penalty silences a network from scratch.  Where a network starts nearly silent, its potentials are far
from their thresholds, and surrogates are small there.  The task reaches a weight through one of them a layer,
and the last weights not at all until a neuron before them fires; a penalty acts on the spikes of each layer
itself, through a single one.  In a convolutional network of snnTorch (``fast_sigmoid(slope=25)``, two spiking
layers before the last, MNIST) the gradient of the first weights is 3e-8 from the task at the start, and 7e4
from the synaptic penalty with a weight of 1.  Adam divides each by its size, so it takes full steps along
whichever is the larger, with a weight of 1e-9 as with 1e-6: after eight steps all layers were silent, where
without a penalty it took the task nine to make the last one fire.  (With SGD the task alone does not start
either.)  A penalty on the spikes of the output, such as snnTorch's ``l1_rate_sparsity``, passes the same
surrogates as the task, and stays small beside it.  Once a network fires and learns, the gradients of its task
are some 1e4 times larger, and a penalty has something to be weighed against: `WhenLearning` waits for that.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

from .. import checks
from .penalties import Penalty


def check_lambda(lam: float, name: str = "lam") -> float:
    """Return `lam` as a number that is finite and not negative, or raise."""
    if isinstance(lam, bool) or not isinstance(lam, (int, float)):
        raise TypeError(f"{name} must be a number, got {type(lam).__name__}; e.g. {name}=1e-6")
    lam = checks.number(name, lam)
    if not 0 <= lam < math.inf:
        raise ValueError(
            f"{name}={lam} must be finite and not negative: a negative weight would reward spending energy"
        )
    return float(lam)


def check_steps(steps: int, name: str) -> None:
    """Raise unless `steps` is a number of training steps."""
    if isinstance(steps, bool) or not isinstance(steps, int):
        raise TypeError(f"{name} must be an integer, got {steps!r}")
    if steps < 1:
        raise ValueError(f"{name}={steps} must be at least 1, the training steps of the ramp")


@dataclasses.dataclass(frozen=True)
class ConstantLambda:
    """The same weight at every step of the training.

    Parameters
    ----------
    lam : float
        The weight, at least 0.

    Examples
    --------
    >>> ConstantLambda(1e-6)(step=1000)
    1e-06
    """

    lam: float

    def __post_init__(self) -> None:
        check_lambda(self.lam)

    def __call__(self, step: int) -> float:
        """Return the weight at training step `step`."""
        return float(self.lam)


@dataclasses.dataclass(frozen=True)
class LinearRamp:
    """A weight that rises linearly, so that a network learns its task before it saves.

    Parameters
    ----------
    lam : float
        The weight that is reached, at least 0.
    steps : int
        After how many training steps, at least 1.
    start : float, default 0.0
        The weight at step 0.

    Examples
    --------
    >>> lam = LinearRamp(1e-6, steps=100)
    >>> lam(0), lam(50), lam(500)
    (0.0, 5e-07, 1e-06)
    """

    lam: float
    steps: int
    start: float = 0.0

    def __post_init__(self) -> None:
        check_lambda(self.lam)
        check_lambda(self.start, "start")
        check_steps(self.steps, "steps")

    def __call__(self, step: int) -> float:
        """Return the weight at training step `step`."""
        part = min(max(step, 0) / self.steps, 1.0)
        return self.start + (self.lam - self.start) * part


@dataclasses.dataclass
class WhenLearning:
    """A weight relative to the task's loss, which waits until the task is being learned, and gives way to it.

    It stays at zero until the network fires, and the task's loss (its moving average) has dropped by a part
    of what it was at the start.  Then it rises to what makes the penalty a given share of that loss.  Where
    the task loses ground, the weight falls again, down to zero.

    Parameters
    ----------
    share : float, default 0.01
        What the penalty adds to the loss at most, over the task's loss at the start.
    begin : float, default 0.1
        The part of the task's loss at the start that is to be gone before the weight rises.
    ramp : int, default 50
        Training steps in which it rises.
    give : float, default 0.05
        What the task may lose, over all that it has gained, before the weight is zero again.

    Notes
    -----
    It has a state (`state_dict`), holds no network, and can be pickled.  `Weighted` calls it; by hand it
    takes the training step, the task's loss and the penalty, and returns the weight.  Of our own making.

    Examples
    --------
    >>> lam = WhenLearning(share=0.1, begin=0.5, ramp=1)
    >>> lam(0, task=2.0, omega=100.0)  # nothing is learned yet
    0.0
    """

    share: float = 0.01
    begin: float = 0.1
    ramp: int = 50
    give: float = 0.05

    def __post_init__(self) -> None:
        check_lambda(self.share, "share")
        for name in ("begin", "give"):
            value = check_lambda(getattr(self, name), name)
            if not 0 < value < 1:
                raise ValueError(f"{name}={value} must lie between 0 and 1, a part of the task's loss")
        check_steps(self.ramp, "ramp")
        self._state: dict[str, Any] = {"start": None, "level": 0.0, "best": 0.0, "begun": None, "most": 0.0}

    def __call__(self, step: int, task: Any = None, omega: Any = None) -> float:
        """Return the weight at training step `step`, with the task's loss and the penalty, without weight."""
        if task is None or omega is None:
            raise RuntimeError(
                "WhenLearning needs the task's loss: call saving(task), or reg(spk, task) in snnTorch, or "
                "give snntorch.backprop criterion=reg.beside(criterion); or take a number for a weight"
            )
        task, omega, s = _value("task", task), _value("omega", omega), self._state
        if not math.isfinite(task):  # a step that an optimizer will leave out
            return 0.0
        if s["start"] is None:
            s.update(start=task, level=task, best=task)
        s["level"] += 0.1 * (task - s["level"])
        s["best"] = min(s["best"], s["level"])
        gained = s["start"] - s["best"]
        if s["begun"] is None and omega > 0 and gained > self.begin * abs(s["start"]):
            s["begun"] = step
        if s["begun"] is None:
            return 0.0
        s["most"] = max(s["most"], omega)
        rise = min(1.0, (step + 1 - s["begun"]) / self.ramp)
        kept = max(0.0, 1.0 - (s["level"] - s["best"]) / (self.give * gained))
        return self.share * abs(s["start"]) / s["most"] * rise * kept

    def state_dict(self) -> dict[str, Any]:
        """Return what it has seen, to go on from there."""
        return dict(self._state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state` was taken."""
        if set(state) != set(self._state):
            raise ValueError(
                f"state has the keys {sorted(state)}, not {sorted(self._state)}: of another schedule?"
            )
        self._state = dict(state)


Weight = float | Callable[[int], float] | WhenLearning
"""What is taken for a weight."""


class Weighted:
    """A penalty times its weight: ``loss = task + saving(task)``.

    Parameters
    ----------
    penalty : SynapticPenalty or another
        What is weighted; called once with each loss.
    lam : float, schedule, or None
        A number, a function of the training step (`ConstantLambda`, `LinearRamp`), or `WhenLearning`, the
        default: by what the task has learned, for networks that are trained from scratch.

    Attributes
    ----------
    weight : float
        The weight of the last call.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, the value and the remedy.

    Examples
    --------
    ::

        saving = Weighted(SynapticPenalty(net, images[:1]))
        for images, labels in loader:
            task = cross_entropy(net(images), labels)
            loss = task + saving(task)
    """

    def __init__(self, penalty: Penalty, lam: Weight | None = None) -> None:
        if not isinstance(penalty, Penalty):
            raise TypeError(
                f"penalty must be one of snn_ext.energy, got {type(penalty).__name__}; e.g. "
                "SynapticPenalty(net, images[:1])"
            )
        self.penalty, self.step, self.weight = penalty, 0, 0.0
        self.lam = WhenLearning() if lam is None else lam if callable(lam) else check_lambda(lam)

    def __call__(self, task: Tensor | float | None = None) -> Tensor:
        """Return the weighted penalty for what has run, beside the loss of the task."""
        omega, lam = self.penalty(), self.lam
        if isinstance(lam, WhenLearning):
            self.weight = lam(self.step, task, omega)
        else:
            self.weight = check_lambda(lam(self.step)) if callable(lam) else lam
        self.step += 1
        return self.weight * omega

    def state_dict(self) -> dict[str, Any]:
        """Return the step, and what the schedule has seen, to go on from there."""
        return {"step": self.step, "lam": self.lam.state_dict() if isinstance(self.lam, WhenLearning) else {}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state` was taken."""
        if isinstance(self.lam, WhenLearning):
            self.lam.load_state_dict(state["lam"])
        self.step = int(state["step"])

    def __str__(self) -> str:
        return f"{self.lam}, now {self.weight:.3g}, times {self.penalty}"


def _value(name: str, value: Any) -> float:
    """Return a loss as a number."""
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(
                f"{name} must be one number, got a tensor of shape {tuple(value.shape)}; take its mean"
            )
        value = value.detach().item()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number or a tensor of one, got {type(value).__name__}")
    return float(value)
