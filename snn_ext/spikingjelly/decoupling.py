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
from .neurons import LIFBNode

__all__ = ["DecoupledLIFBNode", "decouple"]

_SYNAPSES = (*decoupling.SYNAPSES, layer.Linear, layer.Conv1d, layer.Conv2d, layer.Conv3d)
_PASSING = (*decoupling.PASSING, layer.Dropout, layer.Dropout2d)


class DecoupledLIFBNode(nn.Module, base.StepModule):
    """A pair of native ``LIFNode`` that does what a `LIFBNode` does.

    ``regular`` and ``burst`` have the same time constant, input and reset and fire at the two thresholds.
    The coupling is one assignment: after every step ``burst`` takes over the potential of ``regular``, so
    that a regular spike resets it too.  The output is ``regular + (burst_intensity - 1) * burst``; or, when
    the intensities are folded into the next layer, both binary spike trains side by side.

    ``LIFNode`` rounds its charge differently from this package's operator, so potentials agree to rounding,
    and a spike can differ only where a potential is that near to a threshold.

    Works in both step modes; made by `LIFBNode.decouple` and `decouple`.
    """

    burst_intensity: Tensor

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
        self.step_mode = lifb.step_mode
        v = lifb.v.detach().clone() if isinstance(lifb.v, Tensor) else lifb.v
        self.regular.v = self.burst.v = v
        self.train(lifb.training)

    def forward(self, x: Tensor) -> Tensor:
        """Run one step, or with ``step_mode="m"`` all steps of ``[T, N, ...]``."""
        self.regular.step_mode = self.burst.step_mode = "s"  # coupled after every step
        if self.step_mode == "s":
            return self._step(x)
        return torch.stack([self._step(step) for step in x])

    def _step(self, x: Tensor) -> Tensor:
        dtype = x.dtype
        x = x.to(compute_dtype(dtype))  # half precisions keep a float32 state, as in the LIFBNode
        regular = self.regular(x)
        burst = self.burst(x)
        self.burst.v = self.regular.v
        if self.layout is not None:
            return self.layout.join(regular, burst).to(dtype)
        return (regular + (self.burst_intensity - 1) * burst).to(dtype)

    def extra_repr(self) -> str:
        return f"step_mode={self.step_mode}"


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
