"""LIFB decoupled into pairs of native ``snn.Leaky``; the proof is in `snn_ext.decoupling`."""

from __future__ import annotations

from typing import Any

import snntorch as snn
import torch
from torch import Tensor, nn

from .. import decoupling
from ..ops.reference import compute_dtype
from .neurons import LIFB

__all__ = ["DecoupledLIFB", "decouple"]


class DecoupledLIFB(nn.Module):
    """A pair of native ``snn.Leaky`` that does what a `LIFB` does, to the last bit.

    ``regular`` is the ``snn.Leaky`` of the same decay, threshold and reset.  ``burst`` is a ``snn.Leaky`` at
    the burst threshold without a memory of its own: its input is the potential of ``regular``, and that is
    all the coupling there is.  The output is ``regular + (burst_intensity - 1) * burst``; or, when the
    intensities are folded into the next layer, both binary spike trains side by side.

    Called as the `LIFB` was, with the same state, and with `multi_step`; made by `LIFB.decouple` and
    `decouple`.  ``snntorch.utils.reset`` does not look inside; `snn_ext.snntorch.reset` does.
    """

    burst_intensity: Tensor
    graded_spikes_factor: Tensor

    def __init__(self, lifb: LIFB, layout: decoupling.Layout | None = None) -> None:
        super().__init__()
        _check(lifb)
        kept: dict[str, Any] = {
            name: getattr(lifb, name).detach().clone() for name in ("beta", "threshold", "burst_threshold")
        }
        common = {"spike_grad": lifb.spike_grad, "surrogate_disable": lifb.surrogate_disable}
        self.regular = snn.Leaky(
            kept["beta"],
            kept["threshold"],
            **common,
            init_hidden=lifb.init_hidden,
            reset_mechanism=lifb.reset_mechanism,
            output=True,
        )
        self.burst = snn.Leaky(
            torch.zeros_like(kept["beta"]), kept["burst_threshold"], **common, reset_mechanism="none"
        )
        self.register_buffer("burst_intensity", lifb.burst_intensity.detach().clone())
        self.register_buffer("graded_spikes_factor", lifb.graded_spikes_factor.detach().clone())
        self.init_hidden, self.output = lifb.init_hidden, lifb.output
        self.reset_delay = lifb.reset_delay
        self.layout = layout
        self.regular.mem = lifb.mem.detach().clone()
        self.train(lifb.training)

    @property
    def mem(self) -> Tensor:
        """The potential of the pair, as the `LIFB` has it."""
        return self.regular.mem

    def reset_mem(self) -> Tensor:
        """Reset the potential to zero and return it."""
        self.burst.reset_mem()
        return self.regular.reset_mem()

    def forward(self, input_: Tensor, mem: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Run one step, as the `LIFB` does."""
        y, mem = self._step(input_, mem)
        return y if self.init_hidden and not self.output else (y, mem)

    def multi_step(self, x_seq: Tensor, mem: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Run all steps of `x_seq`, shape (T, batch, ...), one after another."""
        ys = []
        for x in x_seq:
            y, mem = self._step(x, mem)
            ys.append(y)
            mem = None if self.init_hidden else mem
        y_seq = torch.stack(ys)
        return y_seq if self.init_hidden and not self.output else (y_seq, self.regular.mem)

    def _step(self, x: Tensor, mem: Tensor | None) -> tuple[Tensor, Tensor]:
        dtype = x.dtype
        x = x.to(compute_dtype(dtype))  # half precisions keep a float32 state, as in the LIFB
        regular, potential = self.regular(x) if mem is None else self.regular(x, mem)
        burst, _ = self.burst(potential, torch.zeros_like(potential))
        if not self.reset_delay and self.regular.reset_mechanism == "zero":  # as snn.Leaky does it
            self.regular.mem = potential - (regular - self.regular.reset) * potential
        if self.layout is not None:
            return self.layout.join(regular, burst).to(dtype), self.regular.mem
        y = (regular + (self.burst_intensity - 1) * burst).to(dtype)
        return y * self.graded_spikes_factor.to(dtype), self.regular.mem


def decouple(net: nn.Module, fold: bool = True) -> nn.Module:
    """Return a copy of `net` in which pairs of native ``snn.Leaky`` stand for its `LIFB` layers.

    Every following synaptic layer receives exactly what it received before, at every step, for any input,
    reset and trained intensity; `snn_ext.decoupling` has the proof.

    Parameters
    ----------
    net : nn.Module
        A network with `LIFB` layers, or one layer; it is left untouched.
    fold : bool, default True
        Fold the burst intensities into the weights of the next Linear or Conv layer, which then has twice
        the inputs and takes binary spikes only (equal to rounding).  Flatten, dropout and pooling may lie in
        between; a `LIFB` that ends the network keeps its own output.  ``False``: change no other layer; the
        pair emits what the `LIFB` emitted, to the last bit.

    Returns
    -------
    nn.Module
        The copy, for evaluation (in training, dropout would draw two masks), in the same state
        (potentials included) and mode.  Reset it with `snn_ext.snntorch.reset`, for
        ``snntorch.utils.reset`` does not look inside the pairs.

    Raises
    ------
    ValueError
        There is no `LIFB`; or its bursts cannot be folded because they feed something that is not linear
        (says what and where), or because intensities differ between neurons that a convolution weighs
        alike.
    NotImplementedError
        A `LIFB` with inhibition, a quantised state, or a ``subtract`` reset without `reset_delay`.
    """
    return decoupling.decoupled(
        net,
        DecoupledLIFB,
        decoupling.Kinds(LIFB, (snn.SpikingNeuron,)),
        fold,
        returns_tuple=lambda lifb: not lifb.init_hidden or lifb.output,
        factor=lambda lifb: lifb.graded_spikes_factor,
    )


def _check(lifb: LIFB) -> None:
    for wrong, what in (
        (lifb.inhibition, "inhibition=True"),
        (bool(lifb.state_quant), "state_quant"),
        (
            not lifb.reset_delay and lifb.reset_mechanism == "subtract",
            "reset_mechanism='subtract' with reset_delay=False",
        ),
    ):
        if wrong:
            raise NotImplementedError(
                f"a LIFB with {what} cannot be decoupled: a pair of snn.Leaky would do something else; "
                "build it without"
            )
