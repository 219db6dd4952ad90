"""The demo's picture: events, potential and graded output of a few VSN neurons at work."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.ticker import MaxNLocator

from .. import functional as F
from .networks import Network
from .tasks import DIGITS, splits

IMAGES, STEPS = 4, 6
SHOWN = 24


def draw(networks: dict[str, Network], titles: dict[str, str], seed: int, path: Path) -> None:
    """Draw the VSN layer of each trained digits network while it sees test images one after another."""
    images = next(splits(DIGITS, seed, 1)).x_test[:IMAGES]
    figure, grid = plt.subplots(
        4,
        len(networks),
        figsize=(6.4 * len(networks), 10),
        squeeze=False,
        height_ratios=[3, 1, 1, 1],
        constrained_layout=True,
    )
    for column, (framework, network) in zip(grid.T, networks.items(), strict=True):
        h, y, gate, threshold = _record(framework, network, images)
        events = gate.sum(0)
        _raster(column[0], gate, y, np.argsort(-events, kind="stable")[:SHOWN], titles[framework])
        switching = np.argsort(-np.abs(np.diff(gate, axis=0)).sum(0), kind="stable")[:3]
        for axis, neuron in zip(column[1:], switching, strict=True):
            _traces(axis, h[:, neuron], y[:, neuron], gate[:, neuron], threshold[neuron], neuron)
        column[-1].set_xlabel(f"time step (a new image every {STEPS} steps, no reset in between)")
    figure.suptitle(
        f"VSN layer of the trained digits networks, seed {seed}: {IMAGES} test images\n"
        "top: the most active neurons, an event coloured by the graded spike that it lets through"
    )
    handles, labels = grid[1, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _record(
    framework: str, network: Network, images: torch.Tensor
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return potentials before the reset, graded spikes, gates (time, neuron), and thresholds."""
    strict = framework == "snntorch"  # snnTorch fires above threshold, SpikingJelly at or above it
    with torch.no_grad():
        current = network.net[0](images if strict else images[None]).reshape(IMAGES, -1)
        p = network.dynamics()
        y_seq, _, h_seq = F.vsn(
            current.repeat_interleave(STEPS, 0),
            decay=p["decay"],
            threshold=p["threshold"],
            strict=strict,
            reset_delay=True,
            return_v_seq=True,
        )
        gate = h_seq > p["threshold"] if strict else h_seq >= p["threshold"]
    return h_seq.numpy(), y_seq.numpy(), gate.numpy().astype(int), p["threshold"].numpy()


def _raster(axis: plt.Axes, gate: np.ndarray, y: np.ndarray, neurons: np.ndarray, title: str) -> None:
    steps, rows = np.nonzero(gate[:, neurons])
    values = y[steps, neurons[rows]]
    dots = axis.scatter(steps + 1, rows, c=values, cmap="viridis", s=40, marker="s")
    axis.figure.colorbar(dots, ax=axis, label="graded spike $y_t$")
    axis.set(title=title, ylabel="neuron, most active first", ylim=(len(neurons) - 0.3, -0.7))
    _time(axis)


def _traces(
    axis: plt.Axes, h: np.ndarray, y: np.ndarray, gate: np.ndarray, threshold: float, neuron: int
) -> None:
    time = np.arange(1, len(h) + 1)
    for number, step in enumerate(time[gate == 1]):
        axis.axvspan(step - 0.5, step + 0.5, color="0.88", lw=0, label=None if number else "gate open $o_t$")
    axis.plot(time, h, ".-", color="tab:blue", label="potential $h_t$ before reset")
    axis.axhline(threshold, ls="--", lw=1, color="0.4", label="threshold")
    axis.vlines(time[gate == 1], 0, y[gate == 1], color="tab:red", lw=2.5, label="graded spike $y_t$")
    axis.set_ylabel(f"neuron {neuron}")
    axis.margins(y=0.12)
    _time(axis)


def _time(axis: plt.Axes) -> None:
    axis.set_xlim(0.3, IMAGES * STEPS + 0.7)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    for image in range(1, IMAGES):
        axis.axvline(image * STEPS + 0.5, color="0.6", lw=0.8, ls=":")
