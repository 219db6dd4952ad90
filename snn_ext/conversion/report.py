"""A table of what a conversion did: scales, L4 norms, firing rates, silent and saturated neurons, energy."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, fx

from ..coding import check_coding, check_seed, check_steps, parts
from ..energy.report import INPUT, EnergyReport, measure_energy, table
from .simulate import Fire, Run, at_once, check_labels
from .spiking import Converted, converted, fitted

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

    steps: int
    """Steps for which it ran."""
    coding: str
    """The input at each of them, ``"poisson"`` or ``"direct"``."""
    accuracy: float | None = None
    """Fraction of right predictions after these steps, where labels were given."""
    energy: EnergyReport | None = None
    """What the network spent, where it can be counted."""
    uncounted: str = ""
    """Why it cannot."""

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
        return "\n".join([*table(head, rows), *self._outcome()])

    def _outcome(self) -> list[str]:
        """Return what it came to: the energy, beside that of the ReLU network, at the accuracy reached."""
        reached = "" if self.accuracy is None else f"accuracy {100 * self.accuracy:.1f} % "
        steps = f"{self.steps} step{'' if self.steps == 1 else 's'}"
        line = f"{reached}after {steps}, {INPUT[self.coding]}"
        if self.energy is None:
            return [line, f"energy is not counted: {self.uncounted}"]
        spent, before = self.energy.total_pj, self.energy.twin_pj
        times = f"{spent / before:.2f} times the ReLU network's {before / 1e3:,.2f} nJ"
        return [line, f"energy {spent / 1e3:,.2f} nJ, {times}", self.energy.basis]


def measure(
    net: fx.GraphModule,
    fire: dict[type, Fire],
    images: Tensor,
    steps: int | None,
    labels: Tensor | None,
    coding: str | None,
    seed: int,
) -> Report:
    """Run `net` on `images` and return its report; by default for the steps and coding it was fitted for."""
    steps = fitted(net).steps if steps is None else steps
    coding = fitted(net).coding if coding is None else coding
    check_coding(coding)
    check_steps(steps)
    check_seed(seed)
    for name, value in (("images", images), ("labels", labels)):
        if not isinstance(value, Tensor) and not (name == "labels" and value is None):
            raise TypeError(
                f"{name} must be a tensor, got {type(value).__name__}; give one batch, not a loader"
            )
        if value is not None and (value.is_meta or not value.dim()):
            raise ValueError(
                f"{name} of shape {tuple(value.shape)} on {value.device}: give values, one batch"
            )
    images = images.to(next((p.device for p in net.parameters()), images.device))
    known = converted(net)
    counts: dict[str, Tensor] = {}

    def see(name: str, x_seq: Tensor, y_seq: Tensor) -> None:
        if name in known:
            counts[name] = counts.get(name, 0) + (y_seq != 0).sum(0)

    run = Run(net, fire, see)
    generator = torch.Generator(images.device).manual_seed(seed)
    outputs: Any = 0
    for x_seq in parts(images, steps, coding, at_once(net, len(images)), generator):
        outputs = outputs + run(x_seq).sum(0)
    report = Report(
        Layer(
            known[name],
            count[0].numel(),
            count.float().mean().item() / steps,
            (count.sum(0) == 0).float().mean().item(),
            (count.amax(0) > SATURATED * steps).float().mean().item(),
        )
        for name, count in counts.items()
    )
    report.steps, report.coding = steps, coding
    if labels is not None:
        labels = labels.to(outputs.device)
        check_labels(labels, outputs)
        report.accuracy = (outputs.argmax(1) == labels).float().mean().item()
    try:
        report.energy = measure_energy(net, [images], steps=steps, coding=coding, seed=seed, progress=False)
    except (NotImplementedError, TypeError, ValueError) as error:  # e.g. in half precision
        report.uncounted = str(error)
    return report
