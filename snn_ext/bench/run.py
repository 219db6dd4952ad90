"""The bench's course: measure sizes, memory and networks, print the tables, write figures and picture."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from rich.console import Console

from ..ops import dispatch
from ..terminal import Interrupted, Progress, whole
from . import conversion, memory, networks, report
from .cases import Case, cases, copies, forced, forward, step
from .picture import draw
from .timing import exponent, interleaved

HEADLINE = ((1, 1000), (4, 1000), (16, 262_144))
"""Steps and neurons of the sizes whose ratios are printed."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is measured: sizes (steps, neurons), seconds and repeats for each of them and for a network."""

    sizes: tuple[tuple[int, int], ...]
    memory: tuple[int, int]
    seconds: float
    repeats: int
    slow: float
    """Seconds that a single call may take; what is slower is left out."""


CAP = 2**24
"""Steps times neurons at most: 64 MiB for each sequence, of which the frameworks keep many."""
FULL = Plan(
    (
        (1, 1000),
        *(
            (steps, neurons)
            for steps in (4, 16, 64, 256)
            for neurons in (1000, 16_384, 262_144, 1_048_576, 4_000_000)
            if steps * neurons <= CAP
        ),
    ),
    memory=(16, 1_048_576),
    seconds=6,
    repeats=5,
    slow=10,
)
QUICK = Plan((*HEADLINE, (16, 16_384)), memory=(16, 262_144), seconds=0.5, repeats=3, slow=1)


def run(
    frameworks: list[str],
    *,
    plan: Plan,
    device: torch.device,
    threads: int | None,
    output: str,
    kept: bool = False,
) -> dict[str, Any]:
    """Measure, print and write everything; return what is written to the JSON file.

    `kept` says whether the process keeps the memory that it frees (`memory.keep_freed`).
    """
    console = Console()
    if not console.is_terminal:
        console.width = 120
    before = torch.get_num_threads()
    results: dict[str, Any] = {}
    if threads:
        torch.set_num_threads(threads)
    try:
        results |= {"versions": _versions(frameworks), "machine": _machine(device, kept)}
        console.print(report.header(results))
        total = (
            len(plan.sizes) + len(frameworks) * (1 + 2 * len(networks.NETWORKS)) + len(conversion.NETWORKS)
        )
        with Progress(console, total) as progress:
            for part, measured in PARTS.items():
                results[part] = []
                for result in measured(frameworks, plan, device, progress):
                    results[part].append(result)
                    progress.advance()
        results["exponents"] = _exponents(results["sizes"])
    except KeyboardInterrupt as interrupt:
        raise _kept(results, Path(f"{output}-interrupted.json").resolve()) from interrupt
    finally:
        torch.set_num_threads(before)
    for table in report.tables(results, HEADLINE):
        console.print(table)
    figures, picture = (Path(f"{output}{ending}").resolve() for ending in (".json", ".png"))
    _write(results, figures)
    draw(results, picture)
    console.print(f"figures: {figures}\npicture: {picture}", soft_wrap=True)
    return results


def _write(results: dict[str, Any], file: Path) -> None:
    with whole(file) as part:
        part.write_text(json.dumps(results, indent=1) + "\n")


def _kept(results: dict[str, Any], file: Path) -> KeyboardInterrupt:
    """Write what was measured until an interrupt; return one that says where."""
    if not any(results.get(part) for part in PARTS):
        return Interrupted("nothing was measured yet")
    _write(results, file)
    return Interrupted(f"what was measured until then is in {file}")


def _sizes(frameworks: list[str], plan: Plan, device: torch.device, tick: Any) -> Iterator[dict[str, Any]]:
    for steps, neurons in plan.sizes:
        tick(f"{steps} steps, {neurons:,} neurons")
        x_seq = torch.randn(steps, neurons, device=device).requires_grad_()
        grad = torch.randn(steps, neurons, device=device)
        found = [case for framework in frameworks for case in cases(framework, steps, device)]
        if (steps, neurons) == HEADLINE[-1]:
            for framework in frameworks:
                for case in cases(framework, steps, device, learned=True):
                    found.append(case._replace(name=f"{case.name}{report.LEARNED}"))
        slow = [case for case in found if _too_slow(case, x_seq, grad, plan)]
        found = [case for case in found if case not in slow]
        runs: dict[Any, Any] = {}
        for case in found:
            runs[case, "forward"] = forward(case.run, x_seq)
            runs[case, "both"] = step(case.run, x_seq, grad)
        floor = Case(report.FLOOR, "", "", torch.clone)
        runs[floor, "forward"], runs[floor, "both"] = copies(x_seq.detach(), grad)
        found.append(floor)
        times = interleaved(
            runs,
            seconds=plan.seconds,
            repeats=plan.repeats,
            device=device,
            around=lambda key: forced(key[0].implementation),
        )
        entries = [
            {
                **_named(case),
                "forward": _summary(times[case, "forward"]),
                "both": _summary(times[case, "both"]),
            }
            for case in found
        ]
        left_out = [case.title for case in slow]
        yield {"steps": steps, "neurons": neurons, "cases": entries, "left out": left_out}


def _too_slow(case: Case, x_seq: torch.Tensor, grad: torch.Tensor, plan: Plan) -> bool:
    """Whether one call takes longer than the plan allows, told from a tenth of the neurons."""
    steps, neurons = x_seq.shape
    if steps * neurons < 2**20:
        return False
    part = x_seq.detach()[:, : neurons // 10].contiguous().requires_grad_()
    once = step(case.run, part, grad[:, : neurons // 10].contiguous())
    with forced(case.implementation):
        (seconds,) = interleaved({"": once}, seconds=0, repeats=1, device=x_seq.device)[""]
    return 10 * seconds > plan.slow


def _memory(frameworks: list[str], plan: Plan, device: torch.device, tick: Any) -> Iterator[dict[str, Any]]:
    steps, neurons = plan.memory
    for framework in frameworks:
        tick(f"memory, {framework}")
        unit = steps * neurons * 4
        entries = [
            {
                **dict(zip(("name", "framework", "implementation"), key, strict=True)),
                "saved": kept / unit,
                "peak": None if peak is None else peak / unit,
            }
            for key, kept, peak in memory.measured(framework, steps, neurons, device)
        ]
        yield {"framework": framework, "steps": steps, "neurons": neurons, "bytes": unit, "cases": entries}


def _networks(frameworks: list[str], plan: Plan, device: torch.device, tick: Any) -> Iterator[dict[str, Any]]:
    for found, times in _trained(frameworks, plan, device, tick, "network", networks.training_steps):
        relu = median(times[networks.RELU])
        found["cases"] = [
            {"name": name, "step": _summary(values), "relu": median(values) / relu}
            for name, values in times.items()
        ]
        yield found


def _penalties(
    frameworks: list[str], plan: Plan, device: torch.device, tick: Any
) -> Iterator[dict[str, Any]]:
    what = "network with penalties"
    plan = dataclasses.replace(plan, seconds=16 * plan.seconds)  # hundredths are to be told apart
    for found, times in _trained(frameworks, plan, device, tick, what, networks.penalised_steps):
        found["cases"] = [
            {
                "name": name,
                "penalty": penalty,
                "step": _summary(values),
                "times without": median(values) / median(times[name, ""]),
            }
            for (name, penalty), values in times.items()
        ]
        yield found


def _trained(
    frameworks: list[str], plan: Plan, device: torch.device, tick: Any, what: str, steps: Any
) -> Iterator[tuple[dict[str, Any], dict[Any, list[float]]]]:
    """Yield for each framework and network its name and size, and the times of its training steps."""
    for framework in frameworks:
        for kind in networks.NETWORKS:
            tick(f"{kind} {what}, {framework}")
            size = {"steps": networks.STEPS, "batch": networks.BATCH}
            times = interleaved(
                steps(kind, framework, device), seconds=plan.seconds, repeats=plan.repeats, device=device
            )
            yield {"network": kind, "framework": framework, **size}, times


def _conversion(
    frameworks: list[str], plan: Plan, device: torch.device, tick: Any
) -> Iterator[dict[str, Any]]:
    for kind in conversion.NETWORKS:
        tick(f"converted network, {kind}")
        times = interleaved(
            conversion.runs(kind, frameworks, device),
            seconds=plan.seconds,
            repeats=plan.repeats,
            device=device,
        )
        native = times.get(conversion.NATIVE)
        yield {
            "network": kind,
            "steps": conversion.STEPS,
            "batch": conversion.BATCH,
            "cases": [
                {
                    "name": name,
                    "run": _summary(values),
                    "images a second": conversion.BATCH / median(values),
                    "times native": median(native) / median(values) if native else None,
                }
                for name, values in times.items()
            ],
        }


PARTS = {
    "sizes": _sizes,
    "memory": _memory,
    "networks": _networks,
    "penalties": _penalties,
    "conversion": _conversion,
}
"""What is measured, by its name in the results."""


def _exponents(sizes: list[dict[str, Any]], least: int = 2**18) -> list[dict[str, Any]]:
    """Return how cost grows with steps and with neurons, where the work is large enough to rule it."""
    found = []
    for along, other in (("steps", "neurons"), ("neurons", "steps")):
        large = [size for size in sizes if size["steps"] * size["neurons"] >= least]
        for fixed in sorted({size[other] for size in large}):
            line = [size for size in large if size[other] == fixed]
            if len(line) < 3:
                continue
            for entry in line[0]["cases"]:
                key = report.key(entry)
                seconds = [report.seconds(size, key) for size in line]
                if None not in seconds:
                    fit = exponent([size[along] for size in line], seconds)  # type: ignore[arg-type]
                    found.append({**_named(entry), "along": along, other: fixed, "exponent": fit})
    return found


def _named(case: Case | dict[str, Any]) -> dict[str, str]:
    named = case._asdict() if isinstance(case, Case) else case
    return {name: named[name] for name in ("name", "framework", "implementation")}


def _summary(times: list[float]) -> dict[str, float]:
    low, _, high = quantiles(times, n=4, method="inclusive") if len(times) > 1 else times * 3
    return {"median": median(times), "low": low, "high": high, "repeats": len(times)}


def _versions(frameworks: list[str]) -> dict[str, str]:
    packages = ("snn-ext", "torch", *frameworks)
    return {
        "Python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
    }


def _machine(device: torch.device, kept: bool) -> dict[str, Any]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "device": device.type,
        "name": name,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "freed memory kept": kept,
        "implementation": dispatch.implementation(device),
        "missing": {name: why for name in dispatch.NAMES if (why := dispatch.why_not(name))},
    }


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
