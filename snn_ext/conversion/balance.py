"""Threshold balancing: how large the activations of each layer and channel are, from calibration data."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, fx

from .. import checks
from .graph import watching

OCTAVE = 256
"""Bins of the histogram per factor of two: percentiles are exact to 0.3 %."""
LOWEST, HIGHEST = -32, 32
"""Activations are told apart between two to these powers."""


class Activations:
    """Statistics of one `Rectifier` over all calibration batches, by channel."""

    def __init__(self, channels: int) -> None:
        self.histogram = torch.zeros(channels, (HIGHEST - LOWEST) * OCTAVE, dtype=torch.int64)
        self.largest = torch.zeros(channels)
        self.count = 0
        """Activations a channel."""

    def add(self, activations: Tensor) -> None:
        """Count a batch of shape (N, C, ...)."""
        values = activations.detach().movedim(1, 0).flatten(1).float().cpu()
        channels, bins = self.histogram.shape
        self.largest = torch.maximum(self.largest, values.amax(1))
        self.count += values.shape[1]
        index = (values.log2().sub_(LOWEST).mul_(OCTAVE)).clamp_(0, bins - 1).long()
        index += torch.arange(channels).unsqueeze(1) * bins
        self.histogram += torch.bincount(index[values > 0], minlength=channels * bins).view(channels, bins)

    def percentile(self, fraction: float, per_channel: bool) -> Tensor:
        """Return the activation below which `fraction` of all lie: a number, or one a channel.

        Zeros count.  Where that percentile is zero it is a tenth of the largest activation instead, and where
        all are zero the layer's.
        """
        layer = _percentile(
            self.histogram.sum(0), self.count * len(self.largest), fraction, self.largest.max()
        )
        if not per_channel:
            return layer if layer > 0 else torch.ones(())
        found = torch.stack(
            [
                _percentile(histogram, self.count, fraction, largest)
                for histogram, largest in zip(self.histogram, self.largest, strict=True)
            ]
        )
        return torch.where(found > 0, found, layer if layer > 0 else torch.ones(()))


def _percentile(histogram: Tensor, count: int, fraction: float, largest: Tensor) -> Tensor:
    if fraction == 1 or not largest > 0:
        return largest
    above = histogram.flip(0).cumsum(0).flip(0)  # at or above each bin
    excess = (1 - fraction) * count
    reached = above > excess
    if not bool(reached.any()):
        return largest / 10
    value = 2.0 ** ((int(reached.nonzero()[-1]) + 0.5) / OCTAVE + LOWEST)
    return torch.minimum(largest, torch.tensor(value))


def calibrate(
    reading: fx.GraphModule, batches: Iterable[Tensor], tick: Callable[[], None] = lambda: None
) -> dict[str, Activations]:
    """Run all `batches` through `reading` and return the statistics of its `Rectifier` layers, by name."""
    found: dict[str, Activations] = {}

    def see(name: str, activations: Tensor) -> None:
        if not bool(torch.isfinite(activations).all()):
            raise ValueError(
                f"the ReLU at {getattr(reading, name).path!r} gives NaN or infinity on calibration data; "
                "look at the scale of the network's weights and inputs"
            )
        if name not in found:
            found[name] = Activations(activations.shape[1])
        found[name].add(activations)

    with torch.no_grad(), watching(reading, see):
        for batch in batches:
            reading(batch)
            tick()
    return found


def check_percentile(percentile: float) -> float:
    """Return `percentile` as a fraction in (0, 1], or raise."""
    value = checks.number_or_tensor("percentile", percentile)
    if isinstance(value, Tensor) or not 0 < value <= 1:
        raise ValueError(
            f"percentile={percentile} is outside (0, 1]; it is a fraction, e.g. 0.999 for the 99.9th "
            "percentile"
        )
    return value
