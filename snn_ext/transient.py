"""The states of steps within a transform, which must not outlive it.

What a step leaves within ``torch.func.vmap`` or ``grad``, under a ``FakeTensorMode`` or while ``torch.jit``
traces means nothing afterwards: a tensor of ``vmap`` that has escaped cannot even be copied.  So a neuron
that runs there gets its own states back at once, and what the step has left is held beside them: the next
step of the same transform goes on from it, and when the transform is over nothing is left.

Where somebody has put tensors of the transform into the neuron, as ``torch.func.functional_call`` does with
the buffers that it is given, the states are theirs, to be read and to be put back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch._subclasses import FakeTensor

_func: Any = torch._C._functorch
_MARK = torch.empty(())
_T = TypeVar("_T")


def at_work(x: Any) -> bool:
    """Whether what a step makes of `x` now belongs to a transform."""
    return not torch.compiler.is_compiling() and (
        torch._C._are_functorch_transforms_active() or torch._C._is_tracing() or type(x) is FakeTensor
    )


class Held(NamedTuple):
    """States left by a transform at a `level`, in place of a neuron's `own`, until it no longer goes on."""

    goes_on: Callable[[], bool]
    level: int
    own: dict[str, Any]
    left: dict[str, Any]


def run(neuron: Any, states: dict[str, Any], names: tuple[str, ...], x: Any, step: Callable[[], _T]) -> _T:
    """Return ``step()``, which reads and writes `states` of `neuron`; what it leaves there is held beside.

    To be called where a transform is `at_work`.  If the step fails, nothing has changed.
    """
    own = {name: states[name] for name in names}
    if any(belongs(value) for value in own.values()):
        return step()
    states.update(_left(neuron, own))
    try:
        y = step()
        left = {name: states[name] for name in names}
    finally:
        states.update(own)
    hold(neuron, x, own, left)
    return y


def hold(neuron: Any, x: Any, own: dict[str, Any], left: dict[str, Any]) -> None:
    """Let `neuron` have the states that are `left` in place of its `own` while the transform goes on."""
    goes_on, level = _innermost(x)
    outer = (held for held in _alive(neuron, own) if held.level < level)
    object.__setattr__(neuron, "_held", (*outer, Held(goes_on, level, own, left)))


def look(neuron: Any, name: str, states: dict[str, Any]) -> Any:
    """Return the state `name` as the transform at work has left it, else as it is in `states`."""
    alive = [held for held in neuron._held if held.goes_on() and held.own[name] is states[name]]
    return alive[-1].left[name] if alive else states[name]


def forget(neuron: Any) -> None:
    """Let `neuron` have its own states."""
    object.__setattr__(neuron, "_held", ())


def _left(neuron: Any, own: dict[str, Any]) -> dict[str, Any]:
    alive = _alive(neuron, own)
    return alive[-1].left if alive else own


def _alive(neuron: Any, own: dict[str, Any]) -> list[Held]:
    """Return what transforms that go on have left, unless the neuron has been given other states since."""
    return [
        held
        for held in neuron._held
        if held.goes_on() and all(own.get(name) is value for name, value in held.own.items())
    ]


def belongs(value: Any) -> bool:
    """Whether `value` is a tensor of a transform, past or present."""
    return isinstance(value, FakeTensor) or (
        isinstance(value, Tensor) and _func.is_functorch_wrapped_tensor(value)
    )


def _innermost(x: Any) -> tuple[Callable[[], bool], int]:
    """Return what says whether the innermost transform still goes on, and its level."""
    if torch._C._are_functorch_transforms_active():
        level = _func.current_level()
        mark = _func._wrap_for_grad(_MARK, level)  # it dies with the level, of whatever kind that is
        return lambda: not _func.is_dead_tensor_wrapper(mark), level
    if torch._C._is_tracing():
        tracing = torch._C._get_tracing_state()
        return lambda: torch._C._get_tracing_state() is tracing, 0
    mode = x.fake_mode
    return lambda: any(_mode(i) is mode for i in range(torch._C._len_torch_dispatch_stack())), 0


def _mode(i: int) -> Any:
    return torch._C._get_dispatch_stack_at(i)
