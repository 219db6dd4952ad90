"""Tables and picture of the conversion study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from .conversion import arms
from .data import SOURCES

SHOWN = {
    "plain": ("0.6", ":", "plain data normalisation"),
    "SpikingJelly RateCodingRecipe, 99.9%": ("black", ":", "SpikingJelly RateCodingRecipe, 99.9 %"),
    "SpikingJelly LocalThresholdBalancingRecipe": ("black", "--", "SpikingJelly LocalThresholdBalancing"),
    "half start, tuned": ("#56b4e9", "-", "half-threshold start, tuned"),
    "half start, bias fitted a layer, control": ("#e69f00", "--", "+ equal offset fitted by layer (control)"),
    "half start, bias fitted a layer": ("#e69f00", "-", "+ L4-shaped offset fitted by layer"),
    "offsets fitted": ("#009e73", "--", "+ offset fitted by channel"),
    "offsets fitted, scale": ("#009e73", "-", "+ offset fitted by channel, L4 scale"),
    "default": ("#d55e00", "-", "default: thresholds and offsets by channel"),
}
COMPARED_AT = 16


def curves(network: dict[str, Any], title: str) -> np.ndarray:
    """Return the accuracy of an arm in percent, shape (seeds, steps)."""
    return np.array([seed["arms"][title] for seed in network["seeds"]])


def titles(network: dict[str, Any]) -> list[str]:
    """Return the arms that have been run for all seeds."""
    return [
        title for title in network["seeds"][0]["arms"] if all(title in s["arms"] for s in network["seeds"])
    ]


def controls(network: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the pairs (arm, its control) that have been run."""
    run = titles(network)
    return [(arm.control_of, arm.title) for arm in arms() if arm.control_of in run and arm.title in run]


def table(results: dict[str, Any], kind: str) -> str:
    """Return the outcomes of one network as text: mean and deviation over seeds for each number of steps."""
    network, steps = results["networks"][kind], results["steps"]
    names = titles(network)
    tuned = network["tuned"]
    width = max(len(_titled(name, tuned)) for name in names)
    ann = [seed["ann"] for seed in network["seeds"]]
    whole = [seed["ann, all test images"] for seed in network["seeds"]]
    lines = [
        f"{network['title']}: {len(ann)} seeds; accuracy [%], mean ± standard deviation over seeds; "
        f"the ReLU network {_spread(ann)} (on all test images {_spread(whole)})",
        " " * width + "".join(f"{f'T = {step}':>14}" for step in steps),
    ]
    for name in names:
        values = curves(network, name)
        lines.append(
            f"{_titled(name, tuned):<{width}}" + "".join(f"{_spread(column):>14}" for column in values.T)
        )
    lines += ["", f"L4 rule less its control, paired by seed, T = {', '.join(map(str, steps[:4]))}"]
    for name, control in controls(network):
        difference = curves(network, name) - curves(network, control)
        cells = [f"{_spread(d, '+')} ({int((d > 0).sum())}/{len(d)})" for d in difference.T[:4]]
        lines.append(f"{name:<{width}}" + "".join(f"{cell:>21}" for cell in cells))
    return "\n".join(lines)


def text(results: dict[str, Any]) -> str:
    """Return the outcomes of all networks as text."""
    return "\n\n".join(table(results, kind) for kind in results["networks"])


def draw(results: dict[str, Any], path: Path) -> None:
    """Write the picture: accuracy against steps, and what is owed to the L4 norm, by network."""
    networks, steps = results["networks"], results["steps"]
    figure = Figure(figsize=(4.6 * len(networks) + 1.5, 8), layout="constrained")
    grid = figure.subplots(2, len(networks), squeeze=False, gridspec_kw={"height_ratios": (3, 2)})
    for column, network in enumerate(networks.values()):
        axes = grid[0, column]
        ann = np.array([seed["ann"] for seed in network["seeds"]])
        axes.axhline(ann.mean(), color="0.8", lw=4, zorder=0, label="the ReLU network")
        for title, (colour, style, label) in SHOWN.items():
            if title in titles(network):
                values = curves(network, title)
                axes.errorbar(
                    steps, values.mean(0), values.std(0, ddof=1) if len(values) > 1 else None,
                    color=colour, ls=style, marker="o", ms=3, capsize=2, label=label,
                )  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set_xticks(steps, [str(step) for step in steps])
        axes.set_title(network["title"], loc="left", fontsize=10)
        axes.set_xlabel("steps T")
        axes.grid(alpha=0.25)
        _differences(grid[1, column], network, steps)
    grid[0, 0].set_ylabel("accuracy [%]")
    grid[1, 0].set_ylabel(f"L4 rule less its control,\nT = {COMPARED_AT} [points]")
    grid[0, -1].legend(frameon=False, fontsize=8, bbox_to_anchor=(1, 1), loc="upper left")
    tested = ", ".join(f"{number} of {SOURCES[name]}" for name, number in results["tested"].items())
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    figure.supxlabel(
        f"Bernoulli-coded input; mean and standard deviation over {len(ann)} seeds, each a network trained "
        f"anew "
        f"and test images of its own ({tested}); {versions}",
        fontsize=7,
    )
    figure.savefig(path, dpi=130)


def _differences(axes: Any, network: dict[str, Any], steps: list[int]) -> None:
    pairs = controls(network)
    at = list(steps).index(COMPARED_AT)
    for place, (name, control) in enumerate(pairs):
        difference = (curves(network, name) - curves(network, control))[:, at]
        deviation = difference.std(ddof=1) if len(difference) > 1 else 0
        axes.errorbar(place, difference.mean(), deviation, color="black", marker="s", ms=4, capsize=3)
        axes.plot([place + 0.2] * len(difference), difference, ".", color="#d55e00", ms=4)
    axes.axhline(0, color="0.6", lw=0.8)
    axes.set_xticks(range(len(pairs)), [name for name, _ in pairs], rotation=55, ha="right", fontsize=7)
    axes.grid(axis="y", alpha=0.25)


def _titled(name: str, tuned: dict[str, Any]) -> str:
    settings = ", ".join(f"{key} {value}" for key, value in tuned.get(name, {}).items())
    return f"{name} [{settings}]" if settings else name


def _spread(values: Any, sign: str = "") -> str:
    deviation = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):{sign}.1f}{deviation}"
