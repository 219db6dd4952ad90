"""How images are shown to a spiking network, step by step: as random spikes, or as they are."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

CODINGS = ("poisson", "direct")
LARGEST = 2**22
"""Elements that a layer's sequence may have: 16 MiB in float32, for caches (128 MiB take twice as long)."""


def poisson(images: Tensor, steps: int, generator: torch.Generator | None = None) -> Tensor:
    """Return spikes of shape (steps, *images.shape): each 1 with the probability that its pixel gives.

    As ``snntorch.spikegen.rate`` and SpikingJelly's ``PoissonEncoder`` draw them.

    Raises
    ------
    ValueError
        Images outside [0, 1].
    """
    check_images("images", images)
    uniform = torch.rand(
        (steps, *images.shape), generator=generator, dtype=images.dtype, device=images.device
    )
    return (uniform < images).to(images.dtype)


def parts(
    images: Tensor, steps: int, coding: str, largest: int, generator: torch.Generator | None = None
) -> Iterator[Tensor]:
    """Yield `steps` steps of coded `images` in parts of at most `largest` steps."""
    if len(images) == 0:
        raise ValueError("images is empty; give at least one image")
    if coding == "poisson":
        check_images("images", images)
    for start in range(0, steps, largest):
        length = min(largest, steps - start)
        yield (
            images.expand(length, *images.shape) if coding == "direct" else poisson(images, length, generator)
        )


def at_most(widest: int, samples: int) -> int:
    """Return how many steps of a batch may run at once through layers of at most `widest` neurons."""
    return max(1, LARGEST // max(1, widest * samples))


def check_images(name: str, images: Tensor) -> None:
    """Raise unless `images` can be probabilities."""
    low, high = float(images.min()), float(images.max())
    if not 0 <= low <= high <= 1:
        wrong = low if not low >= 0 else high
        raise ValueError(
            f"{name} has a value of {wrong:g}, outside [0, 1], which is no probability of a spike; scale "
            "the images to [0, 1] (a normalisation can be a BatchNorm2d in the network), or use "
            "coding='direct'"
        )


def check_coding(coding: str) -> None:
    """Raise unless `coding` is one of `CODINGS`."""
    if coding not in CODINGS:
        raise ValueError(f"coding={coding!r} is not known; use 'poisson' or 'direct'")


def check_steps(steps: int) -> None:
    """Raise unless `steps` is a number of steps."""
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"the number of steps is {steps!r}; it must be a whole number of at least 1")


def check_seed(seed: int) -> None:
    """Raise unless `seed` can start a generator."""
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed={seed!r} must be a whole number")
