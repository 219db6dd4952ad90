"""Tables and picture of the energy study: what spikes cost at equal accuracy.

The *frontier* of an arm and a seed: the start and the stages of its path, without those that spend more than
another and reach no more, the logarithm of the energy interpolated linearly in accuracy.  It is read a number
of points below the accuracy of the control (mean over its stages, of the same seed).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from .energy import CONTROL, PENALTIES, POWERS

POINTS = (0.5, 1.0, 2.0, 5.0)
"""Accuracy that is given up against the control."""
GRADED = ("VSN",)
"""Neurons whose spikes are graded: each operation is a multiply-accumulate."""
SHOWN = 8
"""How far below the control the picture goes, in points."""
RIVALS = ("total", "balanced")
COLOURS = {"synaptic": "#d55e00", "total": "#0072b2", "balanced": "#009e73"}
STYLES = {1: "-", 2: ":"}
LEAST_SEEN, AT_START, IN_DOUBT = "≤", "*", "~"
NOTES = f"""\
Energy of the spikes of an image, read off each path at equal accuracy: mean ± standard deviation over seeds.
{LEAST_SEEN}: in some seed the path ends above that accuracy, and its least energy is taken.
{AT_START}: in some seed nothing reaches it, and the start is taken.
Ratios are paired by seed: geometric mean ± standard deviation of the logarithm, in brackets the seeds in
which the first surely spends less.  {IN_DOUBT}: some seed cannot be told, since a path ends above."""


class Reading(NamedTuple):
    """The energy of a frontier at some accuracy, as a fraction of the control's, and what mars it."""

    value: float
    mark: str = ""

    def surely_below(self, other: Reading) -> bool:
        """Whether it is less than `other`, wherever a path that ended early might have gone on to."""
        return self.value < other.value and other.mark != LEAST_SEEN


class Ratio(NamedTuple):
    """Two arms at one accuracy, paired by seed."""

    logs: np.ndarray
    less: int
    """Seeds in which the first surely spends less."""
    more: int
    told: int
    """Seeds in which it can be told, no path having ended above the accuracy."""

    @property
    def mean(self) -> float:
        """The geometric mean."""
        return math.exp(self.logs.mean())

    def __str__(self) -> str:
        number = len(self.logs)
        spread = f" ± {100 * self.logs.std(ddof=1):.0f} %" if number > 1 else ""
        mark = IN_DOUBT if self.told < number else ""
        return f"{mark}{self.mean:.2f}{spread} ({self.less}/{number})"


def least(seed: dict[str, Any], title: str, accuracy: float) -> Reading:
    """Return the least synaptic operations with which an arm reaches `accuracy`, in percent."""
    start, stages = seed["start"], seed["paths"][title]
    if max(point["accuracy"] for point in (start, *stages)) < accuracy:
        return Reading(start["synops"], AT_START)
    frontier: list[tuple[float, float]] = []
    for point in sorted((start, *stages), key=lambda point: (point["synops"], -point["accuracy"])):
        if not frontier or point["accuracy"] > frontier[-1][0]:
            frontier.append((point["accuracy"], math.log(max(1.0, point["synops"]))))
    accuracies, logs = zip(*frontier, strict=True)
    mark = LEAST_SEEN if accuracies[0] > accuracy else ""
    return Reading(math.exp(np.interp(accuracy, accuracies, logs)), mark)


def readings(seeds: list[dict[str, Any]], title: str, points: float) -> list[Reading]:
    """Return for each seed what an arm spends `points` below the control, as a fraction of the control's."""
    found = []
    for seed in seeds:
        accuracy, spent = (
            np.mean([p[key] for p in seed["paths"][CONTROL]]) for key in ("accuracy", "synops")
        )
        reading = least(seed, title, accuracy - points)
        found.append(Reading(float(reading.value / spent), reading.mark))
    return found


def ratio(seeds: list[dict[str, Any]], first: str, second: str, points: float) -> Ratio:
    """Return what the arm `first` spends relative to `second`, `points` below the control."""
    pairs = list(zip(readings(seeds, first, points), readings(seeds, second, points), strict=True))
    less = sum(a.surely_below(b) for a, b in pairs)
    more = sum(b.surely_below(a) for a, b in pairs)
    equal = sum(a.value == b.value and LEAST_SEEN not in (a.mark, b.mark) for a, b in pairs)
    logs = np.log([a.value / b.value for a, b in pairs])
    return Ratio(logs, less, more, less + more + equal)


def pairs() -> list[tuple[str, str]]:
    """Return the pairs of arms that are compared: synaptic and each rival, p = 1 and p = 2."""
    found = [(f"synaptic, p = {p}", f"{rival}, p = {p}") for p in POWERS for rival in RIVALS]
    return [*found, *((f"{name}, p = 1", f"{name}, p = 2") for name in PENALTIES)]


def unit(results: dict[str, Any], neuron: str) -> float:
    """Return what a synaptic operation of a spike costs, in nJ."""
    return results["mac_pj" if neuron in GRADED else "ac_pj"] / 1e3


def table(results: dict[str, Any], kind: str) -> str:
    """Return the outcomes of one network as text, neuron by neuron."""
    network = results["networks"][kind]
    arms = [f"{name}, p = {p}" for p in POWERS for name in PENALTIES]
    names = [_versus(*pair) for pair in pairs()]
    width = max(map(len, (*arms, *names))) + 2
    lines = [f"{network['title']}, {network['tested']} test images, {results['steps']} steps"]
    for neuron, seeds in network["neurons"].items():
        nj = unit(results, neuron)
        start = [seed["start"] for seed in seeds]
        control = [_mean(seed["paths"][CONTROL]) for seed in seeds]
        states = ", ".join(
            f"{name} {_spread([s['accuracy'] for s in state], 1)} %, "
            f"{_spread([s['synops'] * nj for s in state], 1)} nJ"
            for name, state in (("start", start), ("control", control))
        )
        number = f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
        lines += [
            "",
            f"{neuron}: {number}, {nj * 1e3:.1f} pJ an operation; {states}",
            f"{'energy / that of the control, at its accuracy less':<{width}}",
            " " * width + "".join(f"{_points(points):>19}" for points in POINTS),
        ]
        for arm in arms:
            cells = [_fraction(readings(seeds, arm, points)) for points in POINTS]
            lines.append(f"{arm:<{width}}" + "".join(f"{cell:>19}" for cell in cells))
        for (first, second), name in zip(pairs(), names, strict=True):
            cells = [str(ratio(seeds, first, second, points)) for points in POINTS]
            lines.append(f"{name:<{width}}" + "".join(f"{cell:>19}" for cell in cells))
    return "\n".join(lines)


def answer(results: dict[str, Any]) -> str:
    """Return in how many comparisons the synaptic penalty spends least at equal accuracy, as text.

    A comparison counts where all seeds but a fifth can be told, and is clear where that many agree.
    """
    everything = [
        (seeds, points)
        for network in results["networks"].values()
        for seeds in network["neurons"].values()
        for points in POINTS
    ]
    number = min(len(seeds) for seeds, _ in everything)
    needed = math.ceil(0.8 * number)
    lines = [
        "Does the synaptic penalty spend least at equal accuracy?  Comparisons (network, neuron, p, points",
        f"given up) as far as they can be told; clearly: in at least {needed} of {number} seeds.",
    ]
    rivals: list[list[Ratio]] = []
    for p in POWERS:
        by_rival = [
            [ratio(seeds, f"synaptic, p = {p}", f"{rival}, p = {p}", points) for seeds, points in everything]
            for rival in RIVALS
        ]
        for rival, ratios in zip(RIVALS, by_rival, strict=True):
            lines.append(_summary(f"synaptic / {rival}, p = {p}", ratios, needed))
        rivals += zip(*by_rival, strict=True)
    ones = [ratio(seeds, "synaptic, p = 1", "synaptic, p = 2", points) for seeds, points in everything]
    lines.append(_summary("synaptic, p = 1 / p = 2", ones, needed))
    told = [both for both in rivals if all(r.told >= needed for r in both)]
    least_of_all = sum(all(r.mean < 1 for r in both) for both in told)
    clearly = sum(all(r.less >= needed for r in both) for both in told)
    beaten = sum(any(r.more >= needed for r in both) for both in told)
    lines.append(
        f"least of the three: {least_of_all} of {len(told)}, clearly below both rivals {clearly}, clearly "
        f"above one of them {beaten}"
    )
    return "\n".join(lines)


def text(results: dict[str, Any]) -> str:
    """Return all tables, how to read them, and the answer."""
    tables = [table(results, kind) for kind in results["networks"]]
    return "\n\n".join([*tables, NOTES, answer(results)])


def draw(results: dict[str, Any], path: Path) -> None:
    """Write the picture: accuracy against energy by neuron and network, a line for each penalty."""
    networks = results["networks"]
    neurons = list(next(iter(networks.values()))["neurons"])
    figure = Figure(
        figsize=(max(9.5, 2.2 * len(neurons) + 1), 2.5 * len(networks) + 1.3), layout="constrained"
    )
    grid = figure.subplots(len(networks), len(neurons), squeeze=False, sharey="row")
    for row, network in zip(grid, networks.values(), strict=True):
        for axes, neuron in zip(row, neurons, strict=True):
            _frontiers(axes, network["neurons"][neuron], unit(results, neuron))
        controls = [_mean(s["paths"][CONTROL])["accuracy"] for n in neurons for s in network["neurons"][n]]
        bottom, top = row[0].get_ylim()
        row[0].set_ylim(max(bottom, min(controls) - SHOWN), top)
        row[0].set_ylabel(f"{network['title']}\naccuracy [%]")
    for axes, neuron in zip(grid[0], neurons, strict=True):
        axes.set_title(neuron, loc="left", fontsize=11)
    handles = [
        *(Line2D([], [], color=colour, lw=2.5, label=name) for name, colour in COLOURS.items()),
        *(Line2D([], [], color="0.2", ls=style, label=f"p = {p}") for p, style in STYLES.items()),
        Line2D([], [], color="0.35", marker="x", ls="", label="control, no penalty"),
    ]
    figure.legend(handles=handles, ncols=len(handles), frameon=False, loc="outside upper center")
    number = len(next(iter(networks.values()))["neurons"][neurons[0]])
    tested = " and ".join(str(network["tested"]) for network in networks.values())
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    figure.supxlabel(
        f"energy of the spikes of an image [nJ]\n"
        f"thick: mean of {number} seeds, stage by stage of a growing penalty; thin: single seeds; "
        f"{tested} test images; {versions}",
        fontsize=9,
    )
    figure.savefig(path, dpi=130)


def _summary(name: str, ratios: list[Ratio], needed: int) -> str:
    told = [r for r in ratios if r.told >= needed]
    if not told:
        return f"{name}: cannot be told"
    means = [r.mean for r in told]
    below, number = sum(mean < 1 for mean in means), len(means)
    less, more = (sum(getattr(r, side) >= needed for r in told) for side in ("less", "more"))
    overall = math.exp(np.log(means).mean())
    return (
        f"{name}: {overall:.2f} ({min(means):.2f} to {max(means):.2f}); below 1 in {below} of {number}, "
        f"clearly below in {less}, clearly above in {more}"
    )


def _frontiers(axes: Any, seeds: list[dict[str, Any]], nj: float) -> None:
    for p in POWERS:
        for name in PENALTIES:
            paths = np.array([_path(seed, f"{name}, p = {p}", nj) for seed in seeds])
            style: Any = {"color": COLOURS[name], "ls": STYLES[p]}
            for energies, accuracies in paths:
                axes.plot(energies, accuracies, lw=0.5, alpha=0.35, **style)
            energies, accuracies = np.exp(np.log(paths[:, 0]).mean(0)), paths[:, 1].mean(0)
            axes.plot(energies, accuracies, marker="o", ms=2.5, lw=1.4, **style)
    control = [_mean(seed["paths"][CONTROL]) for seed in seeds]
    axes.plot(
        [c["synops"] * nj for c in control],
        [c["accuracy"] for c in control],
        "x",
        color="0.35",
        ms=6,
        zorder=3,
    )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.25)


def _path(seed: dict[str, Any], title: str, nj: float) -> tuple[list[float], list[float]]:
    """Return energies and accuracies of a path, the start first."""
    points = (seed["start"], *seed["paths"][title])
    return [max(1.0, p["synops"]) * nj for p in points], [p["accuracy"] for p in points]


def _mean(stages: list[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([stage[key] for stage in stages])) for key in ("accuracy", "synops")}


def _points(points: float) -> str:
    return f"{points:g} point{'' if points == 1 else 's'}"


def _versus(first: str, second: str) -> str:
    """Return the title of a ratio, what both arms share named once."""
    (name, p), (rival, q) = first.split(", "), second.split(", ")
    return f"{name} / {rival}, {p}" if p == q else f"{name}, {p} / {q}"


def _fraction(found: list[Reading]) -> str:
    marks = "".join(mark for mark in (LEAST_SEEN, AT_START) if any(r.mark == mark for r in found))
    return marks + _spread([r.value for r in found], 2)


def _spread(values: list[float], digits: int) -> str:
    deviation = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{deviation}"
