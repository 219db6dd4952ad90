"""How images are shown to a spiking network, step by step: as random spikes, or as they are."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from . import checks

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
    check_steps(steps)
    images = checks.floating("images", images)
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator or None, got {type(generator).__name__}")
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
    if not isinstance(images, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(images).__name__}")
    checks.floating(name, images)
    if images.numel() == 0 or images.is_meta:
        raise ValueError(
            f"{name} of shape {tuple(images.shape)} on {images.device} has no values; give images"
        )
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
    if not checks.is_one_of(coding, CODINGS):
        raise ValueError(f"coding={checks.shown(coding)} is not known; use 'poisson' or 'direct'")


def check_steps(steps: int) -> None:
    """Raise unless `steps` is a number of steps."""
    if not checks.is_whole(steps):
        raise ValueError(
            f"the number of steps is {checks.shown(steps)}; it must be a whole number of at least 1"
        )


def check_seed(seed: int) -> None:
    """Raise unless `seed` can start a generator."""
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed={checks.shown(seed)} must be a whole number")
    if not -(2**63) <= seed < 2**63:
        raise ValueError(f"seed={checks.shown(seed)} is too large; give a smaller whole number")
