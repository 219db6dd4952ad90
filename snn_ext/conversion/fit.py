"""Fitting input offsets on calibration data, layer by layer, so that firing rates match activations."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, fx

from .graph import per_channel, watching
from .simulate import CORE, Run, fire_spiking
from .spiking import Neurons, Spiking

HALVINGS = 10
"""Halvings of the interval that holds an offset: to a thousandth of the threshold."""


def fit_offsets(
    reading: fx.GraphModule,
    net: fx.GraphModule,
    layers: dict[str, Neurons],
    images: Tensor,
    x_seq: Tensor,
    shapes: dict[str, Tensor],
    by_channel: bool,
    tick: Callable[[], None] = lambda: None,
) -> None:
    """Set the `offset` of every one of `layers` so that its mean rate is that of the ANN's activations.

    One layer after another, each behind those already fitted.  An offset is a number times the layer's entry
    in `shapes`; with `by_channel`, every channel has a number of its own.

    Parameters
    ----------
    reading, net
        The ANN, and the spiking network assembled from it with `layers`, whose offsets are zero.
    images, x_seq
        Calibration images, and the same as a coded sequence.
    """
    wanted: dict[str, Tensor] = {}

    def see(name: str, activations: Tensor) -> None:
        wanted[name] = _rates(activations / per_channel(layers[name].worth, activations.dim()))

    with torch.no_grad(), watching(reading, see):
        reading(images)

    def fire(layer: Spiking, z_seq: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        name = names[layer]
        shape = shapes[name].expand(z_seq.shape[2])

        def rates(level: Tensor) -> tuple[Tensor, Tensor]:
            shifted = z_seq + per_channel(level * shape, z_seq.dim() - 1)
            y_seq, _ = fire_spiking(layer, shifted, None)
            return y_seq, y_seq.mean((0, 1, *range(3, y_seq.dim())))

        target = wanted[name]
        low = torch.full_like(target if by_channel else target.mean(), -1.0)
        high = -low
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            _, found = rates(middle)
            short = found < target if by_channel else found.mean() < target.mean()
            low, high = torch.where(short, middle, low), torch.where(short, high, middle)
        silent = (target == 0) | (target == 1)  # no offset can be told from these
        level = torch.where(silent, 0, (low + high) / 2) if by_channel else (low + high) / 2
        layers[name].offset = level * shape
        tick()
        return rates(level)[0], torch.zeros(())

    names = {layer: name for name, layer in net.named_children() if isinstance(layer, Spiking)}
    Run(net, {**CORE, Spiking: fire})(x_seq)


def _rates(activations: Tensor) -> Tensor:
    """Return the mean by channel of activations as rates, which no neuron can have above one."""
    return activations.clamp(max=1).mean((0, *range(2, activations.dim())))
