"""The study behind the defaults of conversion: what helps at few steps, and what of it is owed to the L4
norm.

Three networks, five seeds (each a network trained anew, tested on images of its own), Bernoulli-coded
input, accuracy after 4 to 128 steps from one run.  Every L4 arm has its control, in which all neurons of a
layer get the layer's mean of what the rule gives.  Strengths and percentiles are tuned at 16 steps on
training images that no network was trained on, with the network of seed 0; controls have the same grid as
their rules.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import functional
from ..conversion import Options, simulate
from ..conversion.convert import Conversion
from ..conversion.spiking import Spiking
from . import store
from .data import Images, load
from .networks import KINDS
from .training import accuracy, train

STEPS = (4, 8, 16, 32, 64, 128)
TUNED_AT = 16
HELD_OUT = 5000
"""Training images kept back: the first for calibration, the rest for tuning."""
CALIBRATION = 256
TESTED = {"mnist": 500, "cifar10": 128}
"""Test images a seed."""
PERCENTILES = (0.9, 0.95, 0.98, 0.99, 0.995)
STRENGTHS = {
    "scale": (0.25, 0.5, 0.75, 1.0),
    "equalize": (0.25, 0.5, 0.75, 1.0),
    "threshold": (-0.4, -0.2, 0.2, 0.4),
    "bias": (-0.3, -0.2, -0.1, 0.1),
}
PLAIN: dict[str, Any] = {
    "rule": "none",
    "per_channel": False,
    "fit_offsets": False,
    "initial": 0.0,
    "progress": False,
}


@dataclasses.dataclass(frozen=True)
class Arm:
    """A way to convert: a title, options, and the options that are tuned, by name with their grid."""

    title: str
    options: dict[str, Any]
    grid: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    control_of: str = ""
    coding: str = "poisson"
    bursts: bool = False

    def choices(self) -> list[dict[str, Any]]:
        """Return all settings of the grid."""
        settings: list[dict[str, Any]] = [{}]
        for name, values in self.grid:
            settings = [{**setting, name: value} for setting in settings for value in values]
        return settings


def _with_control(title: str, rule: str, base: dict[str, Any]) -> list[Arm]:
    grid = (("strength", STRENGTHS[rule]),)
    return [
        Arm(f"{title}{rule}", {**base, "rule": rule}, grid),
        Arm(f"{title}{rule}, control", {**base, "rule": rule, "control": True}, grid, f"{title}{rule}"),
    ]


def arms() -> list[Arm]:
    """Return all arms of this package's conversion."""
    half = {**PLAIN, "initial": 0.5}
    fitted = {**half, "fit_offsets": True, "steps": TUNED_AT}
    by_layer = {**half, "rule": "bias", "strength": "fit", "steps": TUNED_AT}
    found = [
        Arm("plain", PLAIN),
        Arm("per channel", {**PLAIN, "per_channel": True}),
        Arm("lower percentile", PLAIN, (("percentile", PERCENTILES),)),
        Arm("half start", half),
        Arm(
            "half start, tuned", half, (("per_channel", (False, True)), ("percentile", (*PERCENTILES, 0.999)))
        ),
    ]
    for rule in ("scale", "equalize", "threshold", "bias"):
        found += _with_control("", rule, PLAIN)
    found += _with_control("half start, ", "bias", half)
    found += [
        Arm("half start, bias fitted a layer", by_layer),
        Arm(
            "half start, bias fitted a layer, control",
            {**by_layer, "control": True},
            control_of="half start, bias fitted a layer",
        ),
        Arm("offsets fitted", fitted),
    ]
    for rule in ("scale", "equalize", "threshold"):
        found += _with_control("offsets fitted, ", rule, fitted)
    found += [Arm("offsets fitted, per channel", {**fitted, "per_channel": True})]
    found += _with_control("offsets fitted, per channel, ", "scale", {**fitted, "per_channel": True})
    found += [
        Arm("default", {"progress": False}),
        Arm("default, fitted for 128 steps", {"progress": False, "steps": 128}),
        Arm("default, direct input", {"progress": False, "coding": "direct"}, coding="direct"),
        Arm(
            "default, direct input, fitted for 128 steps",
            {"progress": False, "coding": "direct", "steps": 128},
            coding="direct",
        ),
        Arm("default, bursting", {"progress": False}, bursts=True),
    ]
    return found


def native_arms(calibration: list[Tensor]) -> dict[str, Callable[[nn.Module], nn.Module]]:
    """Return SpikingJelly's own conversions by title; none where its release has no recipes."""
    try:
        from spikingjelly.activation_based.ann2snn import Converter, recipes
    except ImportError:
        return {}
    rate = recipes.RateCodingRecipe
    found = {
        "SpikingJelly RateCodingRecipe": lambda: rate(calibration),
        "SpikingJelly RateCodingRecipe, 99.9%": lambda: rate(calibration, mode="99.9%"),
        "SpikingJelly RateCodingRecipe, 99.9%, channel_wise, half_threshold": lambda: rate(
            calibration, mode="99.9%", channel_wise=True, half_threshold=True
        ),
        "SpikingJelly LocalThresholdBalancingRecipe": lambda: recipes.LocalThresholdBalancingRecipe(
            calibration
        ),
    }

    def converter(make: Callable[[], Any]) -> Callable[[nn.Module], nn.Module]:
        return lambda ann: Converter(make()).convert(ann)

    return {title: converter(make) for title, make in found.items()}


class Case:
    """One network of one seed, with what its arms share."""

    def __init__(
        self, kind: str, seed: int, data: str | Path, folder: Path, tick: Callable[[str], None]
    ) -> None:
        self.kind, self.seed = KINDS[kind], seed
        training, test = load(self.kind.data, data)
        held = Images(training.images[-HELD_OUT:], training.labels[-HELD_OUT:])
        self.ann = self._trained(kind, training, folder, tick)
        number = TESTED[self.kind.data]
        start = seed * number
        if start + number > len(test.labels):
            raise ValueError(
                f"seed={seed}: {KINDS[kind].data} has test images for {len(test.labels) // number} seeds"
            )
        self.test = Images(test.images[start : start + number], test.labels[start : start + number])
        self.validation = Images(held.images[-number:], held.labels[-number:])
        self.calibration = list(held.images[:CALIBRATION].split(64))
        self.conversion = Conversion(self.ann, self.calibration, progress=False)
        self.whole = test

    def _trained(self, kind: str, training: Images, folder: Path, tick: Callable[[str], None]) -> nn.Module:
        torch.manual_seed(self.seed)
        net: nn.Module = self.kind.build()
        file = folder / f"{kind}-{self.seed}.pt"
        if file.exists():
            net.load_state_dict(torch.load(file))
            return net.eval()
        used = Images(training.images[:-HELD_OUT], training.labels[:-HELD_OUT])
        batches = self.kind.epochs * (len(used.labels) // 128)
        done = iter(range(1, batches + 1))
        train(
            net,
            used,
            epochs=self.kind.epochs,
            rate=self.kind.rate,
            seed=self.seed,
            augment=self.kind.augment,
            tick=lambda: tick(f"training, {100 * next(done) // batches} %"),
        )
        store.save(file, net.state_dict())
        return net

    def curve(
        self,
        options: dict[str, Any],
        images: Images,
        steps: int,
        coding: str = "poisson",
        bursts: bool = False,
    ) -> list[float]:
        """Return the accuracy in percent after each of `STEPS` up to `steps`."""
        net = self.conversion.network(Options(**options))
        fire = {**simulate.CORE, Spiking: _fire_bursts} if bursts else simulate.CORE
        return _percent(
            simulate.accuracy_curve(
                net, fire, lambda: None, _batches(images), steps, coding=coding, seed=self.seed
            )
        )

    def native_curve(self, convert: Callable[[nn.Module], nn.Module]) -> list[float]:
        """Return the same for a network that SpikingJelly converted."""
        from spikingjelly.activation_based import functional as native

        net = convert(self.ann)
        native.set_step_mode(net, "m")

        def fresh() -> Callable[[Tensor], Tensor]:
            native.reset_net(net)
            return torch.no_grad()(net)

        return _percent(simulate.curve(fresh, _batches(self.test), STEPS[-1], seed=self.seed))


def _fire_bursts(layer: Spiking, x_seq: Tensor, v: Tensor | None) -> tuple[Tensor, Tensor]:
    """Run LIFB neurons as integrate-and-fire ones that emit two spikes above twice the threshold."""
    y_seq, v, *_ = functional.lifb(
        x_seq,
        x_seq.new_full(x_seq.shape[1:], layer.initial) if v is None else v,
        decay=layer.decay,
        threshold=1.0,
        burst_threshold=2.0,
        burst_intensity=2.0,
        v_reset=None,
    )
    return y_seq, v


def tune(case: Case, file: Path, tick: Callable[[str], None]) -> None:
    """Write the best setting of each arm that has a grid to `file`, by title, if it is not there yet."""
    best = store.read(file) or {}
    for arm in arms():
        if not arm.grid or arm.title in best:
            continue
        scores = []
        for setting in arm.choices():
            tick(f"tuning, {arm.title}")
            try:
                score = case.curve({**arm.options, **setting}, case.validation, TUNED_AT)[-1]
            except ValueError:  # a strength that would make a threshold negative
                score = -1.0
            scores.append((score, setting))
        best[arm.title] = max(scores, key=lambda pair: pair[0])[1]
        store.write(file, best)


def measure(case: Case, tuned: dict[str, dict[str, Any]], file: Path, tick: Callable[[str], None]) -> None:
    """Write the accuracy of every arm after each of `STEPS` to `file`, where it is not there already."""
    outcome = store.read(file) or {
        "ann, all test images": accuracy(case.ann, case.whole),
        "ann": accuracy(case.ann, case.test),
        "settings": {},
        "arms": {},
    }
    for arm in arms():
        settings, known = _settings(arm, tuned), outcome["settings"]
        if known.get(arm.title) == settings:
            continue
        tick(arm.title)
        same = [title for title, other in known.items() if other == settings]
        if same:  # the default is one of the arms
            outcome["arms"][arm.title] = outcome["arms"][same[0]]
        else:
            options = {**arm.options, **tuned.get(arm.title, {})}
            outcome["arms"][arm.title] = case.curve(options, case.test, STEPS[-1], arm.coding, arm.bursts)
        known[arm.title] = settings
        store.write(file, outcome)
    for title, convert in native_arms(case.calibration).items():
        if title not in outcome["arms"]:
            tick(title)
            outcome["arms"][title] = case.native_curve(convert)
            store.write(file, outcome)


def run(
    data: str | Path,
    folder: Path,
    *,
    kinds: Iterable[str] | None = None,
    seeds: Iterable[int] = range(5),
    tick: Callable[[str, int, str], None] = lambda kind, seed, what: None,
) -> dict[str, Any]:
    """Run what is missing in `folder`, where each seed's outcome is kept, and return all results."""
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"versions": store.versions(), "steps": STEPS, "tested": TESTED, "networks": {}}
    for kind in KINDS if kinds is None else kinds:
        tuning = folder / f"{kind}-tuned.json"
        if not {arm.title for arm in arms() if arm.grid} <= set(store.read(tuning) or {}):
            tell = _for(tick, kind, 0)
            tune(Case(kind, 0, data, folder, tell), tuning, tell)
        tuned = store.read(tuning)
        outcomes = []
        for seed in seeds:
            file, tell = folder / f"{kind}-{seed}.json", _for(tick, kind, seed)
            if not _complete(store.read(file), tuned):
                measure(Case(kind, seed, data, folder, tell), tuned, file, tell)
            outcomes.append(store.read(file))
        results["networks"][kind] = {"title": KINDS[kind].title, "tuned": tuned, "seeds": outcomes}
    return results


def _for(tick: Callable[[str, int, str], None], kind: str, seed: int) -> Callable[[str], None]:
    return lambda what: tick(kind, seed, what)


def _settings(arm: Arm, tuned: dict[str, dict[str, Any]]) -> str:
    """Return all that an arm does, so that what was run with other settings is run again."""
    return f"{Options(**{**arm.options, **tuned.get(arm.title, {})})}, {arm.coding}, bursts={arm.bursts}"


def _complete(outcome: Any, tuned: dict[str, dict[str, Any]]) -> bool:
    return (
        outcome is not None
        and all(outcome["settings"].get(arm.title) == _settings(arm, tuned) for arm in arms())
        and set(native_arms([])) <= set(outcome["arms"])
    )


def _batches(images: Images) -> list[tuple[Tensor, Tensor]]:
    return list(zip(images.images.split(64), images.labels.split(64), strict=True))


def _percent(curve: Tensor) -> list[float]:
    return [round(100 * curve[step - 1].item(), 2) for step in STEPS if step <= len(curve)]
