"""The demo's picture: what trained neurons do, step by step, while digits pass by as events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.ticker import MultipleLocator

from ..observe import Observer
from ..ops import reference
from .networks import HIDDEN, Network
from .tasks import SACCADES, splits

DIGITS, STEPS = 3, SACCADES.steps
SHOWN = 20
TIME = np.arange(1, DIGITS * STEPS + 1)
ON, OFF = "tab:green", "tab:purple"
REGULAR, BURST = "tab:blue", "tab:red"


class Recorder(Observer):
    """Keeps the steps of a layer one by one instead of averaging them."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[reference.Step] = []

    def see(self, neuron: Any, x_seq: Any, v0: Any, p: Any, surrogate: Any, **options: Any) -> None:
        self.p = p
        self.steps += reference.unroll(neuron, x_seq, v0, p, surrogate, **options)

    def __getitem__(self, name: str) -> np.ndarray:
        """Return "h" (potential before the reset), "o" (event) or "y" (emitted) as (time, neuron)."""
        return torch.cat([getattr(step, name) for step in self.steps]).numpy()

    def level(self, name: str) -> np.ndarray:
        """Return a parameter, one value a neuron."""
        return self.p[name].detach().expand(self.steps[0].h.shape[-1]).numpy()


def draw(networks: dict[str, Network], title: str, seed: int, path: Path) -> None:
    """Draw the first layer of the trained saccade networks while they see test digits, one after another."""
    split = next(splits(SACCADES, seed))
    x_seq = split.x_test[:, :DIGITS].transpose(0, 1).reshape(DIGITS * STEPS, 1, -1)
    seen = {arm: _record(network, x_seq) for arm, network in networks.items()}
    figure, axes = plt.subplots(
        6,
        figsize=(11, 12),
        height_ratios=[1, 2.5, 1.2, 2.5, 1.2, 1.2],
        sharex=True,
        constrained_layout=True,
    )
    _frames(axes[0], x_seq, split.y_test[:DIGITS])
    _vsn_raster(axes[1], seen["VSN"])
    _vsn_trace(axes[2], seen["VSN"])
    _lifb_raster(axes[3], seen["LIFB"])
    _lifb_trace(axes[4], seen["LIFB"])
    _soft_trace(axes[5], seen["SoftReset"])
    for axis in axes:
        for digit in range(1, DIGITS):
            axis.axvline(digit * STEPS + 0.5, color="0.6", lw=0.8, ls=":")
        if handles := axis.get_legend_handles_labels()[0]:
            axis.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=9)
    axes[-1].set(xlim=(0.4, len(TIME) + 0.6), xlabel="time step")
    axes[-1].xaxis.set_major_locator(MultipleLocator(STEPS // 2))
    figure.suptitle(
        f"{title}, digit saccades, seed {seed}: the first layer of trained networks while {DIGITS} test "
        f"digits pass by as events\n({STEPS} steps each, no reset in between; arrows: motion; "
        f"rasters: those {SHOWN} of {HIDDEN} neurons that change most often)",
        fontsize=11,
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _record(network: Network, x_seq: torch.Tensor) -> Recorder:
    layer: Any = network.net[1]
    layer._observer = recorder = Recorder()
    with torch.no_grad():
        network(x_seq)
    del layer._observer
    return recorder


def _frames(axis: plt.Axes, x_seq: torch.Tensor, labels: torch.Tensor) -> None:
    size = int((x_seq.shape[-1] / 2) ** 0.5)
    for time, (on, off) in zip(TIME, x_seq.reshape(-1, 2, size, size).bool().numpy(), strict=True):
        picture = np.full((size, size, 3), 0.95)
        for mask, color in ((on, ON), (off, OFF)):
            picture[mask] = matplotlib.colors.to_rgb(color)
        axis.imshow(picture, extent=(time - 0.46, time + 0.46, 0.04, 0.96), aspect="auto")
    for label, start in zip(labels.tolist(), TIME[::STEPS], strict=True):
        axis.text(start + (STEPS - 1) / 2, 1.3, f"a “{label}”", ha="center", va="bottom")
        for step in range(STEPS):
            axis.text(start + step, 1.02, "↘↗←"[3 * step // STEPS], ha="center", va="bottom")
    for name, color in (("ON: brighter", ON), ("OFF: darker", OFF)):
        axis.plot([], [], "s", color=color, label=name)
    axis.set(ylabel="events", yticks=(), ylim=(0, 1.75))


def _vsn_raster(axis: plt.Axes, seen: Recorder) -> None:
    steps, rows, values = _liveliest(axis, seen)
    dots = axis.scatter(steps, rows, c=values, cmap="viridis", s=45, marker="s")
    axis.figure.colorbar(dots, cax=axis.inset_axes((1.015, 0, 0.02, 1)), label="graded spike $y_t$")
    axis.set_title("VSN: an event lets the input pass")


def _lifb_raster(axis: plt.Axes, seen: Recorder) -> None:
    steps, rows, values = _liveliest(axis, seen)
    for name, chosen, color in (
        ("regular spike", values == 1, REGULAR),
        (f"burst, $\\kappa$ = {seen.level('burst_intensity')[0]:.1f}", values > 1, BURST),
    ):
        axis.scatter(steps[chosen], rows[chosen], color=color, s=45, marker="s", label=name)
    axis.set_title("LIFB: rest, regular spike or burst")


def _liveliest(axis: plt.Axes, seen: Recorder) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (step, row, emitted) of the neurons whose output changes most often; name them on `axis`."""
    y = seen["y"]
    shown = np.argsort(-(np.diff(y, axis=0) != 0).sum(0), kind="stable")[:SHOWN]
    axis.set(ylabel="neuron, most changes on top", ylim=(SHOWN - 0.4, -0.6))
    axis.set_yticks(range(SHOWN), shown, fontsize=7)
    steps, rows = np.nonzero(y[:, shown])
    return TIME[steps], rows, y[steps, shown[rows]]


def _vsn_trace(axis: plt.Axes, seen: Recorder) -> None:
    neuron = _busiest(seen["o"])
    _potential(axis, seen, neuron)
    _spikes(axis, seen["y"][:, neuron], "k", "graded spike $y_t$")


def _lifb_trace(axis: plt.Axes, seen: Recorder) -> None:
    y = seen["y"]
    neuron = int(np.argmax(np.minimum((y == 1).sum(0), (y > 1).sum(0))))
    _potential(axis, seen, neuron)
    axis.axhline(seen.level("burst_threshold")[neuron], ls=":", color=BURST, label="burst threshold")
    _spikes(axis, np.where(y == 1, y, 0)[:, neuron], REGULAR, "regular spike")
    _spikes(axis, np.where(y > 1, y, 0)[:, neuron], BURST, "burst")


def _soft_trace(axis: plt.Axes, seen: Recorder) -> None:
    neuron = _busiest(seen["o"])
    _potential(axis, seen, neuron)
    carried = (seen["h"] - seen["y"])[:, neuron]
    axis.plot(TIME, carried, "x", color="tab:orange", label="carried on, $h_t - y_t$")
    _spikes(axis, seen["y"][:, neuron], "k", "spike $y_t$")
    axis.set_title("SoftResetMPR: the rounding error is carried on")


def _busiest(o: np.ndarray) -> int:
    """Return the neuron that most often changes between firing and silence."""
    return int(np.argmax(np.abs(np.diff(o, axis=0)).sum(0)))


def _potential(axis: plt.Axes, seen: Recorder, neuron: int) -> None:
    axis.plot(TIME, seen["h"][:, neuron], ".-", color="0.45", label="potential $h_t$ before reset")
    axis.axhline(seen.level("threshold")[neuron], ls="--", lw=1, color="0.3", label="threshold")
    axis.set_ylabel(f"neuron {neuron}:\npotential, spikes")
    axis.margins(y=0.12)


def _spikes(axis: plt.Axes, y: np.ndarray, color: str, label: str) -> None:
    axis.vlines(TIME[y != 0], 0, y[y != 0], color=color, lw=3, label=label)
