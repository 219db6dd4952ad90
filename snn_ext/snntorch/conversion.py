"""ANN-to-SNN conversion into snnTorch: `convert`, and the converted network over many steps at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import snntorch as snn
from torch import Tensor, fx, nn

from .. import checks
from ..conversion import Options, Report, report, simulate
from ..conversion.convert import RESETS, prepare
from ..conversion.spiking import MaxPool, Spiking, converted
from ..conversion.words import known_words
from ..surrogate import ATan
from ._base import register_copy
from .neurons import SoftResetMPR, reset

__all__ = ["SpikeCountMaxPool", "accuracy_curve", "conversion_report", "convert", "multi_step"]


@known_words(
    decay="beta",
    tau="beta, the fraction of the potential kept per step",
    reset="reset_mechanism",
    v_reset="reset_mechanism",
    steps="num_steps",
    T="num_steps",
    dataloader="calibration",
    neuron_factory="nothing: neurons are snn.Leaky and SoftResetMPR; in SpikingJelly they can be chosen",
)
def convert(
    ann: nn.Module,
    calibration: Iterable[Any],
    *,
    beta: float = 1.0,
    reset_mechanism: str = "subtract",
    num_steps: int = 16,
    **options: Any,
) -> fx.GraphModule:
    r"""Convert a trained ReLU network into a network of ``snn.Leaky`` neurons.

    Every ReLU becomes a layer of neurons that fire at 1 and emit 1; thresholds, weight adjustment and offsets
    are folded into the weights and biases (where there are none, as between residual branches, into an
    `Affine`). What follows the last ReLU stays as it is: its output at a step is a current, and the sum over
    steps is the prediction.

    Parameters
    ----------
    ann : nn.Module
        What can be read: `snn_ext.conversion.graph`.  It is not touched.
    calibration : iterable of batches
        Inputs like those of the training set: tensors, or tuples that start with one (a ``DataLoader``).  A
        few hundred will do.
    beta : float in (0, 1], default 1.0
        Decay of the potential per step; 1 is integrate-and-fire.
    reset_mechanism : {"subtract", "zero"}, default "subtract"
        As in ``snn.Leaky``.
    num_steps : int, default 16
        For how many steps offsets are fitted: as many as the network will run.
    **options
        `snn_ext.conversion.Options`: ``rule``, ``strength``, ``control``, ``fit_offsets``, ``percentile``,
        ``per_channel``, ``initial``, ``coding``, ``seed``, ``progress``.

    Returns
    -------
    torch.fx.GraphModule
        Called once a step, or with `multi_step` on a sequence.  All layers are its direct children, so
        ``snntorch.utils.reset`` resets it.  Neurons are ``snn.Leaky`` itself with ``initial=0``.  Else they
        are `SoftResetMPR` without rectifier, a subclass of ``snn.Leaky`` that fires at ``1 - initial`` and
        subtracts 1: the same as to start at `initial`, from which its ``mem`` is counted.  (Half the
        threshold as a start and firing by rounding are one and the same.)  Max pooling becomes
        `SpikeCountMaxPool`.

    Raises
    ------
    NotImplementedError
        A layer or forward that cannot be converted; names it and its place.
    TypeError, ValueError
        Naming the argument, the value and the remedy.

    Notes
    -----
    The converted weights are frozen (``requires_grad`` is False), so that an optimizer does not change
    them unasked; ``net.requires_grad_(True)`` lets all of them learn, through the neurons' surrogates,
    when the network is called step by step (`multi_step` runs without gradients).

    A network that ends in a softmax, log-softmax or sigmoid is converted without it: the prediction is
    the same, and its values are those of the mean of the outputs over steps.

    `export_to_nir` takes networks converted with ``reset_mechanism="zero"``, which is the reset that NIR has,
    and refuses others.  Copies of the network are reset by `snn_ext.snntorch.reset`; ``snntorch.utils.reset``
    does not reach copies of ``snn.Leaky`` itself.

    Source: arXiv:2111.09446 for the use of the L4 norm; the rules and the defaults are ours, and
    ``tutorials/04_l4_conversion`` measures them.

    Examples
    --------
    >>> import torch, snntorch as snn
    >>> from snntorch import spikegen
    >>> _ = torch.manual_seed(0)
    >>> ann = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> images = torch.rand(32, 4)
    >>> net = convert(ann, images.split(16), progress=False)
    >>> spikes = spikegen.rate(images, num_steps=16)
    >>> reset(net)
    >>> prediction = torch.stack([net(x) for x in spikes]).mean(0)
    >>> reset(net)
    >>> torch.allclose(multi_step(net, spikes).mean(0), prediction)
    True
    """
    beta = checks.in_range("beta", beta, 0, 1, "it is the fraction of the potential kept per step")  # type: ignore[assignment]
    if isinstance(beta, Tensor) or beta == 0:
        raise ValueError(f"beta={checks.shown(beta)} must be a number above 0; use 1 for no leak")
    if not checks.is_whole(num_steps):
        raise ValueError(f"num_steps={checks.shown(num_steps)} must be a whole number of at least 1")
    if not checks.is_one_of(reset_mechanism, RESETS):
        raise ValueError(
            f"reset_mechanism={checks.shown(reset_mechanism)} is not known here; use 'subtract' or 'zero'"
        )
    net = prepare(
        ann,
        calibration,
        Options(decay=beta, reset=reset_mechanism, steps=num_steps, **options),
        late=True,
    )
    for name, layer in list(net.named_children()):
        if isinstance(layer, Spiking):
            setattr(net, name, _neuron(layer))
        elif isinstance(layer, MaxPool):
            setattr(net, name, SpikeCountMaxPool(layer.pool))
    device = next((p.device for p in net.parameters()), None)
    return net.to(device)


def _neuron(layer: Spiking) -> snn.Leaky:
    neuron: snn.Leaky
    if layer.initial:
        neuron = SoftResetMPR(1.0, 1.0 - layer.initial, init_hidden=True, mpr=False)
    else:  # with the default surrogate, in a form that can be pickled
        neuron = snn.Leaky(layer.decay, 1.0, ATan(strict=True), init_hidden=True, reset_mechanism=layer.reset)
    neuron.converted = layer.converted
    return neuron


class SpikeCountMaxPool(snn.Leaky):
    """Max pooling of spike counts: after every step it has emitted as many as the busiest neuron of each
    window.

    ``mem`` holds the number of spikes so far, and is reset as that of any ``snn.Leaky``, which this class is
    for the sake of snnTorch's utilities only.

    Parameters
    ----------
    pool : nn.Module
        The max pooling of the ANN.
    """

    mem: Tensor

    def __init__(self, pool: nn.Module) -> None:
        super().__init__(1.0, spike_grad=ATan(strict=True), init_hidden=True, reset_mechanism="none")
        self.pool = pool

    def forward(self, input_: Tensor) -> Tensor:
        """Run one step."""
        return self.multi_step(input_.unsqueeze(0)).squeeze(0)

    def multi_step(self, x_seq: Tensor) -> Tensor:
        """Run all steps of `x_seq`, shape (T, N, ...)."""
        count = self.mem if self.mem.shape == x_seq.shape[1:] else None
        y_seq, self.mem = simulate.fire_max_pool(self, x_seq, count)
        return y_seq

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Register the copy with snnTorch, whose reset goes through a list of neurons."""
        super().__setstate__(state)
        register_copy(self)


def _fire_leaky(layer: snn.Leaky, x_seq: Tensor, state: Any) -> tuple[Tensor, None]:
    y_seq, layer.mem = simulate.integrate(
        x_seq,
        layer.mem if layer.mem.shape == x_seq.shape[1:] else None,
        initial=0.0,
        decay=layer.beta.item(),
        reset="zero" if layer.reset_mechanism == "zero" else "subtract",
        late=True,
    )
    return y_seq, None


_FIRE: dict[type, simulate.Fire] = {
    SpikeCountMaxPool: lambda layer, x_seq, state: (layer.multi_step(x_seq), None),
    SoftResetMPR: lambda layer, x_seq, state: (layer.multi_step(x_seq), None),
    snn.Leaky: _fire_leaky,
}


def multi_step(net: fx.GraphModule, x_seq: Tensor) -> Tensor:
    """Run a network from `convert` over all steps of `x_seq`, shape (T, N, ...), without gradients.

    Equal to calling it T times, and much faster: layers without a memory see all steps as one batch, neurons
    run fused (forward hooks on ``snn.Leaky`` are not called).  Potentials are carried on in the neurons'
    ``mem``, so a long sequence can be run in parts; `reset` between samples.

    Returns
    -------
    Tensor, shape (T, N, outputs)
    """
    _check(net)
    return simulate.multi_step(net, _FIRE, x_seq)


@known_words(steps="num_steps", T="num_steps", dataloader="loader")
def accuracy_curve(
    net: fx.GraphModule,
    loader: Iterable[tuple[Tensor, Tensor]],
    num_steps: int,
    *,
    coding: str | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Tensor:
    """Return the fraction of right predictions after each step, shape (num_steps,), from one run.

    Parameters
    ----------
    net : fx.GraphModule
        From `convert`; it is reset before every batch and at the end.
    loader : iterable of (images, labels)
    num_steps : int
        Memory does not grow with it.
    coding : {"poisson", "direct"}, optional
        Show images as ``spikegen.rate`` draws them, or as they are; by default as `net` was fitted for.
    seed : int, default 0
        Of the spikes.
    progress : bool, default True
        Show a progress bar.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, the value and the remedy.
    """
    _check(net)
    return simulate.accuracy_curve(
        net, _FIRE, lambda: reset(net), loader, num_steps, coding=coding, seed=seed, progress=progress
    )


@known_words(steps="num_steps", T="num_steps", loader="images, one batch")
def conversion_report(
    net: fx.GraphModule,
    images: Tensor,
    num_steps: int | None = None,
    *,
    labels: Tensor | None = None,
    coding: str | None = None,
    seed: int = 0,
) -> Report:
    """Return a table of what the conversion did, layer by layer, as measured on `images`.

    Printed, it shows for each layer what a spike is worth, the mean and the spread of the L4 norms of its
    neurons' weights, offsets, firing rate, and the fractions of neurons that are dead (never fire) and
    saturated; below, the energy of an image over all steps beside that of the ReLU network, and with labels
    the accuracy it buys. The network is reset before and after.

    Parameters
    ----------
    net : fx.GraphModule
        From `convert`.
    images : Tensor, shape (N, ...)
    num_steps : int, optional
        Number of steps; by default as many as `net` was fitted for.
    labels : Tensor, shape (N,), optional
        Classes of the images.
    coding : {"poisson", "direct"}, optional
        Show images as random spikes, or as they are; by default as `net` was fitted for.
    seed : int, default 0
        Of the spikes.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, the value and the remedy.
    """
    _check(net)
    reset(net)
    try:
        return report.measure(net, _FIRE, images, num_steps, labels, coding, seed)
    finally:
        reset(net)


def _check(net: Any) -> None:
    if not (
        isinstance(net, fx.GraphModule)
        and converted(net)
        and any(isinstance(layer, snn.Leaky) for layer in net.children())
    ):
        raise TypeError(f"net must come from snn_ext.snntorch.convert, got {type(net).__name__}")
