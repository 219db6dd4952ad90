"""The bench's picture: cost against neurons and against steps, one row of panels for each framework."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from . import report
from .cases import TITLES

COLOURS = ("#0072b2", "#d55e00", "#009e73")
"""One for each of our neurons."""


def draw(results: dict[str, Any], path: Path) -> None:
    """Write the picture of the sizes to `path`."""
    frameworks = list(dict.fromkeys(entry["framework"] for entry in results["memory"]))
    sizes = results["sizes"]
    steps, neurons = (_most([size[name] for size in sizes]) for name in ("steps", "neurons"))
    figure = Figure(figsize=(11, 4.2 * len(frameworks) + 0.6), layout="constrained")
    grid = figure.subplots(len(frameworks), 2, squeeze=False, sharey=True)
    for row, framework in zip(grid, frameworks, strict=True):
        panels = (("neurons", "steps", steps), ("steps", "neurons", neurons))
        for axes, (along, other, fixed) in zip(row, panels, strict=True):
            _panel(axes, [size for size in sizes if size[other] == fixed], along, framework)
            axes.set_title(f"{TITLES[framework]}: {fixed:,} {other}", loc="left", fontsize=10)
        row[0].set_ylabel("forward and backward [ms]")
        row[1].legend(*row[0].get_legend_handles_labels(), frameon=False, fontsize=8, bbox_to_anchor=(1, 1))
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    figure.supxlabel(
        f"medians of interleaved repeats, float32, {machine['threads']} threads, {machine['name']}; "
        f"{versions}",
        fontsize=7,
    )
    figure.savefig(path, dpi=150)


def _most(values: list[int]) -> int:
    """Return the value that occurs most often, the larger of equals."""
    return max(set(values), key=lambda value: (values.count(value), value))


def _panel(axes: Any, sizes: list[dict[str, Any]], along: str, framework: str) -> None:
    shown = [report.key(entry) for size in sizes for entry in size["cases"]]
    shown = [key for key in dict.fromkeys(shown) if key[1] in ("", framework) and "learned" not in key[0]]
    ours = list(dict.fromkeys(name for name, _, implementation in shown if implementation))
    sizes = sorted(sizes, key=lambda size: size[along])
    for key in shown:
        points = [(size[along], report.seconds(size, key)) for size in sizes]
        points = [(place, time * 1e3) for place, time in points if time is not None]
        label = key[0] + (f" ({key[2]})" if key[2] else "")
        style: dict[str, Any]
        if not key[1]:
            style = {"color": "0.6", "linewidth": 1}
        elif not key[2]:
            style = {"color": "black", "marker": "s", "markersize": 4}
        else:
            fast = key[2] != "reference"
            style = {
                "color": COLOURS[ours.index(key[0]) % len(COLOURS)],
                "linestyle": "-" if fast else "--",
                "linewidth": 1.8 if fast else 0.8,
                "marker": "o" if fast else None,
                "markersize": 4,
            }
        axes.plot(*zip(*points, strict=True), label=label, **style)
    axes.set(xscale="log", yscale="log", xlabel=along)
    measured = [size[along] for size in sizes]
    axes.set_xticks(measured, [f"{place:,}" for place in measured], fontsize=7)
    axes.set_xticks([], minor=True)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
