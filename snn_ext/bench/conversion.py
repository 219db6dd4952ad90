"""Converted networks: images a second, this package's beside SpikingJelly's own conversion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..conversion import poisson
from ..reproduce.networks import small_cnn, vgg

STEPS, BATCH = 16, 32
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "two convolutions, 28 x 28": (small_cnn, (1, 28, 28)),
    "six convolutions, 32 x 32": (vgg, (3, 32, 32)),
}
"""ReLU networks of random weights, and the size of an image."""
NATIVE = "SpikingJelly's RateCodingRecipe"
OURS = "multi_step"


def runs(kind: str, frameworks: list[str], device: torch.device) -> dict[str, Callable[[], None]]:
    """Return what runs a batch through each converted network, by name; the slowest ways come last."""
    build, size = NETWORKS[kind]
    torch.manual_seed(0)
    ann = build().eval().to(device)
    images = torch.rand(BATCH, *size, device=device)
    x_seq = poisson(images, STEPS)
    found: dict[str, Callable[[Tensor], Tensor]] = {}
    if "spikingjelly" in frameworks:
        found |= _spikingjelly(ann, images)
    if "snntorch" in frameworks:
        found |= _snntorch(ann, images)
    return {name: _run(forward, x_seq) for name, forward in found.items()}


def _spikingjelly(ann: nn.Module, images: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    from spikingjelly.activation_based import ann2snn, functional

    from .. import spikingjelly as face

    labels = torch.zeros(len(images))
    net = face.Converter(face.L4Recipe([images], progress=False)).convert(ann)
    functional.set_step_mode(net, "m")
    native: Any
    if hasattr(ann2snn, "RateCodingRecipe"):
        native = ann2snn.Converter(ann2snn.RateCodingRecipe([(images, labels)])).convert(ann)
        functional.set_step_mode(native, "m")
    else:
        native = ann2snn.Converter([(images, labels)])(ann)

    def by_itself(net: Any, stepped: bool) -> Callable[[Tensor], Tensor]:
        def forward(x_seq: Tensor) -> Tensor:
            functional.reset_net(net)
            return torch.stack([net(x) for x in x_seq]) if stepped else net(x_seq)

        return forward

    def fast(x_seq: Tensor) -> Tensor:
        functional.reset_net(net)
        return face.multi_step(net, x_seq)

    return {
        NATIVE: by_itself(native, not hasattr(ann2snn, "RateCodingRecipe")),
        "L4Recipe, step mode m": by_itself(net, stepped=False),
        f"L4Recipe, {OURS}": fast,
    }


def _snntorch(ann: nn.Module, images: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    from .. import snntorch as face

    net = face.convert(ann, [images], progress=False)

    def fast(x_seq: Tensor) -> Tensor:
        face.reset(net)
        return face.multi_step(net, x_seq)

    def stepped(x_seq: Tensor) -> Tensor:
        face.reset(net)
        return torch.stack([net(x) for x in x_seq])

    return {f"snnTorch convert, {OURS}": fast, "snnTorch convert, step by step": stepped}


def _run(forward: Callable[[Tensor], Tensor], x_seq: Tensor) -> Callable[[], None]:
    @torch.no_grad()
    def run() -> None:
        forward(x_seq)

    return run
