"""The demo's course: train every arm in every framework, print the table, draw the picture."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from .networks import ARMS, Network
from .picture import draw
from .tasks import DIABETES, DIGITS, Outcome, Task, train

TITLES = {"snntorch": "snnTorch", "spikingjelly": "SpikingJelly"}
ROWS = {"VSN": "VSN + LIF", "LIF": "LIF + LIF", "ReLU": "ReLU, no spikes"}


def run(
    frameworks: list[str], *, seeds: int, quick: bool, output: str
) -> dict[tuple[str, str, str], list[Outcome]]:
    """Run the demo; return the outcomes of all seeds by (task, framework, arm)."""
    console = Console()
    torch.set_num_threads(1)  # the layers are small: more threads would only wait for one another
    titles = {name: f"{TITLES[name]} {importlib.metadata.version(name)}" for name in frameworks}
    tasks = [DIGITS, DIABETES]
    if quick:
        tasks = [dataclasses.replace(task, epochs=2, folds=1) for task in tasks]
    console.print(
        f"snn-ext demo: {', '.join(titles.values())}, torch {torch.__version__}, "
        f"1 thread, {seeds} seed{'s' if seeds > 1 else ''}"
    )
    outcomes: dict[tuple[str, str, str], list[Outcome]] = defaultdict(list)
    pictured: dict[str, Network] = {}
    with Progress(
        TextColumn("{task.description:<42}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
        console=console,
    ) as progress:
        total = seeds * len(frameworks) * len(ARMS) * sum(task.epochs * task.folds for task in tasks)
        bar = progress.add_task("", total=total)
        for seed in range(seeds):
            for task in tasks:
                for framework in frameworks:
                    for arm in ARMS:
                        progress.update(bar, description=f"{task.name}, {TITLES[framework]}, {ROWS[arm]}")
                        outcome = train(
                            task,
                            framework,
                            arm,
                            seed,
                            epochs=task.epochs,
                            folds=task.folds,
                            tick=lambda: progress.advance(bar),
                        )
                        outcomes[task.name, framework, arm].append(outcome)
                        if seed == 0 and task is tasks[0] and arm == "VSN":
                            pictured[framework] = outcome.network
    console.print("LIF is the framework's own neuron; ± is the standard deviation over seeds.")
    for task in tasks:
        console.print(_table(task, frameworks, outcomes))
    for framework in frameworks if seeds > 1 else ():
        console.print(_paired(titles[framework], outcomes, framework))
    if quick:
        console.print(
            "--quick trains for 2 epochs: the scores above mean nothing; run without it to see them."
        )
    path = Path(output).resolve()
    draw(pictured, titles, seed=0, path=path)
    console.print(f"picture: {path}", soft_wrap=True)
    console.print("next: snn-ext demo --seeds 5 (paired comparison), or snn-ext info", highlight=False)
    return outcomes


def _table(
    task: Task,
    frameworks: list[str],
    outcomes: dict[tuple[str, str, str], list[Outcome]],
) -> Table:
    s = "" if task.steps == 1 else "s"
    how = "5-fold cross-validation" if task.folds == 5 else "one split of 80 to 20"
    table = Table(
        title=f"{task.name}: {task.steps} step{s}, {task.epochs} epochs, {how} a seed", title_justify="left"
    )
    for column, justify in (
        ("framework", "left"),
        ("network", "left"),
        (task.score, "right"),
        ("activity", "right"),
        ("s/epoch", "right"),
    ):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    digits = 1 if task.outputs > 1 else 3
    for framework in frameworks:
        for arm in ARMS:
            results = outcomes[task.name, framework, arm]
            table.add_row(
                TITLES[framework],
                ROWS[arm],
                _spread([r.score for r in results], digits),
                "-" if arm == "ReLU" else _spread([r.activity for r in results], 2),
                _spread([r.seconds for r in results], 3),
            )
        table.add_section()
    return table


def _spread(values: list[float], digits: int) -> str:
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.{digits}f}"


def _paired(title: str, outcomes: dict[tuple[str, str, str], list[Outcome]], framework: str) -> str:
    vsn, lif = (outcomes["diabetes", framework, arm] for arm in ("VSN", "LIF"))
    differences = np.array([a.score - b.score for a, b in zip(vsn, lif, strict=True)])
    ahead = f"VSN ahead in {(differences > 0).sum()} of {len(differences)}"
    return (
        f"{title}, diabetes, VSN minus LIF over {len(differences)} paired seeds: "
        f"R2 {differences.mean():+.3f} ± {differences.std(ddof=1):.3f}; {ahead}"
    )
