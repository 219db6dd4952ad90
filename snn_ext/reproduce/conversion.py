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
import functools
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import functional
from ..conversion import Options, simulate
from ..conversion.convert import Conversion
from ..conversion.spiking import Spiking
from ..terminal import RefusedError
from . import store
from .data import Found, Images, find, load
from .networks import KINDS, Kind
from .training import BATCH, accuracy, train

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
        self, kind: str, seed: int, data: str | Path, kept: store.Store, tick: Callable[[str], None]
    ) -> None:
        self.kind, self.seed = KINDS[kind], seed
        training, test = load(self.kind.data, data)
        held = Images(training.images[-HELD_OUT:], training.labels[-HELD_OUT:])
        self.ann = self._trained(kind, training, kept, tick)
        number = TESTED[self.kind.data]
        start = seed * number
        self.test = Images(test.images[start : start + number], test.labels[start : start + number])
        self.validation = Images(held.images[-number:], held.labels[-number:])
        self.calibration = list(held.images[:CALIBRATION].split(64))
        self.conversion = Conversion(self.ann, self.calibration, progress=False)
        self.whole = test

    def _trained(
        self, kind: str, training: Images, kept: store.Store, tick: Callable[[str], None]
    ) -> nn.Module:
        found = _kept_network(kept, kind, self.seed)
        torch.manual_seed(self.seed)
        net: nn.Module = self.kind.build()
        if found:
            net.load_state_dict(found["weights"])
            return net.eval()
        used = Images(training.images[:-HELD_OUT], training.labels[:-HELD_OUT])
        batches = self.kind.epochs * (len(used.labels) // BATCH)
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
        weights = {"weights": net.state_dict()}
        kept.write(f"{kind}-{self.seed}.pt", _network_settings(self.kind), self.kind.data, weights)
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


def tune(case: Case, best: dict[str, Any], write: Callable[[], None], tick: Callable[[str], None]) -> None:
    """Put the best setting of each arm that has a grid into `best`, by title, if it is not there yet."""
    for arm in _untuned(best):
        scores = []
        for setting in arm.choices():
            tick(f"tuning, {arm.title}")
            try:
                score = case.curve({**arm.options, **setting}, case.validation, TUNED_AT)[-1]
            except ValueError:  # a strength that would make a threshold negative
                score = -1.0
            scores.append((score, setting))
        best[arm.title] = {"among": _grid(arm), "best": max(scores, key=lambda pair: pair[0])[1]}
        write()


def measure(
    case: Case,
    tuned: dict[str, dict[str, Any]],
    outcome: dict[str, Any],
    write: Callable[[], None],
    tick: Callable[[str], None],
) -> None:
    """Put the accuracy of every arm after each of `STEPS` into `outcome`, where it is not there already."""
    if not outcome:
        outcome |= {
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
        write()
    for title, convert in native_arms(case.calibration).items():
        if title not in outcome["arms"]:
            tick(title)
            outcome["arms"][title] = case.native_curve(convert)
            write()


def run(
    data: str | Path,
    folder: Path,
    *,
    kinds: Iterable[str] | None = None,
    seeds: Iterable[int] = range(5),
    tick: Callable[[str, int, str], None] = lambda kind, seed, what: None,
) -> dict[str, Any]:
    """Run what is missing in `folder`, where each seed's outcome is kept, and return all results.

    Raises
    ------
    RefusedError
        Before anything is computed: the data, the folder or a file in it cannot be used.
    """
    chosen, seeds = {name: KINDS[name] for name in (KINDS if kinds is None else kinds)}, list(seeds)
    found = {name: find(name, data) for name in sorted({kind.data for kind in chosen.values()})}
    _check_images(found, seeds)
    kept = store.Store(folder, {name: one.fingerprint for name, one in found.items()})
    tunings = {name: kept.read(f"{name}-tuned.json", *_tuning(kind)) or {} for name, kind in chosen.items()}
    outcomes = {
        name: {seed: kept.read(f"{name}-{seed}.json", *_outcome(kind)) or {} for seed in seeds}
        for name, kind in chosen.items()
    }
    for name, seed in itertools.product(chosen, {0, *seeds}):
        _kept_network(kept, name, seed)
    for name, kind in chosen.items():
        best = tunings[name]
        if _untuned(best):
            tell = _for(tick, name, 0)
            write = functools.partial(kept.write, f"{name}-tuned.json", *_tuning(kind)[:2], best)
            tune(Case(name, 0, data, kept, tell), best, write, tell)
        tuned = {title: arm["best"] for title, arm in best.items()}
        for seed, outcome in outcomes[name].items():
            if not _complete(outcome, tuned):
                tell = _for(tick, name, seed)
                write = functools.partial(kept.write, f"{name}-{seed}.json", *_outcome(kind)[:2], outcome)
                measure(Case(name, seed, data, kept, tell), tuned, outcome, write, tell)
        tunings[name] = tuned
    return {
        "versions": kept.versions,
        "steps": STEPS,
        "tested": TESTED,
        "networks": {
            name: {"title": kind.title, "tuned": tunings[name], "seeds": list(outcomes[name].values())}
            for name, kind in chosen.items()
        },
    }


def _check_images(found: dict[str, Found], seeds: list[int]) -> None:
    """Raise unless the data sets have the images that are held back, and test images of their own a seed."""
    for name, one in found.items():
        if one.training < HELD_OUT + BATCH:
            raise RefusedError(
                f"{name} has {one.training} training images; the study needs {HELD_OUT + BATCH} and more"
            )
        if (most := one.test // TESTED[name]) <= max(seeds):
            raise RefusedError(f"--seeds {max(seeds) + 1}: {name} has test images for {most}; take {most}")


def _network_settings(kind: Kind) -> str:
    return f"{kind.build()}, {kind[2:]}, {HELD_OUT} held out"


def _tuning(kind: Kind) -> tuple[str, str, Callable[[Any], bool]]:
    """Return what the store asks of a file with the best settings: its settings, its data, its form."""

    def fits(value: Any) -> bool:
        return all(isinstance(arm, dict) and set(arm) == {"among", "best"} for arm in value.values())

    settings = f"{_network_settings(kind)}, {CALIBRATION}, {TESTED[kind.data]} images, {TUNED_AT} steps"
    return settings, kind.data, fits


def _outcome(kind: Kind) -> tuple[str, str, Callable[[Any], bool]]:
    """Return the same of a file with the outcome of a seed."""

    def fits(value: Any) -> bool:
        return {"ann", "settings", "arms"} <= set(value) and set(value["settings"]) <= set(value["arms"])

    settings = f"{_network_settings(kind)}, {CALIBRATION}, {TESTED[kind.data]} images, {STEPS} steps"
    return settings, kind.data, fits


def _kept_network(kept: store.Store, name: str, seed: int) -> Any:
    """Return what the store has of a trained network, ``None`` if it is to be trained."""
    kind = KINDS[name]
    shapes = store.shapes(kind.build().state_dict())

    def fits(value: Any) -> bool:
        return store.shapes(value["weights"]) == shapes

    return kept.read(f"{name}-{seed}.pt", _network_settings(kind), kind.data, fits)


def _grid(arm: Arm) -> str:
    return f"{arm.options}, {arm.grid}, {arm.coding}"


def _untuned(best: dict[str, Any]) -> list[Arm]:
    return [arm for arm in arms() if arm.grid and best.get(arm.title, {}).get("among") != _grid(arm)]


def _for(tick: Callable[[str, int, str], None], kind: str, seed: int) -> Callable[[str], None]:
    return lambda what: tick(kind, seed, what)


def _settings(arm: Arm, tuned: dict[str, dict[str, Any]]) -> str:
    """Return all that an arm does, so that what was run with other settings is run again."""
    return f"{Options(**{**arm.options, **tuned.get(arm.title, {})})}, {arm.coding}, bursts={arm.bursts}"


def _complete(outcome: Any, tuned: dict[str, dict[str, Any]]) -> bool:
    return (
        bool(outcome)
        and all(outcome["settings"].get(arm.title) == _settings(arm, tuned) for arm in arms())
        and set(native_arms([])) <= set(outcome["arms"])
    )


def _batches(images: Images) -> list[tuple[Tensor, Tensor]]:
    return list(zip(images.images.split(64), images.labels.split(64), strict=True))


def _percent(curve: Tensor) -> list[float]:
    return [round(100 * curve[step - 1].item(), 2) for step in STEPS if step <= len(curve)]
