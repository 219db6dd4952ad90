"""Graded and burst spikes where a framework reads 0 and 1: their events, and a warning where it needs them.

A `VSN` emits numbers of any size, a bursting `LIFB` its intensity, a `SoftResetMPR` its amplitude.
What reads spikes as 0 and 1 (a temporal loss, a raster) takes such a size for something else.  `events` gives
it what it expects; ``docs/graded_spikes.md`` goes through all such functions of both frameworks.
"""

from __future__ import annotations

import functools
import itertools
import sys
import warnings
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import checks

__all__ = ["Guarded", "events", "guard", "unguard"]


def events(spk: Tensor, size: Tensor | float | None = None) -> Tensor:
    r"""Return the events of what neurons emitted: 1 where `spk` is not 0, else 0.

    The gradient goes straight through, divided by the size of the spike, so that the potential :math:`h` gets
    the gradient of the event :math:`o = H(h - \theta)` itself:

    .. math:: y = s\,o, \qquad \frac{\partial e}{\partial h} = \frac{1}{s} \frac{\partial y}{\partial h}
              = H'(h - \theta)

    ==================  ===================  ============================================================
    neuron              `size`               gradient
    ==================  ===================  ============================================================
    LIFB                not needed           exact for an intensity of 1 (that of LIF); else exact but for
                                             what the surrogate at the burst threshold adds
    SoftResetMPR        its amplitude        exact
    VSN                 its input, ``x``     exact in :math:`h`, threshold and decay; the input also gets
                                             :math:`o / x`, its own way through the gate
    LIF                 not needed           passed on as it is
    ==================  ===================  ============================================================

    Parameters
    ----------
    spk : Tensor
        What was emitted, of any shape; floating point.
    size : Tensor or float, optional
        What a neuron emits when it fires, broadcast with `spk`.  Default: `spk` itself where there was an
        event and 1 elsewhere, so that only neurons that stayed silent get a gradient of another size (and
        sign, where a VSN would have emitted a negative number).

    Returns
    -------
    Tensor
        0 and 1, of the shape and type of `spk`.

    Raises
    ------
    TypeError
        `spk` is no floating-point tensor.

    Notes
    -----
    A VSN that fires at an input of exactly 0 emits 0, and its event is not seen.

    Examples
    --------
    >>> events(torch.tensor([0.0, 1.0, 2.5, -0.3]))
    tensor([0., 1., 1., 1.])
    """
    if not isinstance(spk, Tensor) or not spk.is_floating_point():
        kind = spk.dtype if isinstance(spk, Tensor) else type(spk).__name__
        raise TypeError(f"spk must be a floating-point tensor of emitted spikes, got {kind}; convert it")
    spk = checks.floating("spk", spk)
    found = (spk != 0).to(spk.dtype)
    if not spk.requires_grad:
        return found
    emitted = spk.detach() if size is None else torch.as_tensor(size).detach().to(spk)
    scale = torch.where(emitted.abs() < torch.finfo(spk.dtype).tiny, 1, emitted)
    return found + (spk - spk.detach()) / scale


class Guarded(NamedTuple):
    """A function of a framework that is silently wrong on some spikes."""

    module: str
    name: str
    """In its module: ``function`` or ``Class.method``."""
    spikes: int
    """The place of the spikes among its arguments, ``self`` included."""
    what: str
    """What it does with them, after its name."""
    when: str = "graded"
    """On which spikes: a key of `KINDS`."""


def _graded(spk: Tensor) -> bool:
    return not bool(((spk == 0) | (spk == 1)).all())


KINDS: dict[str, Callable[[Tensor], bool]] = {
    "graded": _graded,
    "negative": lambda spk: bool((spk < 0).any()),
    "graded on CUDA": lambda spk: spk.is_cuda and _graded(spk),
}

LOOKED_AT = 256
"""Calls whose spikes are all looked at; later ones are so ever more seldom."""

_undo: list[Callable[[], None]] = []


def guard(functions: Sequence[Guarded]) -> None:
    """Warn once at each of these functions, when it is given spikes that it does not read right.

    No value changes.  Functions of modules that have not been imported are guarded when they are; what a
    release does not have is left out.  Looks at the first `LOOKED_AT` calls of each, then at those whose
    number is a power of two, until it has warned.  `unguard` undoes it.
    """
    for function in functions:
        if function.module in sys.modules:
            _install(sys.modules[function.module], [function])
        else:
            _later.setdefault(function.module, []).append(function)
    if _later and _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


def unguard() -> None:
    """Put back every function that `guard` has replaced."""
    _later.clear()
    if _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
    while _undo:
        _undo.pop()()


_later: dict[str, list[Guarded]] = {}


class _Finder:
    """Guards modules as they are imported; finds none itself."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name not in _later:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in others)), None)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            _install(module, _later.pop(name, []))

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


_finder: Any = _Finder()


def _install(module: ModuleType, functions: Sequence[Guarded]) -> None:
    for function in functions:
        *classes, name = function.name.split(".")
        owner = getattr(module, classes[0], None) if classes else module
        real = vars(owner).get(name) if owner is not None else None
        if not callable(real) or hasattr(real, "_snn_ext_guard"):
            continue
        guarded = _guarded(real, function)
        _swap(owner, name, real, guarded)
        _undo.append(functools.partial(_swap, owner, name, guarded, real))


def _swap(owner: Any, name: str, old: Any, new: Any) -> None:
    """Put `new` for `old` into a class, or into all modules that know the function under its name."""
    holders = list(sys.modules.values()) if isinstance(owner, ModuleType) else [owner]
    for holder in holders:
        if getattr(holder, "__dict__", {}).get(name) is old:
            setattr(holder, name, new)


def _guarded(real: Callable[..., Any], function: Guarded) -> Callable[..., Any]:
    wrong, calls, warned = KINDS[function.when], itertools.count(1), False

    @functools.wraps(real)
    def guarded(*arguments: Any, **named: Any) -> Any:
        nonlocal warned
        if not warned and not torch.compiler.is_compiling():
            call = next(calls)
            if (call <= LOOKED_AT or not call & (call - 1)) and wrong(spikes(arguments, named)):
                warned = True
                warnings.warn(
                    f"{function.name.partition('.')[0]} {function.what}; give it events(spk) of this "
                    "package's faces (docs/graded_spikes.md).  Said once.",
                    stacklevel=2,
                )
        return real(*arguments, **named)

    names = real.__code__.co_varnames if hasattr(real, "__code__") else ()
    keyword = names[function.spikes] if len(names) > function.spikes else ""

    def spikes(arguments: tuple[Any, ...], named: dict[str, Any]) -> Tensor:
        """Return the spikes, or nothing where they cannot be looked at: in a transform, without data."""
        spk: Any = arguments[function.spikes] if len(arguments) > function.spikes else named.get(keyword)
        if type(spk).__module__ == "numpy":
            return torch.as_tensor(spk)
        plain = type(spk) in (Tensor, torch.nn.Parameter)
        if not plain or spk.is_meta or torch._C._functorch.is_functorch_wrapped_tensor(spk):
            return torch.empty(0)
        return spk.detach()

    guarded._snn_ext_guard = True  # type: ignore[attr-defined]
    return guarded
