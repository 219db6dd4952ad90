"""Watch what neurons do inside a network: firing modes, firing rates, quantisation error.

`observe` works on networks of either framework.  While it is active each watched neuron also runs its
equations step by step, so it costs time; when it is not, it costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .neurons.leaky import Leaky, Parameters
from .ops import reference

__all__ = ["observe"]


class Observer:
    """Averages what a neuron measures, over everything that it is shown."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.count = 0

    def see(
        self,
        neuron: Leaky,
        x_seq: Tensor,
        v0: Tensor,
        p: Parameters,
        surrogate: Callable[[Tensor], Tensor],
        **options: Any,
    ) -> None:
        with torch.no_grad():
            for step in reference.unroll(neuron, x_seq, v0, p, surrogate, **options):
                for name, values in neuron.measure(step.h, step.o, p, surrogate).items():
                    total = float(values.expand(step.h.shape).sum(dtype=torch.float64))
                    self.sums[name] = self.sums.get(name, 0.0) + total
                self.count += step.h.numel()

    def means(self) -> dict[str, float]:
        return {name: total / self.count for name, total in self.sums.items()}


class Observations(dict[str, dict[str, float]]):
    """What was seen, by the name of the layer."""

    def __init__(self, observers: dict[str, Observer]) -> None:
        super().__init__()
        self._observers = observers

    def refresh(self) -> None:
        """Take in what has been seen so far; done by itself when the ``with`` block ends."""
        self.update({name: observer.means() for name, observer in self._observers.items() if observer.count})


@contextmanager
def observe(net: nn.Module) -> Iterator[Observations]:
    """Average what the neurons of this package do in `net` while the ``with`` block runs.

    Parameters
    ----------
    net : nn.Module
        A network of either framework, or a single neuron (then named ``""``).

    Yields
    ------
    dict
        Filled when the block ends: for each layer that ran, averages over its neurons, steps and samples.

        ============  =========================================================================
        LIFB          ``rest``, ``regular`` and ``burst``: the fractions of the three modes
        SoftResetMPR  ``firing_rate``, and ``quantization_error``: the mean square distance of the
                      (rectified) potential to the spike, in spikes squared
        VSN           ``firing_rate``: the fraction of open gates
        ============  =========================================================================

    Notes
    -----
    What is seen are the neurons' own events, before inhibition and spike factors.  An inner block hides its
    runs from an outer one on the same layers.

    Raises
    ------
    ValueError
        `net` has none of these neurons.

    Examples
    --------
    With a network whose layer ``"1"`` is a LIFB::

        with observe(net) as seen:
            net(x)
        seen["1"]  # {'rest': 0.93, 'regular': 0.05, 'burst': 0.02}
    """
    watched = {name: module for name, module in net.named_modules() if hasattr(module, "_observer")}
    if not watched:
        raise ValueError(
            f"{type(net).__name__} has no neuron of this package to observe; "
            "add a VSN, LIFB or SoftResetMPR layer"
        )
    observers = {name: Observer() for name in watched}
    before = {name: module._observer for name, module in watched.items()}
    for name, module in watched.items():
        object.__setattr__(module, "_observer", observers[name])
    seen = Observations(observers)
    try:
        yield seen
    finally:
        for name, module in watched.items():
            object.__setattr__(module, "_observer", before[name])
        seen.refresh()
