"""ANN-to-SNN conversion into SpikingJelly: a recipe for its converter, and fast runs of what comes out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from spikingjelly.activation_based import base, functional, layer, neuron
from torch import Tensor, fx, nn

from .. import checks
from ..conversion import Options, Report, graph, report, simulate
from ..conversion.convert import Conversion
from ..conversion.spiking import MaxPool, Spiking, converted
from ..conversion.words import known_words
from ._compat import Converter, Recipe

__all__ = ["Converter", "L4Recipe", "SpikeCountMaxPool", "accuracy_curve", "conversion_report", "multi_step"]

_LAYERS: tuple[type, ...] = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.Flatten,
)


class L4Recipe(Recipe):
    r"""Recipe for ``ann2snn.Converter``: a trained ReLU network becomes one of ``IFNode``.

    Every ReLU becomes a layer of neurons that fire at 1 and emit 1; thresholds, weight adjustment and offsets
    are folded into the weights and biases (where there are none, as between residual branches, into a
    `ChannelAffine`).  What follows the last ReLU stays as it is: its output at a step is a current, and the
    sum over steps is the prediction.

    Parameters
    ----------
    dataloader : iterable of batches
        Inputs like those of the training set: tensors, or tuples that start with one.  A few hundred will do.
    tau : float, default inf
        Membrane time constant in steps; finite, neurons are ``LIFNode(tau, decay_input=False)``.
    reset : {"subtract", "zero"}, default "subtract"
        What a spike does to the potential (``v_reset=None`` or ``v_reset=0.0``).
    T : int, default 16
        For how many steps offsets are fitted: as many as the network will run.
    neuron_factory : callable, optional
        Makes the neurons instead: called without arguments for each layer, it returns a neuron with
        ``v_threshold=1``, such as ``lambda: LIFBNode(math.inf, False, 1.0, None)``.  `initial` is set as the
        reset value of its ``v``.  Offsets are fitted as for ``IFNode`` all the same.
    **options
        `snn_ext.conversion.Options`: ``rule``, ``strength``, ``control``, ``fit_offsets``, ``percentile``,
        ``per_channel``, ``initial``, ``coding``, ``seed``, ``progress``.

    Raises
    ------
    NotImplementedError
        When converting: a layer or forward that cannot be converted; names it and its place.
    TypeError, ValueError
        Naming the argument, the value and the remedy.

    Notes
    -----
    The converted weights are frozen (``requires_grad`` is False; those of the native recipes are not), so
    that an optimizer does not change them unasked; ``net.requires_grad_(True)`` lets all of them learn,
    through the neurons' surrogates (`multi_step` runs without gradients).

    A network that ends in a softmax, log-softmax or sigmoid is converted without it: the prediction is
    the same, and its values are those of the mean of the outputs over steps.

    The converted network is a ``torch.fx.GraphModule`` of SpikingJelly's own layers, in single- or multi-step
    mode (``functional.set_step_mode``), reset by ``functional.reset_net``.  Max pooling becomes
    `SpikeCountMaxPool`.  The ANN is not touched.  SpikingJelly 0.0.0.0.14 has no recipes; there, use the
    `Converter` of this module, which is the native one elsewhere.

    Source: arXiv:2111.09446 for the use of the L4 norm; the rules and the defaults are ours, and
    ``tutorials/04_l4_conversion`` measures them.

    Examples
    --------
    >>> import torch
    >>> from spikingjelly.activation_based import functional
    >>> _ = torch.manual_seed(0)
    >>> ann = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> images = torch.rand(32, 4)
    >>> net = Converter(L4Recipe(images.split(16), progress=False)).convert(ann)
    >>> functional.set_step_mode(net, "m")
    >>> net(images.expand(16, 32, 4)).mean(0).shape
    torch.Size([32, 2])
    """

    @known_words(
        decay="tau, the time constant in steps",
        beta="tau, the time constant in steps",
        reset_mechanism="reset",
        v_reset="reset: None is 'subtract', 0.0 is 'zero'",
        steps="T",
        num_steps="T",
        calibration="dataloader",
    )
    def __init__(
        self,
        dataloader: Iterable[Any],
        *,
        tau: float = math.inf,
        reset: str = "subtract",
        T: int = 16,
        neuron_factory: Callable[[], nn.Module] | None = None,
        **options: Any,
    ) -> None:
        tau = checks.number_or_tensor("tau", tau)  # type: ignore[assignment]
        if isinstance(tau, Tensor) or not tau > 1:
            raise ValueError(f"tau={tau} must be a number above 1, in steps; use math.inf for IFNode")
        if not checks.is_whole(T):
            raise ValueError(f"T={checks.shown(T)} must be a whole number of at least 1")
        if neuron_factory is not None and not callable(neuron_factory):
            raise TypeError(f"neuron_factory must be callable, got {type(neuron_factory).__name__}")
        if neuron_factory is not None and (not math.isinf(tau) or reset != "subtract"):
            raise ValueError(
                f"neuron_factory makes neurons with a tau and a reset of their own; leave out tau={tau:g} "
                f"and reset={reset!r}"
            )
        super().__init__()
        self.dataloader, self.tau, self.neuron_factory = dataloader, tau, neuron_factory
        self.options = Options(decay=1 - 1 / tau, reset=reset, steps=T, **options)
        self._conversion: Conversion | None = None

    def before_trace(self, converter: Any, ann: nn.Module) -> nn.Module:
        """Read and calibrate a copy of `ann`."""
        own = self.options
        self._conversion = Conversion(
            ann, self.dataloader, coding=own.coding, progress=own.progress, device=converter.device
        )
        return self._conversion.reading

    def replace(self, converter: Any, fx_model: fx.GraphModule) -> fx.GraphModule:
        """Return the spiking network of SpikingJelly's layers."""
        assert self._conversion is not None
        net = self._conversion.network(self.options)
        for name, child in list(net.named_children()):
            setattr(net, name, self._layer(child))
        return net.to(converter.device)

    def finalize(self, converter: Any, fx_model: fx.GraphModule) -> nn.Module:
        """Let go of the calibration data."""
        self._conversion = None
        return fx_model

    def _layer(self, child: nn.Module) -> nn.Module:
        if isinstance(child, Spiking):
            return self._neuron(child)
        if isinstance(child, MaxPool):
            return SpikeCountMaxPool(child.pool)
        if isinstance(child, graph.Affine):
            return ChannelAffine(child.factor, child.shift)
        for kind in _LAYERS:
            if type(child) is kind:
                return _native(child)
        raise AssertionError(f"no layer of SpikingJelly for {type(child).__name__}")

    def _neuron(self, spec: Spiking) -> nn.Module:
        v_reset = None if spec.reset == "subtract" else 0.0
        if self.neuron_factory is not None:
            try:
                node = self.neuron_factory()
            except TypeError as error:
                raise TypeError(f"neuron_factory failed ({error}); it is called without arguments") from error
            threshold = getattr(node, "v_threshold", None)
            if not isinstance(node, base.MemoryModule) or threshold is None:
                raise TypeError(
                    f"neuron_factory must return a SpikingJelly neuron, got {type(node).__name__}"
                )
            if not bool((torch.as_tensor(threshold) == 1).all()):
                raise ValueError(
                    f"neuron_factory returned a {type(node).__name__} with "
                    f"v_threshold={checks.brief(threshold)}; build it "
                    "with v_threshold=1.0, for thresholds are folded into the weights"
                )
            if spec.initial and getattr(node, "v_reset", None) is not None:
                raise ValueError(
                    f"neuron_factory returned a {type(node).__name__} with v_reset={node.v_reset}, which "
                    "forgets where it started; build it with v_reset=None, or convert with initial=0.0"
                )
            if hasattr(node, "converted"):
                raise ValueError(
                    "neuron_factory returned the same neuron twice; let it build a new one each time"
                )
        elif math.isinf(self.tau):
            node = neuron.IFNode(v_threshold=1.0, v_reset=v_reset)
        else:
            node = neuron.LIFNode(self.tau, decay_input=False, v_threshold=1.0, v_reset=v_reset)
        if spec.initial:
            node.set_reset_value("v", spec.initial)
            node.v = spec.initial
        node.converted = spec.converted
        return node


def _native(module: nn.Module) -> nn.Module:
    """Return SpikingJelly's layer of the same name, with the same settings and weights."""
    native = getattr(layer, type(module).__name__)
    new = native.__new__(native)
    new.__dict__.update(module.__dict__)
    new.step_mode = "s"
    return new


class ChannelAffine(graph.Affine, base.StepModule):
    """Channel by channel ``factor * x + shift``: between residual branches whose spikes differ in worth."""

    def __init__(self, factor: Tensor, shift: Tensor, step_mode: str = "s") -> None:
        super().__init__(factor, shift)
        self.step_mode = step_mode

    def forward(self, x: Tensor) -> Tensor:
        if self.step_mode == "s":
            return super().forward(x)
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class SpikeCountMaxPool(base.MemoryModule):
    """Max pooling of spike counts: after every step it has emitted as many as the busiest neuron of each
    window.

    Parameters
    ----------
    pool : nn.Module
        The max pooling of the ANN.
    step_mode : {"s", "m"}, default "s"
        As everywhere.
    """

    count: float | Tensor

    def __init__(self, pool: nn.Module, step_mode: str = "s") -> None:
        super().__init__()
        self.pool = pool
        self.step_mode = step_mode
        self.register_memory("count", 0.0)

    def single_step_forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Run one step."""
        return self.multi_step_forward(x.unsqueeze(0)).squeeze(0)

    def multi_step_forward(self, x_seq: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Run all steps of `x_seq`, shape (T, N, ...)."""
        count = self.count
        known = isinstance(count, Tensor) and count.shape == x_seq.shape[1:]
        y_seq, self.count = simulate.fire_max_pool(self, x_seq, count if known else None)  # type: ignore[arg-type]
        return y_seq


def _fire(module: Any, x_seq: Tensor, state: Any) -> tuple[Tensor, None]:
    """Run a layer over all steps: plain neurons fused, all others in their own multi-step mode."""
    if _is_plain(module):
        v = module.v
        if not isinstance(v, Tensor):
            v = x_seq.new_full(x_seq.shape[1:], float(v))
        elif v.shape != x_seq.shape[1:]:
            raise ValueError(
                f"{type(module).__name__} holds a potential of shape {tuple(v.shape)}, but one step of the "
                f"input has shape {tuple(x_seq.shape[1:])}; call functional.reset_net(net) between batches"
            )
        y_seq, module.v = simulate.integrate(
            x_seq,
            v,
            initial=0.0,
            decay=1 - 1 / module.tau if type(module) is neuron.LIFNode else 1.0,
            reset="subtract" if module.v_reset is None else "zero",
        )
        return y_seq, None
    mode = module.step_mode
    module.step_mode = "m"
    try:
        return module(x_seq), None
    finally:
        module.step_mode = mode


def _is_plain(module: Any) -> bool:
    """Whether a layer is one of the neurons that `simulate.integrate` runs."""
    return (
        type(module) in (neuron.IFNode, neuron.LIFNode)
        and not getattr(module, "decay_input", False)
        and module.v_threshold == 1
        and module.v_reset in (None, 0.0)
        and not module.store_v_seq
    )


_FIRE: dict[type, simulate.Fire] = {base.StepModule: _fire}


def multi_step(net: fx.GraphModule, x_seq: Tensor) -> Tensor:
    """Run a network from `L4Recipe` over all steps of `x_seq`, shape (T, N, ...), without gradients.

    Equal to calling it in step mode ``"m"``, whatever mode it is in, and faster: ``IFNode`` and ``LIFNode``
    run through the fused operator (forward hooks on them are not called).  Potentials are carried on in the
    neurons' ``v``, so a long sequence can be run in parts; ``functional.reset_net`` between samples.

    Returns
    -------
    Tensor, shape (T, N, outputs)
    """
    _check(net)
    return simulate.multi_step(net, _FIRE, x_seq)


@known_words(steps="T", num_steps="T", dataloader="loader")
def accuracy_curve(
    net: fx.GraphModule,
    loader: Iterable[tuple[Tensor, Tensor]],
    T: int,
    *,
    coding: str | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Tensor:
    """Return the fraction of right predictions after each step, shape (T,), from one run.

    Parameters
    ----------
    net : fx.GraphModule
        From `L4Recipe`; it is reset before every batch and at the end.
    loader : iterable of (images, labels)
    T : int
        Number of steps.  Memory does not grow with it.
    coding : {"poisson", "direct"}, optional
        Show images as ``encoding.PoissonEncoder`` draws them, or as they are; by default as `net` was
        fitted for.
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
        net, _FIRE, lambda: functional.reset_net(net), loader, T, coding=coding, seed=seed, progress=progress
    )


@known_words(steps="T", num_steps="T", loader="images, one batch")
def conversion_report(
    net: fx.GraphModule,
    images: Tensor,
    T: int | None = None,
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
        From `L4Recipe`.
    images : Tensor, shape (N, ...)
    T : int, optional
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
    functional.reset_net(net)
    try:
        return report.measure(net, _FIRE, images, T, labels, coding, seed)
    finally:
        functional.reset_net(net)


def _check(net: Any) -> None:
    if not (
        isinstance(net, fx.GraphModule)
        and converted(net)
        and any(isinstance(child, base.MemoryModule) for child in net.children())
    ):
        raise TypeError(f"net must come from a Converter with an L4Recipe, got {type(net).__name__}")
