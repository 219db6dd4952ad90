"""Watch what neurons do inside a network: firing modes, firing rates, quantisation error.

`observe` works on networks of either framework, with its native neurons and ours.  While it is active each
neuron of ours also runs its equations step by step, so it costs time; when it is not, it costs nothing.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .energy import layers
from .energy.layers import Layer
from .neurons.leaky import Leaky, Parameters
from .ops import reference

__all__ = ["observe"]


class Observer:
    """Averages what a neuron measures, over everything that it is shown."""

    def __init__(self) -> None:
        self.sums: dict[str, Any] = {}
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
                    total = values.expand(step.h.shape).sum(dtype=torch.float64)
                    self.sums[name] = self.sums.get(name, 0.0) + total
                self.count += step.h.numel()

    def means(self) -> dict[str, float]:
        return {name: float(total) / self.count for name, total in self.sums.items()}


class Rates:
    """Averages the spikes that a native layer sends, over everything that it is shown."""

    def __init__(self) -> None:
        self.spikes: Any = 0.0
        self.count = 0
        self.hidden = False
        """Whether an inner block takes over."""

    def begin(self, layer: Layer) -> None:
        """Go on: all runs are averaged."""

    def see(self, layer: Layer, spikes: Tensor, leading: int, steps: int, power: float) -> None:
        if not self.hidden:
            self.spikes = self.spikes + spikes.detach().sum(dtype=torch.float64)
            self.count += spikes.numel()

    def means(self) -> dict[str, float]:
        return {"firing_rate": float(self.spikes) / self.count}


class Observations(dict[str, dict[str, float]]):
    """What was seen, by the name of the layer."""

    def __init__(self, observers: Mapping[str, Observer | Rates]) -> None:
        super().__init__()
        self._observers = observers

    def refresh(self) -> None:
        """Take in what has been seen so far; done by itself when the ``with`` block ends."""
        self.update({name: observer.means() for name, observer in self._observers.items() if observer.count})


@contextmanager
def observe(net: nn.Module) -> Iterator[Observations]:
    """Average what the spiking layers of `net` do while the ``with`` block runs.

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
        native ones   ``firing_rate``: the spikes that a neuron sends in a step
        ============  =========================================================================

    Notes
    -----
    Of our neurons their own events are seen, before inhibition and spike factors; of native ones what they
    send.
    An inner block hides its runs from an outer one on the same layers, as `measure_energy` does.

    Warns
    -----
    UserWarning
        A layer emits what are no spikes that could be counted; it is left out.

    Raises
    ------
    ValueError
        `net` has no spiking layer, or none whose spikes can be counted.

    Examples
    --------
    With a network whose layer ``"1"`` is a LIFB::

        with observe(net) as seen:
            net(x)
        seen["1"]  # {'rest': 0.93, 'regular': 0.05, 'burst': 0.02}
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f"net must be a torch.nn.Module, got {type(net).__name__}; give the network itself")
    native: list[Layer] = []
    for layer in layers.described(net):
        if reason := layer.refuse():
            kind = type(layer.module).__name__
            warnings.warn(f"layer {layer.name!r}: a {kind} {reason}; it is left out", stacklevel=3)
        elif not layer.own:
            native.append(layer)
    own = {name: module for name, module in net.named_modules() if hasattr(module, "_observer")}
    if not own and not native:
        raise ValueError(
            f"{type(net).__name__} has no spiking layer to observe; use neurons of snnTorch, SpikingJelly or "
            "snn_ext in it"
        )
    observers = {name: Observer() for name in own}
    rates = {layer.name: Rates() for layer in native}
    seen = Observations({**observers, **rates})
    with contextlib.ExitStack() as ends:
        ends.callback(seen.refresh)
        for name, module in own.items():
            ends.callback(object.__setattr__, module, "_observer", module._observer)
            object.__setattr__(module, "_observer", observers[name])
        for layer in native:
            for tap in layers.taps(layer.module):
                outer = tap.watcher()
                if isinstance(outer, Rates) and not outer.hidden:
                    ends.callback(setattr, outer, "hidden", False)
                    outer.hidden = True
            ends.callback(layers.watch(layer, rates[layer.name]))
        yield seen
