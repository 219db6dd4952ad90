"""The weight of a penalty in the loss, constant or rising."""

from __future__ import annotations

import dataclasses
import math


def check_lambda(lam: float, name: str = "lam") -> float:
    """Return `lam` as a number that is finite and not negative, or raise."""
    if isinstance(lam, bool) or not isinstance(lam, (int, float)):
        raise TypeError(f"{name} must be a number, got {type(lam).__name__}; e.g. {name}=1e-6")
    if not 0 <= lam < math.inf:
        raise ValueError(
            f"{name}={lam} must be finite and not negative: a negative weight would reward spending energy"
        )
    return float(lam)


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
        if isinstance(self.steps, bool) or not isinstance(self.steps, int):
            raise TypeError(f"steps must be an integer, got {self.steps!r}")
        if self.steps < 1:
            raise ValueError(f"steps={self.steps} must be at least 1, the training steps of the ramp")

    def __call__(self, step: int) -> float:
        """Return the weight at training step `step`."""
        part = min(max(step, 0) / self.steps, 1.0)
        return self.start + (self.lam - self.start) * part
