"""The demo's course: train every arm in every framework, print the tables, draw the picture."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table

from ..terminal import Interrupted, Progress
from . import conversion, energy
from .networks import ARMS, Network
from .picture import draw
from .tasks import DIGITS, SACCADES, TASKS, Outcome, Task, train

TITLES = {"snntorch": "snnTorch", "spikingjelly": "SpikingJelly"}
ROWS = {
    "VSN": "VSN + LIF",
    "LIFB": "LIFB + LIFB",
    "SoftReset": "2 SoftReset",
    "LIF": "LIF + LIF",
    "ReLU": "ReLU",
}
OBSERVED = {"LIFB": "bursts {:.2f}", "SoftReset": "error {:.2f}"}
LEGEND = """
LIF is the framework's own neuron, SoftReset is SoftResetMPR, ReLU does not
spike (and sees the mean of the saccades).  Activity: fraction of neurons and
steps that emit; bursts: that burst; error: (potential - spike)^2, in spikes.
± is the standard deviation over seeds.
"""
MEASURED = ("LIF", "VSN")
"""The arms whose energy is printed; that of the last is drawn."""
Outcomes = dict[tuple[str, str, str], list[Outcome]]


def run(frameworks: list[str], *, seeds: int, quick: bool, output: str) -> Outcomes:
    """Run the demo; return the outcomes of all seeds by (task, framework, arm)."""
    console = Console()
    torch.set_num_threads(1)  # the layers are small: more threads would only wait for one another
    titles = {name: f"{TITLES[name]} {importlib.metadata.version(name)}" for name in frameworks}
    tasks = [dataclasses.replace(task, epochs=2, folds=1) for task in TASKS] if quick else TASKS
    console.print(
        f"snn-ext demo: {', '.join(titles.values())}, torch {torch.__version__}, "
        f"1 thread, {seeds} seed{'s' if seeds > 1 else ''}"
    )
    outcomes: Outcomes = defaultdict(list)
    total = seeds * len(frameworks) * len(ARMS) * sum(task.epochs * task.folds for task in tasks)
    try:
        with Progress(console, total) as progress:
            for seed, task, framework, arm in itertools.product(range(seeds), tasks, frameworks, ARMS):
                progress(f"{task.name}, {TITLES[framework]}, {ROWS[arm]}")
                outcome = train(task, framework, arm, seed, tick=progress.advance)
                outcomes[task.name, framework, arm].append(outcome)
    except KeyboardInterrupt as interrupt:
        if not outcomes:
            raise
        _print_scores(console, tasks, frameworks, outcomes)
        raise Interrupted("the tables above hold what was trained until then") from interrupt
    _print_scores(console, tasks, frameworks, outcomes)
    if seeds > 1:
        console.print(_differences(frameworks, outcomes, seeds))
    for part in _conversion(frameworks, outcomes):
        console.print(part, highlight=False, soft_wrap=isinstance(part, str))
    reports = {
        arm: energy.measure(outcomes[SACCADES.name, frameworks[0], arm][0].network, seed=0)
        for arm in MEASURED
    }
    for arm, report in reports.items():
        title = f"energy of a saccade, {TITLES[frameworks[0]]}, {ROWS[arm]}, seed 0"
        console.print(f"{title}\n{report}\n", highlight=False, markup=False, soft_wrap=True)
    if quick:
        console.print(
            "--quick trains for 2 epochs: the scores above mean nothing;\nrun without it to see them."
        )
    path = Path(output).resolve()
    draw(_pictured(outcomes, frameworks[0]), titles[frameworks[0]], seed=0, path=path)
    bars = path.with_name(f"{path.stem}-energy{path.suffix}")
    reports[MEASURED[-1]].draw(bars)
    console.print(f"picture: {path}\nenergy: {bars}", soft_wrap=True)
    console.print("next: snn-ext demo --seeds 5 (paired comparison), or snn-ext info", highlight=False)
    return outcomes


def _print_scores(console: Console, tasks: Sequence[Task], frameworks: list[str], outcomes: Outcomes) -> None:
    console.print(LEGEND)
    for task in tasks:
        if any(name == task.name for name, _, _ in outcomes):
            console.print(_scores(task, frameworks, outcomes))


def _scores(task: Task, frameworks: list[str], outcomes: Outcomes) -> Table:
    s = "" if task.steps == 1 else "s"
    how = f"{task.folds}-fold cross-validation" if task.folds > 1 else "one split of 80 to 20"
    table = Table(
        title=f"{task.name}: {task.steps} step{s}, {task.epochs} epochs, {how} a seed",
        title_justify="left",
        box=box.SIMPLE,
        pad_edge=False,
    )
    table.add_column("framework")
    table.add_column("network")
    for column in (task.score, "activity", "observed", "s/epoch"):
        table.add_column(column, justify="right")
    for framework in frameworks:
        for arm in ARMS:
            results = outcomes.get((task.name, framework, arm))
            if not results:  # interrupted before
                continue
            table.add_row(
                TITLES[framework],
                ROWS[arm],
                _spread([r.score for r in results], _digits(task)),
                "" if arm == "ReLU" else f"{np.mean([r.activity for r in results]):.2f}",
                OBSERVED.get(arm, "").format(np.mean([r.observed for r in results])),
                f"{np.mean([r.seconds for r in results]):.3f}",
            )
        table.add_section()
    return table


def _conversion(frameworks: list[str], outcomes: Outcomes) -> Iterator[Table | str]:
    """Yield what becomes of the ReLU network of the digits as a spiking one."""
    table = Table(
        title="conversion: the digits' ReLU network as a spiking one, Poisson-coded images, accuracy %",
        title_justify="left",
        box=box.SIMPLE,
        pad_edge=False,
    )
    table.add_column("framework")
    for column in ("ReLU", *(f"T = {step}" for step in conversion.STEPS)):
        table.add_column(column, justify="right")
    reports = []
    for framework in frameworks:
        results = outcomes[DIGITS.name, framework, "ReLU"]
        found = [
            conversion.convert(framework, result.network.net, seed) for seed, result in enumerate(results)
        ]
        reports.append(found[0][1])
        curves = zip(*(accuracies for accuracies, _ in found), strict=True)
        cells = [_spread(list(values), 1) for values in ([r.score for r in results], *curves)]
        table.add_row(TITLES[framework], *cells)
    yield table
    yield f"{reports[0]}\n"


def _differences(frameworks: list[str], outcomes: Outcomes, seeds: int) -> Table:
    table = Table(
        title=f"difference to LIF + LIF over {seeds} paired seeds (how often ahead)",
        title_justify="left",
        box=box.SIMPLE,
        pad_edge=False,
    )
    table.add_column("task")
    table.add_column("network")
    for framework in frameworks:
        table.add_column(TITLES[framework], justify="right")
    for task in TASKS:
        for arm in ARMS:
            if arm != "LIF":
                cells = [_paired(task, outcomes, framework, arm) for framework in frameworks]
                table.add_row(task.name, ROWS[arm], *cells)
        table.add_section()
    return table


def _paired(task: Task, outcomes: Outcomes, framework: str, arm: str) -> str:
    pairs = zip(outcomes[task.name, framework, arm], outcomes[task.name, framework, "LIF"], strict=True)
    differences = [ours.score - lif.score for ours, lif in pairs]
    ahead = sum(difference > 0 for difference in differences)
    return f"{_spread(differences, _digits(task), '+')} ({ahead}/{len(differences)})"


def _digits(task: Task) -> int:
    return 1 if task.outputs > 1 else 3


def _spread(values: list[float], digits: int, sign: str = "") -> str:
    mean = f"{np.mean(values):{sign}.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.{digits}f}"


def _pictured(outcomes: Outcomes, framework: str) -> dict[str, Network]:
    return {arm: outcomes[SACCADES.name, framework, arm][0].network for arm in ("VSN", "LIFB", "SoftReset")}
