"""The energy study: accuracy against energy, on paths of a growing penalty.

For each kind of neuron and each seed one network is trained without penalty.  From there every arm takes a
path of its own: stages of a short training, each with a stronger penalty than the last, measured after each
on the test images.  A penalty is weighted by what it was at the start of the path, so that all have the same
grid of strengths, the same images in the same order, and the same number of stages; the control takes them
all without penalty.

Energy is that of the spikes, from `SynapticPenalty` with p = 1, which is the count of synaptic operations:
0.9 pJ each, and 4.6 pJ where the spikes are graded.  The first convolution meets the image, once; it costs
the same in all networks, and is left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..energy import BalancedSpikePenalty, SynapticPenalty, TotalSpikePenalty
from ..terminal import RefusedError
from . import store
from .data import Images, find, load
from .training import BATCH, train

STEPS = 4
MAC_PJ, AC_PJ = 4.6, 0.9
PENALTIES: dict[str, Any] = {
    "synaptic": SynapticPenalty,
    "total": TotalSpikePenalty,
    "balanced": BalancedSpikePenalty,
}
POWERS = (1, 2)
STRENGTHS = (0.2, 0.5, 1.0, 2.0, 4.0)
"""What a penalty adds to the loss at the start of a path, one for each stage."""
CONTROL = "none"
NEURONS = ("LIF", "LIF, ATan", "VSN", "LIFB", "SoftResetMPR")


class Kind(NamedTuple):
    """Convolutions of stride 2 before a linear layer, their data, and how the network is trained."""

    title: str
    data: str
    size: int
    widths: tuple[int, ...]
    epochs: int
    rate: float
    augment: bool
    stage: int
    """Training images of a stage."""
    stage_rate: float
    tested: int
    """Test images."""


KINDS = {
    "mnist": Kind("MNIST, two convolutions", "mnist", 28, (1, 16, 32), 2, 0.05, False, 5000, 0.02, 2500),
    "cifar10": Kind(
        "CIFAR-10, three convolutions", "cifar10", 32, (3, 16, 32, 64), 3, 0.1, True, 5000, 0.02, 2500
    ),
}


def neurons(name: str) -> Callable[[], nn.Module]:
    """Return what builds a neuron of `NEURONS`: SpikingJelly's own, or one of this package for it."""
    from spikingjelly.activation_based import neuron, surrogate

    from .. import spikingjelly as face

    common: dict[str, Any] = {"tau": 2.0, "decay_input": False, "detach_reset": True, "step_mode": "m"}
    return {
        "LIF": lambda: neuron.LIFNode(**common),
        "LIF, ATan": lambda: neuron.LIFNode(surrogate_function=surrogate.ATan(), **common),
        "VSN": lambda: face.VSNNode(**common),
        "LIFB": lambda: face.LIFBNode(**common),
        "SoftResetMPR": lambda: face.SoftResetMPRNode(step_mode="m"),
    }[name]


class Network(nn.Module):
    """Convolutions with batch norm and neurons, and a linear layer whose output is averaged over steps."""

    def __init__(self, kind: Kind, neuron: Callable[[], nn.Module]) -> None:
        super().__init__()
        pairs = list(zip(kind.widths, kind.widths[1:], strict=False))
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False) for inputs, outputs in pairs
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(outputs) for _, outputs in pairs)
        self.neurons = nn.ModuleList(neuron() for _ in pairs)
        side = kind.size
        for _ in pairs:
            side = (side + 1) // 2
        self.classifier = nn.Linear(kind.widths[-1] * side**2, 10)

    def forward(self, x: Tensor) -> Tensor:
        from spikingjelly.activation_based import functional

        functional.reset_net(self)
        x_seq = self.norms[0](self.convolutions[0](x)).expand(STEPS, -1, -1, -1, -1)
        for i, neuron in enumerate(self.neurons):
            if i:
                x_seq = self.norms[i](self.convolutions[i](x_seq.flatten(0, 1))).unflatten(0, (STEPS, -1))
            x_seq = neuron(x_seq.float())
        return self.classifier(x_seq.flatten(2)).mean(0)


def arms() -> dict[str, tuple[Any, int]]:
    """Return the arms by title: the penalty and its exponent."""
    found: dict[str, tuple[Any, int]] = {CONTROL: (None, 1)}
    for power in POWERS:
        found |= {f"{name}, p = {power}": (penalty, power) for name, penalty in PENALTIES.items()}
    return found


class Case:
    """One kind of network with one neuron and one seed: where all of its paths start."""

    def __init__(
        self,
        kind: str,
        neuron: str,
        seed: int,
        data: str | Path,
        kept: store.Store,
        tick: Callable[[str], None],
    ) -> None:
        self.kind, self.seed, self.tick = KINDS[kind], seed, tick
        self.neuron, self.make = neuron, neurons(neuron)
        self.training, test = load(self.kind.data, data)
        self.test = Images(test.images[: self.kind.tested], test.labels[: self.kind.tested])
        self.start = self._trained(kind, kept)

    def _trained(self, kind: str, kept: store.Store) -> dict[str, Tensor]:
        found = _kept_network(kept, kind, self.neuron, self.seed)
        if found is None:
            torch.manual_seed(self.seed)
            net = Network(self.kind, self.make)
            batches = self.kind.epochs * (len(self.training.labels) // BATCH)
            done = iter(range(1, batches + 1))
            train(
                net,
                self.training,
                epochs=self.kind.epochs,
                rate=self.kind.rate,
                seed=self.seed,
                augment=self.kind.augment,
                tick=lambda: self.tick(f"training, {100 * next(done) // batches} %"),
            )
            found = {"weights": net.state_dict()}
            kept.write(_file(kind, self.neuron, self.seed, "pt"), *_about(kind, self.neuron), found)
        return found["weights"]

    def network(self) -> nn.Module:
        """Return the network that the paths start from."""
        net = Network(self.kind, self.make)
        net.load_state_dict(self.start)
        return net.eval()

    def path(self, penalty: Any, power: int) -> list[dict[str, float]]:
        """Return what the network reaches and spends after each stage."""
        net = self.network()
        watched, at_start = None, 1.0
        if penalty is not None:
            watched = penalty(net, self.test.images[:1], p=power)
            with torch.no_grad():
                net(self.training.images[:512])
            at_start = float(watched())
        points = []
        for stage, strength in enumerate(STRENGTHS):
            lam = 0.0 if watched is None else strength / at_start
            chosen = torch.randperm(
                len(self.training.labels), generator=torch.Generator().manual_seed(1000 * self.seed + stage)
            )[: self.kind.stage]
            train(
                net,
                Images(self.training.images[chosen], self.training.labels[chosen]),
                epochs=1,
                rate=self.kind.stage_rate,
                seed=1000 * self.seed + stage,
                augment=self.kind.augment,
                penalty=None if watched is None else _weighted(watched, lam),
            )
            points.append({"lam": lam, **spent(net, self.test)})
        return points


def _weighted(penalty: Callable[[], Tensor], lam: float) -> Callable[[], Tensor]:
    return lambda: lam * penalty()


def spent(net: nn.Module, data: Images) -> dict[str, float]:
    """Return the accuracy of `net` in percent, its synaptic operations and its spikes, both per image."""
    synaptic, total = SynapticPenalty(net, data.images[:1]), TotalSpikePenalty(net)
    sums, size = torch.zeros(3, dtype=torch.float64), 500
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for x, y in zip(data.images.split(size), data.labels.split(size), strict=True):
            right = (net(x.contiguous(memory_format=torch.channels_last)).argmax(1) == y).sum()
            sums += torch.stack([right, synaptic() * len(y), total() * len(y)]).double()
    synaptic.remove()
    total.remove()
    right, synops, spikes = (sums / len(data.labels)).tolist()
    return {"accuracy": 100 * right, "synops": synops, "spikes": spikes}


def run(
    data: str | Path,
    folder: Path,
    *,
    kinds: Iterable[str] | None = None,
    seeds: Iterable[int] = range(5),
    tick: Callable[[str, int, str], None] = lambda kind, seed, what: None,
) -> dict[str, Any]:
    """Run what is missing in `folder`, where the outcome of each path is kept, and return all results.

    Raises
    ------
    RefusedError
        Before anything is computed: the data, the folder or a file in it cannot be used.
    """
    chosen, seeds = list(KINDS if kinds is None else kinds), list(seeds)
    found = {name: find(name, data) for name in sorted({KINDS[kind].data for kind in chosen})}
    for name, one in found.items():
        if one.training < BATCH:
            raise RefusedError(f"{name} has {one.training} training images; the study needs {BATCH} and more")
    kept = store.Store(folder, {name: one.fingerprint for name, one in found.items()})
    every = list(itertools.product(seeds, chosen, NEURONS))
    known = {}
    for seed, kind, neuron in every:
        known[seed, kind, neuron] = _kept_outcome(kept, kind, neuron, seed)
        _kept_network(kept, kind, neuron, seed)
    outcomes: dict[str, dict[str, list[Any]]] = {kind: {neuron: [] for neuron in NEURONS} for kind in chosen}
    for seed, kind, neuron in every:

        def tell(what: str, kind: str = kind, seed: int = seed, neuron: str = neuron) -> None:
            tick(kind, seed, f"{neuron}, {what}")

        outcome = known[seed, kind, neuron]
        _measure(kind, neuron, seed, data, kept, outcome, tell)
        outcomes[kind][neuron].append(outcome)
    return {
        "versions": kept.versions,
        "steps": STEPS,
        "strengths": STRENGTHS,
        "mac_pj": MAC_PJ,
        "ac_pj": AC_PJ,
        "networks": {
            kind: {"title": KINDS[kind].title, "tested": KINDS[kind].tested, "neurons": outcomes[kind]}
            for kind in chosen
        },
    }


def _measure(
    kind: str,
    neuron: str,
    seed: int,
    data: str | Path,
    kept: store.Store,
    outcome: dict[str, Any],
    tick: Callable[[str], None],
) -> None:
    """Put the paths that `outcome` does not have into it, and into the store."""
    missing = [title for title in arms() if title not in outcome["paths"]]
    if not missing:
        return
    case = Case(kind, neuron, seed, data, kept, tick)
    if "start" not in outcome:
        outcome["start"] = spent(case.network(), case.test)
    for title in missing:
        tick(title)
        outcome["paths"][title] = case.path(*arms()[title])
        kept.write(_file(kind, neuron, seed, "json"), *_about(kind, neuron), outcome)


def _file(kind: str, neuron: str, seed: int, ending: str) -> str:
    return f"{kind}-{neuron}-{seed}.{ending}"


def _about(kind: str, neuron: str) -> tuple[str, str]:
    """Return the settings and the data set that the files of a kind are made with."""
    return f"{Network(KINDS[kind], neurons(neuron))}, {KINDS[kind]}, {STRENGTHS}, {STEPS}", KINDS[kind].data


def _kept_outcome(kept: store.Store, kind: str, neuron: str, seed: int) -> dict[str, Any]:
    def fits(value: Any) -> bool:
        return "start" in value and set(value["paths"]) <= set(arms())

    found = kept.read(_file(kind, neuron, seed, "json"), *_about(kind, neuron), fits)
    return found or {"settings": f"{KINDS[kind]}, {STRENGTHS}, {STEPS}", "paths": {}}


def _kept_network(kept: store.Store, kind: str, neuron: str, seed: int) -> Any:
    """Return what the store has of a trained network, ``None`` if it is to be trained."""
    shapes = store.shapes(Network(KINDS[kind], neurons(neuron)).state_dict())

    def fits(value: Any) -> bool:
        return store.shapes(value["weights"]) == shapes

    return kept.read(_file(kind, neuron, seed, "pt"), *_about(kind, neuron), fits)
