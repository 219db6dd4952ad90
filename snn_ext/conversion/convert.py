"""The steps of a conversion, in order: read, balance, adjust, assemble, fit."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from .. import checks
from ..coding import check_coding, check_images, check_seed, poisson
from ..energy import layers
from ..terminal import track
from . import balance, fit, weights
from .graph import Rectifier, read
from .spiking import Converted, Neurons, Spiking, assemble, input_norms

RESETS = ("subtract", "zero")
SAMPLE = 64
"""Images on which offsets are fitted, drawn from all calibration batches."""
MOST = 2**27
"""Elements that one layer's sequence may have while offsets are fitted: 512 MiB in float32."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How to convert; both faces take these by keyword, with these defaults.

    Parameters
    ----------
    rule : {"none", "scale", "equalize", "threshold", "bias"}, default "none"
        What the L4 norms of the weights change; see `snn_ext.conversion.weights`.
    strength : float or "fit", default 0.5
        Of the rule.  ``"fit"``, for ``rule="bias"`` only: for each layer the one with which its mean firing
        rate is that of the ANN's activations on calibration data.
    control : bool, default False
        Give every neuron the mean of its layer, so that nothing is left of the rule but its mean.  For
        experiments: what a rule does beyond its control is owed to the L4 norm.
    fit_offsets : bool, default True
        Add to the input of every channel, at each step, what makes its mean firing rate that of the ANN's
        activations, on 64 images drawn from the calibration data.  Channels that are silent there have none.
        Not with ``rule="bias"``, which is another choice of the same offsets.
    percentile : float in (0, 1], default 0.999
        A threshold is this percentile of the activations on calibration data, as a fraction.
    per_channel : bool, default True
        Whether each channel has a threshold of its own, or each layer.
    initial : float in [0, 1), optional
        Potential to start from, in thresholds.  By default 0.5 with reset by subtraction without leak; 0
        else, where nothing but 0 is accepted.
    reset : {"subtract", "zero"}, default "subtract"
        What a spike does to the potential.  Reset to zero loses what exceeds the threshold.
    decay : float in (0, 1], default 1.0
        What is kept of the potential per step; below 1 the neurons leak, and rates are lower than
        activations. (With a leak the frameworks subtract differently: SpikingJelly before the decay, snnTorch
        after it.)
    coding : {"poisson", "direct"}, default "poisson"
        How images will be shown, which is how offsets are fitted: as random spikes, at most one a step
        (Bernoulli trains, which the frameworks call Poisson; images in [0, 1]), or as they are at every step.
    steps : int, default 16
        For how many steps offsets are fitted: as many as the network will run.  They make up for what few
        steps lack, which is too much for many, and the other way round (in the study on CIFAR-10 20
        to 30 points).
    seed : int, default 0
        Of the spikes used for fitting.
    progress : bool, default True
        Show progress bars.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, the value and the remedy.
    """

    rule: str = "none"
    strength: float | str = 0.5
    control: bool = False
    fit_offsets: bool = True
    percentile: float = 0.999
    per_channel: bool = True
    initial: float | None = None
    reset: str = "subtract"
    decay: float = 1.0
    coding: str = "poisson"
    steps: int = 16
    seed: int = 0
    progress: bool = True

    def __post_init__(self) -> None:
        weights.check_rule(self.rule)
        if checks.is_one_of(self.strength, ("fit",)):
            if self.rule != "bias":
                raise ValueError(f"strength='fit' is for rule='bias', not for {self.rule!r}; give a number")
        elif isinstance(self.strength, str):
            raise ValueError(f"strength={self.strength!r} must be a number, or 'fit' with rule='bias'")
        else:
            weights.check_strength(self.strength)
        if self.rule == "bias" and self.fit_offsets:
            raise ValueError(
                "rule='bias' and fit_offsets=True both choose the offsets; use fit_offsets=False, or "
                "another rule"
            )
        balance.check_percentile(self.percentile)
        if not checks.is_one_of(self.reset, RESETS):
            raise ValueError(f"reset={checks.shown(self.reset)} is not known; use 'subtract' or 'zero'")
        decay = checks.in_range(
            "decay", self.decay, 0, 1, "it is the fraction of the potential kept per step"
        )
        if isinstance(decay, Tensor) or decay == 0:
            raise ValueError(
                f"decay={self.decay} must be a number above 0; use 1 for neurons that do not leak"
            )
        plain = self.reset == "subtract" and decay == 1
        if self.initial is None:
            object.__setattr__(self, "initial", 0.5 if plain else 0.0)
        initial = checks.in_range("initial", self.initial, 0, 1, "it is in thresholds")
        if isinstance(initial, Tensor) or initial == 1:
            raise ValueError(f"initial={self.initial} must be a number below 1, or neurons fire unasked")
        if initial and not plain:
            raise ValueError(
                f"initial={initial:g} needs reset='subtract' and decay=1: other neurons forget where they "
                "started; use initial=0"
            )
        check_coding(self.coding)
        for name in ("control", "fit_offsets", "per_channel", "progress"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name}={getattr(self, name)!r} must be True or False")
        check_seed(self.seed)
        if self.control and self.rule == "none":
            raise ValueError(
                "control=True needs a rule to be the control of; use another rule, or control=False"
            )
        if not checks.is_whole(self.steps):
            raise ValueError(f"steps={checks.shown(self.steps)} must be a whole number of at least 1")


def prepare(
    ann: nn.Module, calibration: Iterable[Any], options: Options, late: bool = False
) -> fx.GraphModule:
    """Return the spiking network of `ann`, with `Spiking` and `MaxPool` where a face puts its own layers.

    Parameters
    ----------
    ann : nn.Module
        A trained ReLU network; it is not touched.
    calibration : iterable of batches
        A batch is a tensor of inputs, or a tuple or list that starts with one.
    options : Options
        How to convert.
    late : bool, default False
        Whether neurons subtract as snnTorch's do.

    Returns
    -------
    fx.GraphModule
        Every `Spiking` with a `Converted` in its attribute ``converted``.
    """
    conversion = Conversion(ann, calibration, coding=options.coding, progress=options.progress)
    return conversion.network(options, late)


class Conversion:
    """A network that has been read and calibrated, from which several spiking networks can be made."""

    def __init__(
        self,
        ann: nn.Module,
        calibration: Iterable[Any],
        *,
        coding: str = "poisson",
        progress: bool = True,
        device: torch.device | None = None,
    ) -> None:
        if not isinstance(ann, nn.Module):
            raise TypeError(f"ann must be a torch.nn.Module, got {type(ann).__name__}")
        layers.refuse_spiking(ann)
        here = next((p.device for p in ann.parameters()), torch.device("cpu"))
        device = device or here
        batches = _inputs(calibration, device)
        first = next(batches, None)
        if first is None:
            raise ValueError("calibration is empty; give a loader with at least one batch of inputs")
        if coding == "poisson":
            check_images("calibration", first)
        self.reading = read(ann, first[:8].to(here)).to(device)
        kept = _Sample(SAMPLE)

        def seen() -> Iterator[Tensor]:
            for batch in itertools.chain((first,), batches):
                if coding == "poisson":
                    check_images("calibration", batch)
                kept.add(batch)
                yield batch

        try:
            total = len(calibration)  # type: ignore[arg-type]
        except TypeError:  # a stream has none
            total = None
        with track(total=total, desc="calibrate", unit="batch", disable=not progress, leave=False) as bar:
            self.activations = balance.calibrate(self.reading, seen(), bar.update)
        self.images = kept.images
        self.norms = input_norms(self.reading)
        self.limits = {
            name: layer.limit for name, layer in self.reading.named_children() if isinstance(layer, Rectifier)
        }
        self.shapes = {
            str(node.target): tuple(node.meta["shape"][1:])
            for node in self.reading.graph.nodes
            if str(node.target) in self.activations
        }

    def network(self, options: Options, late: bool = False) -> fx.GraphModule:
        """Return the spiking network that `options` ask for."""
        neurons = {name: self._neurons(name, options) for name in self.activations}
        dynamics: dict[str, Any] = {
            "initial": options.initial,
            "decay": options.decay,
            "reset": options.reset,
            "late": late
            and options.decay < 1,  # else the same, and so will be the offsets in both frameworks
        }
        net = assemble(self.reading, neurons, **dynamics)
        if options.fit_offsets or options.strength == "fit":
            self._fit(net, neurons, options)
            net = assemble(self.reading, neurons, **dynamics)
        for name, layer in net.named_children():
            if isinstance(layer, Spiking):
                layer.converted = self._described(layer.path, name, neurons[name], options)
        return net

    def _neurons(self, name: str, options: Options) -> Neurons:
        scale = self.activations[name].percentile(options.percentile, options.per_channel)
        limit = self.limits[name]  # no neuron may stand for more than a ReLU6 gives
        scale = scale.to(self.norms[name]).clamp(max=limit)
        norm = self.norms[name] / scale
        worth = unit = scale
        offset = torch.zeros_like(scale)
        if options.rule == "none" or options.strength == "fit":
            return Neurons(worth, unit, offset)
        strength = float(options.strength)

        def shared(values: Tensor) -> Tensor:
            return values.mean().expand_as(values) if options.control else values

        if options.rule == "bias":
            offset = -strength * shared(norm)
        elif options.rule == "threshold":
            unit = scale * shared(weights.threshold_factor(norm, strength))
        else:
            unit = scale / shared(weights.row_factor(norm, strength))
            if options.rule == "equalize":
                worth = unit = unit.clamp(max=limit)
        return Neurons(worth, unit, offset)

    def _fit(self, net: fx.GraphModule, layers: dict[str, Neurons], options: Options) -> None:
        shapes = {}
        for name, layer in layers.items():
            norm = self.norms[name] / layer.unit
            by_norm = options.rule == "bias" and not options.control and bool(norm.any())
            shapes[name] = norm / norm.mean() if by_norm else torch.ones_like(norm)
        widest = max(map(math.prod, self.shapes.values()))
        images = self.images[: max(1, MOST // (widest * options.steps))]
        if options.coding == "poisson":
            generator = torch.Generator(images.device).manual_seed(options.seed)
            x_seq = poisson(images, options.steps, generator)
        else:
            x_seq = images.expand(options.steps, *images.shape)
        with track(
            total=len(layers), desc="fit offsets", unit="layer", disable=not options.progress, leave=False
        ) as bar:
            fit.fit_offsets(
                self.reading,
                net,
                layers,
                images,
                x_seq,
                shapes,
                by_channel=options.fit_offsets,
                tick=bar.update,
            )

    def _described(self, path: str, name: str, neurons: Neurons, options: Options) -> Converted:
        norm = self.norms[name] / neurons.unit
        spread = norm.std(correction=0) / norm.mean() if bool(norm.any()) else torch.zeros(())
        return Converted(
            path,
            self.shapes[name],
            neurons.worth.mean().item(),
            norm.mean().item(),
            spread.item(),
            neurons.offset.mean().item(),
            options.steps,
            options.coding,
            tuple(self.images.shape[1:]),
        )


class _Sample:
    """A random sample of all images of all batches, each as likely as any other."""

    def __init__(self, size: int) -> None:
        self.size, self.seen = size, 0
        self.generator = torch.Generator().manual_seed(0)
        self.images = torch.empty(0)

    def add(self, batch: Tensor) -> None:
        room = max(0, self.size - self.seen)
        if room:
            self.images = (
                torch.cat([self.images.to(batch), batch[:room]]) if self.seen else batch[:room].clone()
            )
        for number, image in enumerate(batch[room:], self.seen + min(room, len(batch)) + 1):
            place = int(torch.randint(number, (), generator=self.generator))
            if place < self.size:
                self.images[place] = image
        self.seen += len(batch)


def _inputs(calibration: Iterable[Any], device: torch.device | None) -> Iterator[Tensor]:
    """Yield the inputs of each batch that holds any."""
    if isinstance(calibration, Tensor) or not isinstance(calibration, Iterable):
        raise TypeError(
            "calibration must be a loader, that is, an iterable of batches, got "
            f"{type(calibration).__name__}; for a tensor of images give images.split(64)"
        )
    for batch in calibration:
        inputs = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
        if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
            found = inputs.dtype if isinstance(inputs, Tensor) else type(inputs).__name__
            raise TypeError(
                "calibration must yield tensors of floating point, or tuples that start with one, got "
                f"{found}"
            )
        if not bool(torch.isfinite(inputs).all()):
            raise ValueError("calibration contains NaN or infinity; give finite inputs")
        if len(inputs):
            yield inputs.to(device)
