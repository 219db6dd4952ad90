"""Medians of interleaved repeats: whatever disturbs the machine disturbs all that is compared."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import torch

SAMPLE = 2e-3
"""Seconds that one sample lasts at least."""

Key = TypeVar("Key", bound=Hashable)


def interleaved(
    runs: Mapping[Key, Callable[[], None]],
    *,
    seconds: float,
    repeats: int,
    device: torch.device,
    around: Callable[[Key], object] | None = None,
) -> dict[Key, list[float]]:
    """Return the times of all `runs`, taken in turns: at least `repeats` of each, until `seconds` are over.

    What is timed has just run once without being timed, and every turn has an order of its own: so none finds
    the traces of another in caches and allocators.  `around` gives a context manager for a run, which is not
    part of its time.
    """
    times: dict[Key, list[float]] = {key: [] for key in runs}
    inner: dict[Key, int] = {}

    def sample(key: Key, count: int) -> float:
        with around(key) if around else _nothing:  # type: ignore[attr-defined]
            runs[key]()
            _wait(device)
            begin = time.perf_counter()
            for _ in range(count):
                runs[key]()
            _wait(device)
            return (time.perf_counter() - begin) / count

    for key in runs:
        inner[key] = max(1, round(SAMPLE / max(sample(key, 1), 1e-7)))
    order, shuffle = list(runs), random.Random(0).shuffle
    collecting = gc.isenabled()
    end = time.perf_counter() + seconds
    try:
        while len(next(iter(times.values()))) < repeats or time.perf_counter() < end:
            gc.collect()
            gc.disable()
            shuffle(order)
            for key in order:
                times[key].append(sample(key, inner[key]))
            gc.enable()
    finally:
        (gc.enable if collecting else gc.disable)()
    return times


def exponent(sizes: list[int], seconds: list[float]) -> float:
    """Return the exponent with which `seconds` grow with `sizes`: the slope of the logarithms."""
    x, y = torch.tensor(sizes).double().log(), torch.tensor(seconds).double().log()
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / (x * x).sum())


class _Nothing:
    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...


_nothing = _Nothing()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
