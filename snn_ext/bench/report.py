"""The bench's tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from .cases import TITLES

FLOOR = "copy"
"""What is called for its bytes alone."""
NATIVE = {"snntorch": ("Leaky", "Leaky"), "spikingjelly": ("LIFNode", "ParametricLIFNode")}
"""Each framework's own neuron, with a fixed decay and with one that is learned."""
LEARNED = ", decay learned"

Key = tuple[str, str, str]


def key(entry: dict[str, Any]) -> Key:
    """Return what tells the cases of a size apart."""
    return entry["name"], entry["framework"], entry["implementation"]


def seconds(size: dict[str, Any], wanted: Key, what: str = "both") -> float | None:
    """Return the median time of a case in a size, ``None`` if it was left out."""
    return next((entry[what]["median"] for entry in size["cases"] if key(entry) == wanted), None)


def header(results: dict[str, Any]) -> str:
    """Return what was measured on."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    lines = [
        f"snn-ext bench: {versions}",
        f"{machine['name']}, {machine['cores']} cores, {machine['threads']} threads, float32, "
        f"on {machine['device']} runs: {machine['implementation']}; "
        f"freed memory: {'kept' if machine['freed memory kept'] else 'as the allocator has it'}",
    ]
    lines += [f"left out: {name} ({why})" for name, why in machine["missing"].items()]
    return "\n".join(lines)


def tables(results: dict[str, Any], headline: tuple[tuple[int, int], ...]) -> Iterator[Table | str]:
    """Yield the tables of all results, and what was left out."""
    for size in results["sizes"]:
        if (size["steps"], size["neurons"]) in headline:
            yield _ratios(size)
    steps = sorted({size["steps"] for size in results["sizes"]})
    for count in steps:
        row = [size for size in results["sizes"] if size["steps"] == count]
        if len(row) > 1:
            yield _overview(row)
    for size in results["sizes"]:
        if size["left out"]:
            yield f"{size['steps']} x {size['neurons']:,} took too long: {', '.join(size['left out'])}\n"
    for entry in results["memory"]:
        yield _memory(entry)
    for entry in results["networks"]:
        yield _network(entry)
    for entry in results["penalties"]:
        yield _penalties(entry)
    for entry in results["conversion"]:
        yield _conversion(entry)
    if results["exponents"]:
        yield _exponents(results["exponents"])


def _table(title: str, *columns: str) -> Table:
    table = Table(title=escape(title), box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(escape(column), justify="left" if column in ("", "framework") else "right")
    return table


def title(entry: dict[str, Any]) -> str:
    """Return how a case is called."""
    return entry["name"] + (f" ({entry['implementation']})" if entry["implementation"] else "")


def _ratios(size: dict[str, Any]) -> Table:
    table = _table(
        f"{size['steps']} x {size['neurons']:,} (steps x neurons)",
        "",
        "forward [ms]",
        "with backward [ms]",
        "times faster than the framework's own",
        "times a copy",
    )
    floor = seconds(size, (FLOOR, "", ""))
    previous = None
    for entry in size["cases"]:
        both = entry["both"]["median"]
        fixed, learned = NATIVE.get(entry["framework"], ("", ""))
        own = learned + LEARNED if entry["name"].endswith(LEARNED) else fixed
        native = seconds(size, (own, entry["framework"], ""))
        if previous not in (None, entry["framework"]):
            table.add_section()
        previous = entry["framework"]
        table.add_row(
            title(entry),
            _ms(entry["forward"]["median"]),
            _ms(both),
            f"{native / both:.2f}" if native else "",
            f"{both / floor:.2f}" if floor else "",
        )
    return table


def _overview(row: list[dict[str, Any]]) -> Table:
    columns = [f"{size['neurons']:,}" for size in row]
    table = _table(f"{row[0]['steps']} steps: forward and backward [ms], by neurons", "", *columns)
    cases = {key(entry): entry for size in row for entry in size["cases"]}
    for wanted, entry in cases.items():
        times = [seconds(size, wanted) for size in row]
        table.add_row(title(entry), *("" if time is None else _ms(time) for time in times))
    return table


def _memory(result: dict[str, Any]) -> Table:
    size = f"{result['steps']} x {result['neurons']:,}, {result['bytes'] / 2**20:.0f} MiB"
    table = _table(
        f"memory of a training step, {TITLES[result['framework']]} (in inputs: {size})",
        "",
        "kept for backward",
        "peak",
    )
    for entry in result["cases"]:
        peak = "" if entry["peak"] is None else f"{entry['peak']:.2f}"
        table.add_row(title(entry), f"{entry['saved']:.2f}", peak)
    return table


def _network(result: dict[str, Any]) -> Table:
    table = _table(
        f"{result['network']} network, {TITLES[result['framework']]}, {result['steps']} steps, "
        f"batch {result['batch']}: training step",
        "neurons",
        "[ms]",
        "times ReLU",
    )
    for entry in result["cases"]:
        table.add_row(entry["name"], _ms(entry["step"]["median"]), f"{entry['relu']:.2f}")
    return table


def _penalties(result: dict[str, Any]) -> Table:
    cases = {(entry["name"], entry["penalty"]): entry for entry in result["cases"]}
    penalties = [penalty for penalty in dict.fromkeys(penalty for _, penalty in cases) if penalty]
    table = _table(
        f"{result['network']} network, {TITLES[result['framework']]}, {result['steps']} steps, "
        f"batch {result['batch']}: training step with a penalty on spikes",
        "neurons",
        "without [ms]",
        *(f"{penalty}: times that" for penalty in penalties),
    )
    for name in dict.fromkeys(name for name, _ in cases):
        ratios = (f"{cases[name, penalty]['times without']:.2f}" for penalty in penalties)
        table.add_row(name, _ms(cases[name, ""]["step"]["median"]), *ratios)
    return table


def _conversion(result: dict[str, Any]) -> Table:
    table = _table(
        f"converted network, {result['network']}: {result['steps']} steps, batch {result['batch']}",
        "",
        "[ms]",
        "images a second",
        "times SpikingJelly's own",
    )
    for entry in result["cases"]:
        ratio = entry["times native"]
        table.add_row(
            entry["name"],
            _ms(entry["run"]["median"]),
            f"{entry['images a second']:,.0f}",
            "" if ratio is None else f"{ratio:.2f}",
        )
    return table


def _exponents(results: list[dict[str, Any]]) -> Table:
    lines = sorted({(entry["along"], entry.get("neurons", 0), entry.get("steps", 0)) for entry in results})
    names = [
        f"with {along}, {f'{neurons:,} neurons' if neurons else f'{steps} steps'}"
        for along, neurons, steps in lines
    ]
    table = _table("exponents: how cost grows (1 is linear)", "", *names)
    cases = {key(entry): entry for entry in results}
    for wanted, entry in cases.items():
        found = {
            (other["along"], other.get("neurons", 0), other.get("steps", 0)): other["exponent"]
            for other in results
            if key(other) == wanted
        }
        table.add_row(title(entry), *(f"{found[line]:.2f}" if line in found else "" for line in lines))
    return table


def _ms(time: float) -> str:
    return f"{time * 1e3:.3f}" if time < 0.01 else f"{time * 1e3:.1f}"
