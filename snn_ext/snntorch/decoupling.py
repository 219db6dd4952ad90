"""LIFB decoupled into pairs of native ``snn.Leaky``; the proof is in `snn_ext.decoupling`."""

from __future__ import annotations

from typing import Any

import snntorch as snn
import torch
from torch import Tensor, nn

from .. import decoupling
from ..ops.reference import compute_dtype
from ._base import Neuron, register_copy
from .neurons import LIFB

__all__ = ["DecoupledLIFB", "decouple"]


_STATES = {"subtract": "_base_sub", "zero": "_base_zero", "none": "_base_int"}
"""How ``snn.Leaky`` integrates, by its reset mechanism."""


def _of_regular(name: str) -> Any:
    """Return a property that reads and writes an attribute of the regular neuron."""
    return property(
        lambda pair: getattr(pair.regular, name), lambda pair, value: setattr(pair.regular, name, value)
    )


def _of_both(name: str) -> Any:
    """Return a property that reads an attribute of the regular neuron, and writes it to both."""

    def write(pair: Any, value: Any) -> None:
        setattr(pair.regular, name, value)
        setattr(pair.burst, name, value)

    return property(lambda pair: getattr(pair.regular, name), write)


def _never(name: str) -> Any:
    """Return a property that a pair does not have."""

    def write(pair: Any, value: Any) -> None:
        if value:
            raise _refusal(name)

    return property(lambda pair: False, write)


class DecoupledLIFB(snn.Leaky):
    """A pair of native ``snn.Leaky`` that does what a `LIFB` does, to the last bit.

    ``regular`` is the ``snn.Leaky`` of the same decay, threshold and reset.  ``burst`` is a ``snn.Leaky`` at
    the burst threshold without a memory of its own: its input is the potential of ``regular``, and that is
    all the coupling there is.  The output is ``regular + (burst_intensity - 1) * burst``; or, when the
    intensities are folded into the next layer, both binary spike trains side by side.

    Called as the `LIFB` was, with the same state, and with `multi_step`; made by `LIFB.decouple` and
    `decouple`.  To its user it is a ``snn.Leaky``: ``beta``, ``threshold``, ``mem``, ``spike_grad`` and the
    like are those of the pair, ``init_leaky`` and ``reset_mem`` work, and snnTorch's utilities reach it.  A
    new ``threshold`` takes the burst threshold along, as in a `LIFB`.
    """

    burst_intensity: Tensor
    graded_spikes_factor: Tensor

    not_in_nir = "a pair that shares a potential"
    nir_remedy = "export the network that it was made of: its LIFB layers are written as LIF neurons"

    beta, mem, reset = _of_regular("beta"), _of_regular("mem"), _of_regular("reset")
    init_hidden, state_function = _of_regular("init_hidden"), _of_regular("state_function")
    reset_mechanism_val = _of_regular("reset_mechanism_val")
    spike_grad, surrogate_disable = _of_both("spike_grad"), _of_both("surrogate_disable")
    inhibition, state_quant = _never("inhibition"), _never("state_quant")

    def __init__(self, lifb: LIFB, layout: decoupling.Layout | None = None) -> None:
        nn.Module.__init__(self)
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
        self.output, self.reset_delay = lifb.output, lifb.reset_delay
        self.layout = layout
        self.mem = lifb.mem.detach().clone()
        self.train(lifb.training)
        register_copy(self)

    @property
    def threshold(self) -> Tensor:
        """The firing threshold; a new one takes the burst threshold along."""
        return self.regular.threshold

    @threshold.setter
    def threshold(self, value: Tensor) -> None:
        gap = (self.burst.threshold - self.regular.threshold).detach()
        self.regular.threshold = value
        self.burst.threshold = value.detach() + gap

    @property
    def burst_threshold(self) -> Tensor:
        """The potential above which an event is a burst."""
        return self.burst.threshold

    @property
    def reset_mechanism(self) -> str:
        """How an event resets the potential."""
        return self.regular.reset_mechanism

    @reset_mechanism.setter
    def reset_mechanism(self, value: str) -> None:
        _check_reset(value, self.reset_delay)
        self.regular.reset_mechanism = value
        self.regular.state_function = getattr(self.regular, _STATES[value])

    @property
    def reset_delay(self) -> bool:
        """Whether a reset is made at the next step."""
        return self._reset_delay

    @reset_delay.setter
    def reset_delay(self, value: bool) -> None:
        _check_reset(self.regular.reset_mechanism, value)
        self._reset_delay = value

    def __setattr__(self, name: str, value: Any) -> None:
        """Let properties take parameters, too, and refuse what has gone into the next layer."""
        folded = name in ("burst_intensity", "graded_spikes_factor") and self.__dict__.get("layout")
        if folded:
            raise AttributeError(
                f"{name} was folded into the weights of the next layer; set it before decouple(net), or use "
                "decouple(net, fold=False)"
            )
        if isinstance(getattr(type(self), name, None), property):
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Register the copy with snnTorch, whose reset and detach utilities go through a list of neurons."""
        super().__setstate__(state)
        register_copy(self)

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
        (potentials included, without their graph) and mode.  ``snntorch.utils.reset`` and
        `snn_ext.snntorch.reset` reset it.

    Raises
    ------
    ValueError
        There is no `LIFB`; or its bursts cannot be folded because they feed something that is not linear
        (says what and where), or because intensities differ between neurons that a convolution weighs
        alike.
    NotImplementedError
        A `LIFB` with inhibition, a quantised state, or a ``subtract`` reset without `reset_delay`.
    """
    new = decoupling.decoupled(
        net,
        DecoupledLIFB,
        decoupling.Kinds(LIFB, (snn.SpikingNeuron,)),
        fold,
        returns_tuple=lambda lifb: not lifb.init_hidden or lifb.output,
        factor=lambda lifb: lifb.graded_spikes_factor,
    )
    known = {id(neuron) for neuron in snn.SpikingNeuron.instances}
    for module in new.modules():  # a copy of a native neuron is unknown to snnTorch's utilities
        native = isinstance(module, snn.SpikingNeuron) and not isinstance(module, (Neuron, DecoupledLIFB))
        if native and id(module) not in known:
            register_copy(module)
    return new


def _check(lifb: LIFB) -> None:
    for wrong, what in ((lifb.inhibition, "inhibition=True"), (bool(lifb.state_quant), "state_quant")):
        if wrong:
            raise _refusal(what)
    _check_reset(lifb.reset_mechanism, lifb.reset_delay)


def _check_reset(mechanism: str, delay: bool) -> None:
    if mechanism == "subtract" and not delay:
        raise _refusal("reset_mechanism='subtract' with reset_delay=False")


def _refusal(what: str) -> NotImplementedError:
    return NotImplementedError(
        f"a LIFB with {what} cannot be decoupled: a pair of snn.Leaky would do something else; "
        "build it without"
    )
