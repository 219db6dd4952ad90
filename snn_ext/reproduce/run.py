"""The course of ``snn-ext reproduce``: run what is missing, print the tables, write figures and picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from ..terminal import Interrupted, Progress, whole
from . import conversion, conversion_report, energy, energy_report

STUDIES: dict[str, tuple[Any, Any]] = {
    "conversion": (conversion, conversion_report),
    "energy": (energy, energy_report),
}
"""By name: the module that runs a study, and the one that reports it."""


def run(name: str, data: str, folder: Path, *, seeds: int, output: str) -> dict[str, Any]:
    """Run the study of this name and return its results."""
    study, report = STUDIES[name]
    console = Console()
    console.print(
        f"snn-ext reproduce {name}: {len(study.KINDS)} networks, {seeds} seeds; what is done is kept in "
        f"{folder.resolve()}, and an interrupted run goes on from there",
        soft_wrap=True,
    )
    if name == "conversion" and not conversion.native_arms([]):
        console.print("without SpikingJelly 2.0 its own conversions are left out")
    with Progress(console) as progress:

        def tick(kind: str, seed: int, what: str) -> None:
            progress(f"{study.KINDS[kind].title}, seed {seed}: {what}")

        try:
            results = study.run(data, folder, seeds=range(seeds), tick=tick)
        except KeyboardInterrupt as interrupt:
            kept = f"what is done is kept in {folder.resolve()}, and the same command goes on from there"
            raise Interrupted(kept) from interrupt
    console.print(f"\n{report.text(results)}", highlight=False, markup=False, soft_wrap=True)
    figures, picture = (Path(f"{output}{ending}").resolve() for ending in (".json", ".png"))
    with whole(figures) as part:
        part.write_text(json.dumps(results, indent=1) + "\n")
    report.draw(results, picture)
    console.print(f"\nfigures: {figures}\npicture: {picture}", soft_wrap=True)
    return results
