r"""What a network spends: synaptic operations of each layer of weights, in pJ.

A spike that arrives costs an accumulate (AC) at each synapse that it drives, and a multiply-accumulate (MAC)
where it is graded, as that of a VSN.  A burst counts as the spikes that it is sent as.  What max pooling
holds back costs nothing.  Weights that meet anything else, such as an analogue image, are charged as MAC, all
of them, zeros included; where all of what they meet is 0 or 1, as events are, or spikes inverted (``1 - s``)
or gated by spikes, each 1 is charged as AC.  Where spikes are multiplied by spikes, as in attention, each
coincidence is an AC; in a product with anything else a spike is charged every number it meets.  What counts
by its value in this way is counted in each batch; the rest is spikes times synapses
(`snn_ext.energy.synapses`).  The *twin* is the same network without spikes and without time: every weight in
use once, as MAC.

Beside these stands the *rough* figure of many papers: multiplications of the twin, times firing rate, times
steps.  It takes every neuron to drive the mean number of synapses and to fire at the mean rate, and a sum of
spikes for one spike.

Biases, the neurons' own dynamics and memory are not counted.

A network from `convert` or `L4Recipe` is measured for as many steps, and on the coding, that it was fitted
for; any other is called as often as asked for, once if nothing is said.  The report states both, since energy
grows with the steps: what saves energy at one step can cost more than the ReLU network at the steps that its
accuracy takes.  A network without spiking layers is charged every weight it uses, as MAC.

Against other counters:

* SpikingJelly 2.0's ``SynOpCounter`` agrees to the operation where what reaches the weights is 0 and 1: in
  its spiking VGG and ResNets, SEW-ResNets with AND and IAND, PLIF networks, and the attention of Spikformer.
  Where spikes have been added up or averaged (SEW-ResNet with ADD, average pooling, a mean over steps) it
  counts nothing, and here each spike is sent by itself.  A recurrent connection of a neuron is charged the
  spikes of the last step as well.  Its ``MACCounter`` charges the padding of a convolution as well.
* NeuroBench's ``SynapticOperations`` agrees likewise (``Effective_ACs``), with ``zero_weights="skip"`` also
  where weights are zero; its ``Effective_MACs`` leave out zeros of the input, which its ``Dense`` includes.

Unit energies: 4.6 and 0.9 pJ, 45 nm, 32-bit floating point (M. Horowitz, ISSCC 2014).
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
import sys
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor, nn

from .. import checks
from ..coding import at_most, check_coding, check_seed, parts
from ..terminal import track
from . import layers
from .meter import Meter, Spent

__all__ = ["EnergyReport", "EnergyReports", "measure_energy"]

INPUT = {
    "poisson": "images as random spikes (poisson)",
    "direct": "the same input at every step (direct)",
    "given": "input as given",
}
NEARLY_ALL = 0.9
"""Of the energy: above it, what analogue input costs leaves nothing that spikes could save."""


@dataclasses.dataclass(frozen=True)
class EnergyReport:
    """What a network spends on a sample, on average; printed as a table, drawn as bars."""

    rows: list[Spent]
    rates: dict[str, float]
    """Spikes of a neuron in a step, by spiking layer."""
    samples: int
    mac_pj: float
    ac_pj: float
    steps: float = 1
    """Steps that the spiking layers ran for a sample."""
    coding: str = "given"
    """The input at each step: ``"poisson"``, ``"direct"``, or ``"given"``, as the loader had it."""
    fitted: int | None = None
    """For how many steps a converted network was fitted."""
    spiking: bool = True
    """Whether the network has spiking layers."""
    versions: str = ""
    """Of the packages that the numbers come from."""

    @property
    def rough_pj(self) -> float:
        """What papers report: multiplications of the twin x firing rate x steps; see `Spent.rough`."""
        return sum(self._rough(row) for row in self.rows)

    def _rough(self, row: Spent) -> float:
        return row.rough * (self.mac_pj if row.mac > row.ac else self.ac_pj)

    def energy(self, row: Spent) -> float:
        """Return what a layer of weights spends, in pJ."""
        return row.mac * self.mac_pj + row.ac * self.ac_pj

    @property
    def total_pj(self) -> float:
        """Energy of a sample, in pJ."""
        return sum(self.energy(row) for row in self.rows)

    @property
    def twin_pj(self) -> float:
        """Energy of the twin without spikes, in pJ."""
        return sum(row.twin for row in self.rows) * self.mac_pj

    @property
    def analogue(self) -> float:
        """The fraction of the energy that is spent on analogue input."""
        spent = sum(self.energy(row) for row in self.rows if row.source == "analogue")
        return spent / self.total_pj if spent else 0.0

    @property
    def shown(self) -> str:
        """What the network was measured on: how many steps, of what."""
        if not self.spiking:
            return "no spiking layer: called once, every weight as MAC"
        meant = "" if self.fitted in (None, self.steps) else f" (fitted for {self.fitted})"
        return f"{_number(self.steps)} step{'' if self.steps == 1 else 's'}{meant}, {INPUT[self.coding]}"

    @property
    def basis(self) -> str:
        """What the numbers rest on, in lines that fit a terminal."""
        return textwrap.fill(
            f"per sample, mean of {self.samples}; MAC {self.mac_pj} pJ, AC {self.ac_pj} pJ; twin: the same "
            f"weights without spikes and time; rough: twin x firing rate x steps; {self.versions}",
            98,
        )

    def __str__(self) -> str:
        head = ("weights", "driven by", "rate", "MAC", "AC", "energy [nJ]", "rough [nJ]", "twin [nJ]")
        rows = [
            (
                row.name,
                row.source,
                ", ".join(f"{self.rates[name]:.3f}" for name in row.source.split(", ") if name in self.rates),
                f"{row.mac:,.0f}",
                f"{row.ac:,.0f}",
                f"{self.energy(row) / 1e3:,.2f}",
                f"{self._rough(row) / 1e3:,.2f}",
                f"{row.twin * self.mac_pj / 1e3:,.2f}",
            )
            for row in self.rows
        ]
        sums = [f"{sum(getattr(row, kind) for row in self.rows):,.0f}" for kind in ("mac", "ac")]
        total, rough, twin = (f"{pj / 1e3:,.2f}" for pj in (self.total_pj, self.rough_pj, self.twin_pj))
        rows.append(("all", "", "", sums[0], sums[1], total, rough, twin))
        lines = table(head, rows, left=2)
        return "\n".join([*lines[:-1], lines[1], lines[-1], self.shown, self.basis])

    def draw(self, path: str | Path) -> None:
        """Write a picture: the energy of each layer of weights beside its twin's.

        Parameters
        ----------
        path : str or Path
            The file, of a kind that matplotlib writes.
        """
        from matplotlib.figure import Figure

        figure = Figure(figsize=(max(5.0, 0.9 * len(self.rows) + 2), 3.6), layout="constrained")
        axes = figure.subplots()
        places = range(len(self.rows))
        mac = [row.mac * self.mac_pj / 1e3 for row in self.rows]
        ac = [row.ac * self.ac_pj / 1e3 for row in self.rows]
        axes.bar([i - 0.2 for i in places], mac, 0.38, color="#d55e00", label="multiply-accumulate")
        axes.bar([i - 0.2 for i in places], ac, 0.38, bottom=mac, color="#0072b2", label="accumulate")
        twin = [row.twin * self.mac_pj / 1e3 for row in self.rows]
        axes.bar([i + 0.2 for i in places], twin, 0.38, color="0.75", label="twin without spikes")
        axes.set_xticks(list(places), [row.name for row in self.rows])
        axes.set_xlabel("weights")
        axes.set_ylabel("energy of a sample [nJ]")
        axes.set_title(
            f"{self.total_pj / 1e3:,.1f} nJ, twin {self.twin_pj / 1e3:,.1f} nJ; mean of {self.samples} "
            f"samples; {self.shown}",
            loc="left",
            fontsize=10,
        )
        axes.margins(y=0.12)
        axes.legend(frameon=False, fontsize=8)
        axes.grid(axis="y", alpha=0.25)
        figure.savefig(path, dpi=130)


class EnergyReports(dict[str, EnergyReport]):
    """What several networks spend on the same samples, by name; printed, a line for each."""

    def __str__(self) -> str:
        first = next(iter(self.values())).total_pj
        rows = [
            (
                name,
                report.shown,
                f"{sum(row.mac for row in report.rows):,.0f}",
                f"{sum(row.ac for row in report.rows):,.0f}",
                f"{report.total_pj / 1e3:,.2f}",
                f"{report.total_pj / first:.2f} x" if first else "",
            )
            for name, report in self.items()
        ]
        head = ("network", "measured on", "MAC", "AC", "energy [nJ]", "over the first")
        return "\n".join([*table(head, rows, left=2), next(iter(self.values())).basis])


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]], left: int = 1) -> list[str]:
    """Return the lines of a table: its head, a rule, its rows; the first `left` columns start at the left."""
    cells = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]


@overload
def measure_energy(
    net: nn.Module,
    loader: Iterable[Any],
    *,
    steps: int | None = ...,
    coding: str | None = ...,
    seed: int = ...,
    zero_weights: str = ...,
    mac_pj: float = ...,
    ac_pj: float = ...,
    progress: bool = ...,
) -> EnergyReport: ...
@overload
def measure_energy(
    net: Mapping[str, nn.Module],
    loader: Iterable[Any],
    *,
    steps: int | None = ...,
    coding: str | None = ...,
    seed: int = ...,
    zero_weights: str = ...,
    mac_pj: float = ...,
    ac_pj: float = ...,
    progress: bool = ...,
) -> EnergyReports: ...
def measure_energy(
    net: nn.Module | Mapping[str, nn.Module],
    loader: Iterable[Any],
    *,
    steps: int | None = None,
    coding: str | None = None,
    seed: int = 0,
    zero_weights: str = "count",
    mac_pj: float = 4.6,
    ac_pj: float = 0.9,
    progress: bool = True,
) -> EnergyReport | EnergyReports:
    """Measure what `net` spends on the samples of a loader.

    Parameters
    ----------
    net : nn.Module, or mapping of names to such
        A network with spiking layers of snnTorch, SpikingJelly or this package, or one without, such as a
        ReLU network, which is called once and charged every weight as MAC; run in evaluation mode, reset
        before each batch, and left as it was found.  Several, to stand side by side:
        ``{"before": ann, "after": snn}``.
    loader : iterable
        Batches: what `net` is called with, alone or first in a tuple or list (the rest, labels, is ignored).
        For a converted network images, or sequences of them, shape (T, N, ...).
    steps : int, optional
        Call a network of one step so many times with each batch.  By default as many as a converted network
        was fitted for; any other is called once.
    coding : {"poisson", "direct"}, optional
        Show images as random spikes, drawn at each step, or as they are.  By default as a converted network
        was fitted for, as `accuracy_curve` does; else as they are.
    seed : int, default 0
        Of the spikes.
    zero_weights : {"count", "skip"}, default "count"
        Whether weights that are zero, as after pruning, cost an operation: "count" as SpikingJelly's counters
        do, "skip" as NeuroBench does.
    mac_pj, ac_pj : float, default 4.6 and 0.9
        Energy of a multiply-accumulate and of an accumulate, in pJ.
    progress : bool, default True
        Show a progress bar.

    Returns
    -------
    EnergyReport
        Per layer of weights; ``print`` shows a table, ``draw("energy.png")`` a picture.  For a mapping,
        `EnergyReports`: a dictionary of them, printed with a line for each.

    Warns
    -----
    UserWarning
        Analogue input costs more than 90 % of the energy: no sparsity of spikes can save much.

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        Naming the argument, the value and the remedy; see `fan_out` for what can be counted.

    Notes
    -----
    See `snn_ext.energy.report` for what is counted, and how it compares with other counters.
    """
    for name, value in (("mac_pj", mac_pj), ("ac_pj", ac_pj)):
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < 1e300:
            raise ValueError(f"{name}={checks.shown(value)} must be a finite number of pJ, not negative")
    if steps is not None and not checks.is_whole(steps):
        raise ValueError(f"steps={checks.shown(steps)} must be a whole number of calls, at least 1, or None")
    if coding is not None:
        check_coding(coding)
    check_seed(seed)
    progress = checks.flag("progress", progress)
    checks.batches("loader", loader)
    networks = net if isinstance(net, Mapping) else {"": net}
    if not networks:
        raise ValueError("net is empty; give at least one network")
    shows = {name: _Shown(network, steps, coding, seed) for name, network in networks.items()}
    meters: dict[str, Meter] = {}
    for batch in track(loader, "energy", disable=not progress):
        x = batch[0] if isinstance(batch, (tuple, list)) else batch
        for name, show in shows.items():
            if name not in meters:
                meters[name] = Meter(show.net, show.sample(x), zero_weights)
            meters[name].run(show(x))
    if not meters:
        raise ValueError("loader gave no batch; give it at least one")
    reports = EnergyReports(
        {name: _report(meter, float(mac_pj), float(ac_pj), shows[name]) for name, meter in meters.items()}
    )
    for report in reports.values():
        if report.spiking and report.analogue > NEARLY_ALL:
            names = ", ".join(repr(row.name) for row in report.rows if row.source == "analogue")
            warnings.warn(
                f"{100 * report.analogue:.0f} % of the energy is spent by the weights {names} on analogue "
                "input, at every step, of which sparse spikes save nothing; take fewer steps, or show the "
                "input as spikes (coding='poisson', or events)",
                stacklevel=2,
            )
    return reports if isinstance(net, Mapping) else reports[""]


class _Shown:
    """What a network is called with, step by step, for a batch."""

    def __init__(self, net: nn.Module, steps: int | None, coding: str | None, seed: int) -> None:
        spiking = layers.spiking(net, needed=False)
        self.net, self.spiking, self.seed = net, bool(spiking), seed
        made: list[Any] = [layer.converted for layer in net.children() if hasattr(layer, "converted")]
        self.fitted = made[0] if made else None
        """What a converted network knows of how it was fitted (`snn_ext.conversion.spiking.Converted`)."""
        self.over_steps = bool(made) and spiking[0].leading == 2
        self.widest = max((math.prod(layer.shape) for layer in made), default=0)
        self.asked = steps is not None or coding is not None
        self.steps: int = steps or (made[0].steps if made else 1)
        self.coding = coding or (made[0].coding if made else "given" if steps is None else "direct")
        if coding == "poisson" and steps is None and self.spiking and not made:
            raise ValueError("coding='poisson' needs a number of steps; give steps, e.g. steps=16")
        self._generator: torch.Generator | None = None

    def __call__(self, x: Any) -> Iterator[Any]:
        """Yield what the network is called with for the batch `x`."""
        if not self.spiking:
            yield x
        elif self._sequence(x):
            yield from (x,) if self.over_steps else x
        elif self.coding == "poisson" or self.fitted is not None:
            if not isinstance(x, Tensor):
                raise TypeError(
                    f"loader gave a {type(x).__name__}, which is no image to show; give images as tensors"
                )
            if self._generator is None:
                self._generator = torch.Generator(x.device).manual_seed(self.seed)
            largest = at_most(self.widest, len(x)) if self.over_steps else 1
            for part in parts(x, self.steps, self.coding, largest, self._generator):
                yield part if self.over_steps else part[0]
        else:
            for _ in range(self.steps):
                yield x

    def sample(self, x: Any) -> Any:
        """Return what one call takes, to find the synapses by: for a converted network, of one image."""
        if self.fitted is None or not self.spiking:
            return x
        if self._sequence(x):
            return x[:1, :1] if self.over_steps else x[0, :1]
        return x[:1].unsqueeze(0) if self.over_steps else x[:1]

    def _sequence(self, x: Any) -> bool:
        """Whether the batch of a converted network is a sequence of its own, not images to be shown."""
        if self.fitted is None:
            return False
        leading = x.dim() - len(self.fitted.image) if isinstance(x, Tensor) else 0
        if leading not in (1, 2) or len(x) == 0:
            found = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(
                f"loader gave {found}, but the network was converted for images of shape "
                f"{self.fitted.image}; give batches of images (N, ...), or sequences (T, N, ...)"
            )
        if leading == 2:
            if self.asked:
                raise ValueError(
                    "steps and coding are for images, but the loader gave a sequence of shape "
                    f"{tuple(x.shape)}, which is shown as it is; leave them out"
                )
            self.coding = "given"
        return leading == 2


def _report(meter: Meter, mac_pj: float, ac_pj: float, shown: _Shown) -> EnergyReport:
    return EnergyReport(
        meter.rows(),
        meter.rates(),
        meter.samples,
        mac_pj,
        ac_pj,
        meter.steps(),
        shown.coding,
        _fitted(meter.net),
        shown.spiking,
        _versions(),
    )


def _fitted(net: nn.Module) -> int | None:
    """Return for how many steps a network, or one inside it, was converted."""
    made = (getattr(layer, "converted", None) for layer in net.modules())
    return next((int(found.steps) for found in made if found is not None), None)


def _versions() -> str:
    """Return the versions of what computed: this package, torch, and the frameworks in use."""
    found = []
    for name in ("snn-ext", "torch", *(name for name in layers.FRAMEWORKS if name in sys.modules)):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:  # run from its sources
            found.append(name)
    return ", ".join(found)


def _number(value: float) -> str:
    return f"{value:g}" if value == int(value) else f"{value:.1f}"
