"""A table of what a conversion did: scales, L4 norms, firing rates, silent and saturated neurons."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, fx

from .simulate import Fire, Run, at_once, check_coding, check_steps, parts
from .spiking import Converted, converted

SATURATED = 0.95
"""A neuron that fires in more than this fraction of the steps, for some sample, is saturated."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer of neurons: how it was converted, and how it fires."""

    converted: Converted
    neurons: int
    rate: float
    """Mean firing rate."""
    dead: float
    """Fraction of neurons that never fired."""
    saturated: float
    """Fraction of neurons that fired in more than 95 % of the steps for some sample."""


class Report(tuple[Layer, ...]):
    """The layers of a converted network in order; printed, it is a table."""

    def __str__(self) -> str:
        head = (
            "layer",
            "neurons",
            "a spike is worth",
            "L4 norm",
            "spread",
            "offset",
            "rate",
            "dead",
            "saturated",
        )
        rows = [
            (
                layer.converted.path,
                f"{layer.neurons:,}",
                f"{layer.converted.worth:.3g}",
                f"{layer.converted.l4_mean:.3f}",
                f"{layer.converted.l4_spread:.2f}",
                f"{layer.converted.offset:+.3f}",
                f"{layer.rate:.3f}",
                f"{100 * layer.dead:.1f} %",
                f"{100 * layer.saturated:.1f} %",
            )
            for layer in self
        ]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(pairs)
            )
            for pairs in (list(zip(row, widths, strict=True)) for row in (head, *rows))
        ]
        return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def measure(
    net: fx.GraphModule, fire: dict[type, Fire], images: Tensor, steps: int, coding: str, seed: int
) -> Report:
    """Run `net` on `images` and return its report."""
    check_coding(coding)
    check_steps(steps)
    images = images.to(next((p.device for p in net.parameters()), images.device))
    known = converted(net)
    counts: dict[str, Tensor] = {}

    def see(name: str, x_seq: Tensor, y_seq: Tensor) -> None:
        if name in known:
            counts[name] = counts.get(name, 0) + (y_seq != 0).sum(0)

    run = Run(net, fire, see)
    generator = torch.Generator(images.device).manual_seed(seed)
    for x_seq in parts(images, steps, coding, at_once(net, len(images)), generator):
        run(x_seq)
    layers = [
        Layer(
            known[name],
            count[0].numel(),
            count.float().mean().item() / steps,
            (count.sum(0) == 0).float().mean().item(),
            (count.amax(0) > SATURATED * steps).float().mean().item(),
        )
        for name, count in counts.items()
    ]
    return Report(layers)
