"""LIFB decoupled into pairs of native ``LIFNode``; the proof is in `snn_ext.decoupling`."""

from __future__ import annotations

import math
from typing import Any

import torch
from spikingjelly.activation_based import base, layer, neuron
from torch import Tensor, nn

from .. import decoupling
from ..ops.reference import compute_dtype
from ..surrogate import Surrogate
from ._compat import FUNCTIONAL
from .neurons import LIFBNode

__all__ = ["DecoupledLIFBNode", "decouple"]

_SYNAPSES = (*decoupling.SYNAPSES, layer.Linear, layer.Conv1d, layer.Conv2d, layer.Conv3d)
_PASSING = (*decoupling.PASSING, layer.Dropout, layer.Dropout2d)


def _of_both(name: str) -> Any:
    """Return a property that reads an attribute of the regular neuron, and writes it to both."""

    def write(pair: Any, value: Any) -> None:
        setattr(pair.regular, name, value)
        setattr(pair.burst, name, value)

    return property(lambda pair: getattr(pair.regular, name), write)


class DecoupledLIFBNode(base.MemoryModule):
    """A pair of native ``LIFNode`` that does what a `LIFBNode` does.

    ``regular`` and ``burst`` have the same time constant, input and reset and fire at the two thresholds.
    The coupling is one assignment: after every step ``burst`` takes over the potential of ``regular``, so
    that a regular spike resets it too.  The output is ``regular + (burst_intensity - 1) * burst``; or, when
    the intensities are folded into the next layer, both binary spike trains side by side.

    ``LIFNode`` rounds its charge differently from this package's operator, so potentials agree to rounding,
    and a spike can differ only where a potential is that near to a threshold.

    Works in both step modes; made by `LIFBNode.decouple` and `decouple`.  To its user it is as a
    ``LIFNode``: ``v``, ``tau``, ``v_threshold``, ``v_reset``, ``surrogate_function`` and the like are those
    of the pair, whose two neurons hold the memories.  A new ``v_threshold`` takes the burst threshold along,
    as in a `LIFBNode`.
    """

    burst_intensity: Tensor

    not_in_nir = "a pair that shares a potential"
    nir_remedy = "export the network that it was made of: its LIFBNode layers are written as LIF neurons"

    v, tau, decay_input = _of_both("v"), _of_both("tau"), _of_both("decay_input")
    v_reset, detach_reset = _of_both("v_reset"), _of_both("detach_reset")
    surrogate_function = _of_both("surrogate_function")

    def __init__(self, lifb: LIFBNode, layout: decoupling.Layout | None = None) -> None:
        super().__init__()
        rate = torch.as_tensor(lifb._rate)
        tau = torch.full_like(rate, math.inf) if bool((rate == 0).any()) else 1 / lifb._rate
        common: dict[str, Any] = {
            "tau": _one_number("tau", tau),
            "decay_input": lifb.decay_input,
            "v_reset": lifb.v_reset,
            "surrogate_function": lifb.surrogate_function,
            "detach_reset": lifb.detach_reset,
        }
        if not 1 < common["tau"] < math.inf:
            raise NotImplementedError(
                f"a LIFBNode with tau={common['tau']:g} cannot be decoupled: "
                "LIFNode needs a finite tau above 1"
            )
        if isinstance(lifb.surrogate_function, Surrogate) and lifb.surrogate_function.strict:
            raise NotImplementedError(
                "a LIFBNode that fires strictly above its threshold cannot be decoupled: LIFNode fires at or "
                "above it; use a surrogate with strict=False"
            )
        self.regular = neuron.LIFNode(**common, v_threshold=_one_number("v_threshold", lifb.v_threshold))
        self.burst = neuron.LIFNode(
            **common, v_threshold=_one_number("burst_threshold", lifb.burst_threshold)
        )
        self.register_buffer("burst_intensity", lifb.burst_intensity.detach().clone())
        self.layout = layout
        self.step_mode, self.store_v_seq = lifb.step_mode, lifb.store_v_seq
        self.v = lifb.v.detach().clone() if isinstance(lifb.v, Tensor) else lifb.v
        self.train(lifb.training)

    @property
    def v_threshold(self) -> float:
        """The firing threshold; a new one takes the burst threshold along."""
        return self.regular.v_threshold

    @v_threshold.setter
    def v_threshold(self, value: float) -> None:
        self.burst.v_threshold = value + (self.burst.v_threshold - self.regular.v_threshold)
        self.regular.v_threshold = value

    @property
    def burst_threshold(self) -> float:
        """The potential at or above which an event is a burst."""
        return self.burst.v_threshold

    @property
    def store_v_seq(self) -> bool:
        """Whether ``v_seq`` keeps the potentials of all steps."""
        return self._store_v_seq

    @store_v_seq.setter
    def store_v_seq(self, value: bool) -> None:
        self._store_v_seq = value
        self.v_seq: Tensor | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        """Let properties take modules, too, and refuse what has gone into the next layer."""
        if name == "burst_intensity" and self.__dict__.get("layout"):
            raise AttributeError(
                "burst_intensity was folded into the weights of the next layer; set it before decouple(net), "
                "or use decouple(net, fold=False)"
            )
        if isinstance(getattr(type(self), name, None), property):
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        """Give SpikingJelly's monitors, some of which ask here at once, what properties give."""
        own = getattr(type(self), name, None)
        return own.fget(self) if isinstance(own, property) and own.fget else super().__getattr__(name)

    def reset(self) -> None:
        """Reset the potential, and forget ``v_seq``."""
        self.regular.reset()
        self.burst.reset()
        self.v_seq = None

    def detach(self) -> None:
        """Leave the graph of the steps so far behind."""
        self.regular.detach()
        self.burst.detach()
        if self.v_seq is not None:
            self.v_seq = self.v_seq.detach()

    def set_reset_value(self, name: str, value: Any) -> None:
        """Set to what a reset leads."""
        self.regular.set_reset_value(name, value)
        self.burst.set_reset_value(name, value)

    def get_reset_value(self, name: str) -> Any:
        """Return to what a reset leads."""
        return self.regular.get_reset_value(name)

    def single_step_forward(self, x: Tensor) -> Tensor:
        """Run one step."""
        y = self._step(x)
        if self.store_v_seq and FUNCTIONAL:  # the other generation stores sequences alone
            past = self.v_seq if self.v_seq is not None and self.v_seq.shape[1:] == self.v.shape else None
            v_seq = self.v.unsqueeze(0)
            self.v_seq = v_seq if past is None else torch.cat([past, v_seq])
        return y

    def multi_step_forward(self, x_seq: Tensor) -> Tensor:
        """Run all steps of ``[T, N, ...]``."""
        y_seq, v_seq = [], []
        for x in x_seq:
            y_seq.append(self._step(x))
            v_seq.append(self.v)
        if self.store_v_seq:
            self.v_seq = torch.stack(v_seq)
        return torch.stack(y_seq)

    def _step(self, x: Tensor) -> Tensor:
        self.regular.step_mode = self.burst.step_mode = "s"  # coupled after every step
        dtype = x.dtype
        x = x.to(compute_dtype(dtype))  # half precisions keep a float32 state, as in the LIFBNode
        regular = self.regular(x)
        burst = self.burst(x)
        self.burst.v = self.regular.v
        if self.layout is not None:
            return self.layout.join(regular, burst).to(dtype)
        return (regular + (self.burst_intensity - 1) * burst).to(dtype)


def decouple(net: nn.Module, fold: bool = True) -> nn.Module:
    """Return a copy of `net` in which pairs of native ``LIFNode`` stand for its `LIFBNode` layers.

    Every following synaptic layer receives what it received before, at every step, for any input, reset
    and trained intensity; `snn_ext.decoupling` has the proof, `DecoupledLIFBNode` says what rounding does.

    Parameters
    ----------
    net : nn.Module
        A network with `LIFBNode` layers, or one layer; it is left untouched.
    fold : bool, default True
        Fold the burst intensities into the weights of the next Linear or Conv layer, which then has twice
        the inputs and takes binary spikes only.  Flatten, dropout and pooling may lie in between; a
        `LIFBNode` that ends the network keeps its own output.  ``False``: change no other layer.

    Returns
    -------
    nn.Module
        The copy, for evaluation (in training, dropout would draw two masks), in the same state
        (potentials included), step mode and training mode.

    Raises
    ------
    ValueError
        There is no `LIFBNode`; or its bursts cannot be folded because they feed something that is not
        linear (says what and where), or because intensities differ between neurons that a convolution
        weighs alike.
    NotImplementedError
        What ``LIFNode`` does not have: a threshold or time constant per channel, ``tau=1``, strict firing.
    """
    return decoupling.decoupled(
        net,
        DecoupledLIFBNode,
        decoupling.Kinds(LIFBNode, (neuron.BaseNode,), _SYNAPSES, _PASSING),
        fold,
        time_first=lambda lifb: lifb.step_mode == "m",
    )


def _one_number(name: str, value: float | Tensor) -> float:
    if isinstance(value, Tensor):
        first = value.detach().flatten()[0]
        if not bool((value.detach() == first).all()):
            raise NotImplementedError(
                f"{name} differs between neurons (shape {tuple(value.shape)}), but LIFNode has one for all; "
                "such a LIFBNode cannot be decoupled into native neurons"
            )
        return first.item()
    return float(value)
