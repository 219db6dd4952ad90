"""Simulating converted networks: all layers over many steps at once, in bounded memory.

Layers without a memory see the steps as one large batch; neurons run through the fused operator; the
potentials are carried from one part of the steps to the next.  So one run gives the prediction after every
step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from .. import checks, functional
from ..coding import at_most, check_coding, check_seed, check_steps, parts
from ..neurons.lifb import LIFB
from ..surrogate import ATan
from ..terminal import track
from .spiking import MaxPool, Spiking, converted, fitted

Fire = Callable[[Any, Tensor, Any], tuple[Tensor, Any]]
"""Runs a layer with a memory: (layer, input of shape (T, N, ...), its state or None) to (output, state)."""

_STRICT, _SOFT = ATan(strict=True), ATan()


class Run:
    """Runs a network of layers over parts of a sequence, keeping the states of its neurons in between.

    Parameters
    ----------
    net : fx.GraphModule
        A converted network.
    fire : dict of type to callable
        How to run a layer that has a memory.
    see : callable, optional
        Called with the name of a neuron layer, its input and its output, both of shape (T, N, ...).
    """

    def __init__(
        self,
        net: fx.GraphModule,
        fire: dict[type, Fire],
        see: Callable[[str, Tensor, Tensor], None] | None = None,
    ) -> None:
        self.net, self.fire, self.see = net, fire, see
        self.layers = dict(net.named_modules())
        self.states: dict[str, Any] = {}
        self.last = {
            source: node for node in net.graph.nodes for source in node.all_input_nodes
        }  # the last user: then the value can be dropped

    @torch.no_grad()
    def __call__(self, x_seq: Tensor) -> Tensor:
        """Return what the network gives at every step of `x_seq`, shape (T, N, ...)."""
        values: dict[fx.Node, Tensor] = {}
        for node in self.net.graph.nodes:
            if node.op == "placeholder":
                values[node] = x_seq
            elif node.op == "output":
                return values[node.args[0]]
            elif node.op == "call_module":
                values[node] = self._layer(str(node.target), values[node.args[0]])
            else:
                values[node] = node.target(*map_arg(node.args, values.__getitem__), **node.kwargs)
            for source in node.all_input_nodes:
                if self.last[source] is node:
                    del values[source]
        raise AssertionError("a graph has an output")

    def _layer(self, name: str, x_seq: Tensor) -> Tensor:
        layer = self.layers[name]
        for kind, fire in self.fire.items():
            if isinstance(layer, kind):
                y_seq, self.states[name] = fire(layer, x_seq, self.states.get(name))
                if self.see is not None:
                    self.see(name, x_seq, y_seq)
                return y_seq
        return layer(x_seq.flatten(0, 1)).unflatten(0, x_seq.shape[:2])


def integrate(
    x_seq: Tensor, v: Tensor | None, *, initial: float, decay: float, reset: str, late: bool = False
) -> tuple[Tensor, Tensor]:
    """Run integrate-and-fire neurons of threshold 1 through the fused operator.

    With `late`, as snnTorch does it: fire above the threshold only, subtract at the next step, and give
    potentials before the reset.
    """
    if v is None and initial:
        v = x_seq.new_full(x_seq.shape[1:], initial)
    mode = "hard" if reset == "zero" else "late" if late else "soft"
    y_seq, v, *_ = functional.run(
        LIFB(mode),
        x_seq,
        v,
        {"decay": decay, "gain": 1.0, "threshold": 1.0, "burst_threshold": 2.0, "burst_intensity": 1.0},
        surrogate=_STRICT if late else _SOFT,
        reset_delay=late,
    )
    return y_seq, v


def fire_spiking(layer: Spiking, x_seq: Tensor, v: Tensor | None) -> tuple[Tensor, Tensor]:
    """Run `Spiking` neurons."""
    return integrate(x_seq, v, initial=layer.initial, decay=layer.decay, reset=layer.reset, late=layer.late)


def fire_max_pool(layer: Any, x_seq: Tensor, count: Tensor | None) -> tuple[Tensor, Tensor]:
    """Run a max pooling of spike counts."""
    counts = x_seq.cumsum(0) if count is None else x_seq.cumsum(0) + count
    pooled = layer.pool(counts.flatten(0, 1)).unflatten(0, x_seq.shape[:2])
    before = torch.zeros_like(pooled[:1]) if count is None else layer.pool(count).unsqueeze(0)
    return torch.diff(pooled, dim=0, prepend=before), counts[-1]


CORE: dict[type, Fire] = {Spiking: fire_spiking, MaxPool: fire_max_pool}


def at_once(net: fx.GraphModule, samples: int) -> int:
    """Return how many steps of a batch of `samples` may run at once, told from the layers of neurons."""
    return at_most(max(math.prod(layer.shape) for layer in converted(net).values()), samples)


def multi_step(net: fx.GraphModule, fire: dict[type, Fire], x_seq: Tensor) -> Tensor:
    """Return what `net` gives at every step of `x_seq`, shape (T, N, ...), run in parts that caches hold."""
    if not isinstance(x_seq, Tensor) or x_seq.dim() < 3 or x_seq.shape[0] == 0 or x_seq.shape[1] == 0:
        found = f"shape {tuple(x_seq.shape)}" if isinstance(x_seq, Tensor) else type(x_seq).__name__
        raise ValueError(
            f"x_seq must be a tensor of shape (T, N, ...) with T and N of at least 1, got {found}"
        )
    run = Run(net, fire)
    return torch.cat([run(part) for part in x_seq.split(at_once(net, x_seq.shape[1]))])


def accuracy_curve(
    net: fx.GraphModule,
    fire: dict[type, Fire],
    reset: Callable[[], None],
    loader: Iterable[tuple[Tensor, Tensor]],
    steps: int,
    *,
    coding: str | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Tensor:
    """Return the fraction of right predictions of `net` after each step; `reset` runs before every batch.

    Without `coding`, images are shown as the network was fitted for.
    """

    progress = checks.flag("progress", progress)
    checks.batches("loader", loader)

    def fresh() -> Run:
        reset()
        return Run(net, fire)

    device = next((p.device for p in net.parameters()), torch.device("cpu"))
    try:
        return curve(
            fresh,
            (tuple(x.to(device) for x in _pair(batch)) for batch in track(loader, **_bar(progress))),  # type: ignore[misc]
            steps,
            coding=fitted(net).coding if coding is None else coding,
            seed=seed,
            largest=lambda samples: at_once(net, samples),
        )
    finally:
        reset()


def curve(
    run: Callable[[], Callable[[Tensor], Tensor]],
    loader: Iterable[tuple[Tensor, Tensor]],
    steps: int,
    *,
    coding: str = "poisson",
    seed: int = 0,
    largest: Callable[[int], int] = lambda samples: 8,
) -> Tensor:
    """Return the fraction of right predictions after each step, from one run; shape (steps,).

    `run` makes a fresh callable from a part of the steps to the network's output at each of them; `largest`
    gives the steps of a part for a number of samples.
    """
    check_coding(coding)
    check_steps(steps)
    check_seed(seed)
    right, seen, generator = torch.zeros(steps), 0, None
    for images, labels in loader:
        generator = generator or torch.Generator(images.device).manual_seed(seed)
        forward, total, start = run(), None, 0
        for x_seq in parts(images, steps, coding, largest(len(images)), generator):
            sums = forward(x_seq).cumsum(0)
            sums = sums if total is None else sums + total
            total = sums[-1]
            check_labels(labels, total)
            right[start : start + len(sums)] += (sums.argmax(2) == labels).sum(1).cpu()
            start += len(sums)
        seen += len(labels)
    if not seen:
        raise ValueError("loader is empty; give at least one batch of images and labels")
    return right / seen


def check_labels(labels: Tensor, outputs: Tensor) -> None:
    """Raise unless `labels` are one class for each sample of `outputs`, shape (N, classes)."""
    if outputs.dim() != 2 or outputs.shape[1] < 2:
        raise ValueError(
            f"the network gives outputs of shape {tuple(outputs.shape)}, but accuracy is told from one value "
            "for each of at least two classes, shape (N, classes); compare its outputs (multi_step) with "
            "your targets instead"
        )
    if labels.shape != outputs.shape[:1]:
        raise ValueError(
            f"labels has shape {tuple(labels.shape)}, but the images of its batch give outputs of shape "
            f"{tuple(outputs.shape)}; give one label an image, shape ({len(outputs)},)"
        )
    wrong = labels[(labels < 0) | (labels >= outputs.shape[1])]
    if len(wrong):
        raise ValueError(
            f"labels has a value of {wrong[0].item():g}, but the network's {outputs.shape[1]} classes are "
            f"labelled 0 to {outputs.shape[1] - 1}"
        )


def _pair(batch: Any) -> tuple[Tensor, Tensor]:
    if not (
        isinstance(batch, (tuple, list)) and len(batch) == 2 and all(isinstance(x, Tensor) for x in batch)
    ):
        found = type(batch).__name__
        raise TypeError(
            f"loader must yield pairs of tensors, images and labels, got a {found}; give e.g. "
            "[(images, labels)] or a DataLoader"
        )
    return batch[0], batch[1]


def _bar(progress: bool) -> dict[str, Any]:
    return {"desc": "simulate", "unit": "batch", "disable": not progress, "leave": False}


__all__ = ["CORE", "Run", "accuracy_curve", "curve", "integrate", "multi_step"]
