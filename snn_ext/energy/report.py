r"""What a network spends: synaptic operations of each layer of weights, in pJ.

A spike that arrives costs an accumulate (AC) at each synapse that it drives, and a multiply-accumulate (MAC)
where it is graded, as that of a VSN.  A burst counts as the spikes that it is sent as.  Weights that meet
anything else, such as an analogue image, are charged as MAC, all of them, zeros included; where all of what
they meet is 0 or 1, as events are, each 1 is charged as AC.  The *twin* is the same network without spikes
and without time: every weight in use once, as MAC.

Biases, the neurons' own dynamics and memory are not counted.

Against other counters:

* SpikingJelly 2.0's ``SynOpCounter`` agrees to the operation where spikes reach the weights as 0 and 1.
  After average pooling it counts nothing, after max pooling what has been merged; here each spike is sent
  by itself.  Its ``MACCounter`` charges the padding of a convolution as well.
* NeuroBench's ``SynapticOperations`` agrees likewise (``Effective_ACs``); it leaves zero weights out, and in
  its ``Effective_MACs`` zeros of the input, which its ``Dense`` includes.

Unit energies: 4.6 and 0.9 pJ, 45 nm, 32-bit floating point (M. Horowitz, ISSCC 2014).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from . import layers
from .layers import Layer
from .synapses import Synapse, Wiring

__all__ = ["EnergyReport", "measure_energy"]


@dataclasses.dataclass(frozen=True)
class Spent:
    """What a layer of weights spends on a sample."""

    name: str
    source: str
    """The spiking layers that drive it, or ``"analogue"`` or ``"events"`` for what is not from neurons."""
    mac: float
    """Multiply-accumulates."""
    ac: float
    """Accumulates."""
    twin: float
    """Multiply-accumulates of the twin without spikes."""

    @property
    def synops(self) -> float:
        """Synaptic operations of both kinds."""
        return self.mac + self.ac


@dataclasses.dataclass(frozen=True)
class EnergyReport:
    """What a network spends on a sample, on average; printed as a table, drawn as bars."""

    rows: list[Spent]
    rates: dict[str, float]
    """Spikes of a neuron in a step, by spiking layer."""
    samples: int
    mac_pj: float
    ac_pj: float

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

    def __str__(self) -> str:
        head = ("weights", "driven by", "rate", "MAC", "AC", "energy [nJ]", "twin [nJ]")
        rows = [
            (
                row.name,
                row.source,
                ", ".join(f"{self.rates[name]:.3f}" for name in row.source.split(", ") if name in self.rates),
                f"{row.mac:,.0f}",
                f"{row.ac:,.0f}",
                f"{self.energy(row) / 1e3:,.2f}",
                f"{row.twin * self.mac_pj / 1e3:,.2f}",
            )
            for row in self.rows
        ]
        sums = [f"{sum(getattr(row, kind) for row in self.rows):,.0f}" for kind in ("mac", "ac")]
        rows.append(
            ("all", "", "", sums[0], sums[1], f"{self.total_pj / 1e3:,.2f}", f"{self.twin_pj / 1e3:,.2f}")
        )
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        lines = [
            "  ".join(
                c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths, strict=True))
            )
            for r in (head, *rows)
        ]
        rule = "-" * len(lines[0])
        return "\n".join(
            [
                lines[0],
                rule,
                *lines[1:-1],
                rule,
                lines[-1],
                f"per sample, mean of {self.samples}; MAC {self.mac_pj} pJ, AC {self.ac_pj} pJ; twin: the "
                f"same "
                "weights without spikes and time",
            ]
        )

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
            f"samples",
            loc="left",
            fontsize=10,
        )
        axes.margins(y=0.12)
        axes.legend(frameon=False, fontsize=8)
        axes.grid(axis="y", alpha=0.25)
        figure.savefig(path, dpi=130)


def measure_energy(
    net: nn.Module,
    loader: Iterable[Any],
    *,
    steps: int | None = None,
    mac_pj: float = 4.6,
    ac_pj: float = 0.9,
    progress: bool = True,
) -> EnergyReport:
    """Measure what `net` spends on the samples of a loader.

    Parameters
    ----------
    net : nn.Module
        A network with spiking layers of snnTorch, SpikingJelly or this package; run in evaluation mode, reset
        before each batch, and left as it was found.
    loader : iterable
        Batches: what `net` is called with, alone or first in a tuple or list (the rest, labels, is ignored).
    steps : int, optional
        Call `net` so many times with each batch, for a network of one step (direct coding); once if left out.
    mac_pj, ac_pj : float, default 4.6 and 0.9
        Energy of a multiply-accumulate and of an accumulate, in pJ.
    progress : bool, default True
        Show a progress bar.

    Returns
    -------
    EnergyReport
        Per layer of weights; ``print`` shows a table, ``draw("energy.png")`` a picture.

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        Naming the argument, the value and the remedy; see `fan_out` for what can be counted.

    Notes
    -----
    See `snn_ext.energy.report` for what is counted, and how it compares with other counters.
    """
    for name, value in (("mac_pj", mac_pj), ("ac_pj", ac_pj)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise ValueError(f"{name}={value!r} must be a finite number of pJ, not negative")
    if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 1):
        raise ValueError(f"steps={steps!r} must be a whole number of calls, at least 1, or None")
    meter: _Meter | None = None
    for batch in tqdm(loader, "energy", disable=not progress):
        x = batch[0] if isinstance(batch, (tuple, list)) else batch
        if meter is None:
            meter = _Meter(net, x)
        meter.run(x, steps or 1)
    if meter is None:
        raise ValueError("loader gave no batch; give it at least one")
    return meter.report(float(mac_pj), float(ac_pj))


class _Meter:
    """Adds up what layers emit, and what weights meet that is not from neurons."""

    def __init__(self, net: nn.Module, sample: Tensor) -> None:
        self.net = net
        self.wiring = Wiring(net, sample)
        self.counts: dict[str, Tensor] = {}
        self.runs: dict[str, int] = {}
        self.samples = 0
        self.met: dict[str, list[float]] = {}
        self.modules = dict(net.named_modules())
        self.analogue = [synapse for synapse in self.wiring.synapses if not synapse.drives]
        for synapse in self.analogue:
            if synapse.name not in self.modules:
                raise NotImplementedError(
                    f"{synapse.name}: weights that meet something else than spikes outside a layer of their "
                    f"own; "
                    "put them into a torch.nn module"
                )

    def see(self, layer: Layer, spikes: Tensor, leading: int, steps: int, power: float) -> None:
        counts = spikes.sum(dim=tuple(range(leading)), dtype=torch.float64)
        self.counts[layer.name] = self.counts.get(layer.name, 0) + counts
        self._steps[layer.name] = self._steps.get(layer.name, 0) + steps
        self._batch = spikes.shape[leading - 1]

    def begin(self, layer: Layer) -> None:
        """Go on: all batches are added up."""

    def run(self, x: Tensor, steps: int) -> None:
        self._steps: dict[str, int] = {}
        with layers.untouched(self.net, self):
            ends = [layers.watch(layer, self) for layer in self.wiring.layers]
            ends += [
                self.modules[s.name].register_forward_pre_hook(self._meets(s)).remove for s in self.analogue
            ]
            try:
                self.net.eval()
                layers.reset(self.net)
                with torch.no_grad():
                    for _ in range(steps):
                        self.net(x)
            finally:
                for end in ends:
                    end()
        self.samples += self._batch
        for name, count in self._steps.items():
            self.runs[name] = self.runs.get(name, 0) + count * self._batch
        self.steps = max(self._steps.values())

    def _meets(self, synapse: Synapse) -> Callable[..., None]:
        met = self.met.setdefault(synapse.name, [0.0, 0.0])

        def hook(module: Any, inputs: tuple[Any, ...]) -> None:
            x = inputs[0]
            binary = bool(((x == 0) | (x == 1)).all())
            met[int(binary)] += synapse.meets(x if binary else torch.ones_like(x))

        return hook

    def report(self, mac_pj: float, ac_pj: float) -> EnergyReport:
        graded = {layer.name for layer in self.wiring.layers if layer.graded}
        rows = []
        for synapse in self.wiring.synapses:
            mac, ac = self.met.get(synapse.name, (0.0, 0.0))
            source = "analogue" if mac else "events"
            for name, psi in synapse.drives.items():
                operations = float((self.counts[name] * psi.double()).sum())
                mac, ac = (mac + operations, ac) if name in graded else (mac, ac + operations)
            if synapse.drives:
                source = ", ".join(synapse.drives)
            rows.append(
                Spent(synapse.name, source, mac / self.samples, ac / self.samples, self.wiring.twin(synapse))
            )
        rates = {name: float(c.mean()) / self.runs[name] for name, c in self.counts.items()}
        return EnergyReport(rows, rates, self.samples, mac_pj, ac_pj)
