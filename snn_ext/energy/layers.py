"""Spiking layers: found in a network of either framework, and watched while they run.

What is a spiking layer, how it emits and when it has been reset is for its framework to say: the faces derive
from `Layer`, and `spiking` asks the face of every framework that the process has imported.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

FRAMEWORKS = ("snntorch", "spikingjelly")


class Layer:
    """A spiking layer; the faces say what their framework's own layers do."""

    own = False
    """Whether it is a neuron of this package, which hands the spikes it sends to its `Tap` instances."""
    over_steps: tuple[str, ...] = ()
    """Methods beside ``forward`` by which it runs, over all steps at once."""
    graded = False
    """Whether its spikes carry a value, by which the receiving synapse multiplies."""
    bursts = False
    """Whether its spikes may be as large as the number of spikes that they stand for."""
    binary = False
    """Whether its spikes are 0 or 1, so that a power changes their gradients alone."""
    leading: int
    """The dimensions before those of the neurons in what ``forward`` emits: batch, or steps and batch."""

    def __init__(self, name: str, module: Any) -> None:
        self.name, self.module = name, module

    def spikes(self, y: Tensor) -> Tensor:
        """Return the number of spikes that a native layer has transmitted with `y`."""
        return y

    def fresh(self) -> bool:
        """Whether the layer has been reset since it ran."""
        raise NotImplementedError

    def midway(self) -> bool:
        """Whether the layer has surely not been reset since it ran: a look that takes less time."""
        return not self.fresh()

    def ran(self) -> None:
        """Note that the layer has just run."""

    def refuse(self) -> str:
        """Return why the spikes of the layer cannot be counted, or nothing."""
        return ""


def faces() -> list[Any]:
    """Return the module ``energy`` of the face of each framework in use."""
    package = __package__.rpartition(".")[0]
    return [importlib.import_module(f"{package}.{name}.energy") for name in FRAMEWORKS if name in sys.modules]


def pooling(module: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """Return the plain pooling behind a module that pools spikes by their number so far, if it is one."""
    return next((found for face in faces() if (found := face.pooling(module)) is not None), None)


def spiking(net: nn.Module, needed: bool = True) -> list[Layer]:
    """Return the spiking layers of `net`, of which it must have one if `needed`.

    Raises
    ------
    TypeError
        `net` is no module.
    ValueError
        It has no spiking layer.
    NotImplementedError
        It has one whose spikes cannot be counted.
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f"net must be a torch.nn.Module, got {type(net).__name__}; give the network itself")
    found = list(described(net))
    for layer in found:
        if reason := layer.refuse():
            raise NotImplementedError(
                f"layer {layer.name or 'of the network'!r}: a {type(layer.module).__name__} {reason}; use a "
                "neuron without, or leave it out of the network whose energy is counted"
            )
    if needed and not found:
        raise ValueError(
            f"{type(net).__name__} has no spiking layer, so there are no spikes to count; use neurons of "
            "snnTorch, SpikingJelly or snn_ext in it"
        )
    return found


def refuse_spiking(net: nn.Module) -> None:
    """Raise if `net` has spiking layers, where a network without is to be converted into one."""
    for name, module in net.named_modules():
        if _described(name, module) is not None:
            kind = f"{type(module).__module__.partition('.')[0]}'s {type(module).__name__}"
            raise ValueError(
                f"{type(net).__name__} is a spiking network already: layer {name or 'itself'!r} is {kind}; "
                "give the ReLU network that it comes from"
            )


def described(net: nn.Module) -> Iterator[Layer]:
    """Yield the spiking layers of `net`, also those that would be refused."""
    inside: set[nn.Module] = set()
    for name, module in net.named_modules():
        layer = None if module in inside else _described(name, module)
        if layer is not None:
            inside.update(module.modules())
            yield layer


def _described(name: str, module: nn.Module) -> Layer | None:
    for face in faces():
        layer = face.describe(name, module)
        if layer is not None:
            return layer
    return None


class Tap:
    """Shows a watcher the events of one layer; the watcher is held weakly, and copies show nobody."""

    def __init__(self, layer: Layer | None, watcher: Any = None, power: float = 1.0) -> None:
        self.layer: Any = layer
        self.power = power
        self.paused: threading.Thread | None = None
        """Who runs the layer only to be measured, which is shown to nobody who watched before."""
        self.end: Callable[[], None] = lambda: None
        """What takes it away; called when the watcher is gone."""
        self._watcher: Callable[[], Any] = lambda: None
        if watcher is not None:
            self._watcher = weakref.ref(watcher, lambda dead: self.end())

    @property
    def alive(self) -> bool:
        """Whether anybody is shown anything."""
        return self.watcher() is not None

    def watcher(self) -> Any:
        """Return who is shown what the layer does."""
        if self.paused is not None and self.paused.is_alive():  # it is not in a child after a fork
            if self.paused is not threading.current_thread():
                raise RuntimeError(
                    f"layer {self.layer.name!r} is being measured in thread {self.paused.name!r}, and cannot "
                    "run in this one meanwhile; wait for that, or measure a copy.deepcopy of the network"
                )
            return None
        return self._watcher()

    def begin(self) -> None:
        """To be called before the layer runs."""
        watcher = self.watcher()
        if watcher is not None:
            watcher.begin(self.layer)

    def see(self, spikes: Tensor, leading: int, steps: int, power: float) -> None:
        """To be called after it has run; see `watch`."""
        watcher = self.watcher()
        if watcher is not None:
            watcher.see(self.layer, spikes, leading, steps, power)
            self.layer.ran()

    def before(self, module: nn.Module, inputs: Any) -> None:
        """Begin, as a hook."""
        if self.layer is not None and not self.layer.midway():
            self.begin()

    def after(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        """See, as a hook."""
        layer, watcher = self.layer, self._watcher() if self.paused is None else self.watcher()
        if watcher is not None:
            y, leading = output[0] if isinstance(output, tuple) else output, layer.leading
            spikes = layer.spikes(y)
            passed = watcher.see(layer, spikes, leading, len(y) if leading == 2 else 1, self.power)
            layer.ran()
            if passed is not None and spikes is y:
                return (passed, *output[1:]) if isinstance(output, tuple) else passed
        return None

    def __reduce__(self) -> Any:
        return Tap, (None,)

    def __deepcopy__(self, memo: Any) -> Tap:
        return Tap(None)


def watch(layer: Layer, watcher: Any, power: float = 1.0) -> Callable[[], None]:
    """Let `watcher` see the layer run; return what ends it.

    A watcher has two methods: ``begin(layer)`` for when the layer is about to run, and ``see(layer, spikes,
    leading, steps, power)`` for when it has run so many `steps`, with the number of spikes that each neuron
    has sent, still to be raised to `power`, and how many dimensions stand before those of the neurons.
    ``see`` may return a tensor for a native layer to hand on in place of these spikes.

    A neuron of this package has raised its events to the `power` asked for here, and summed them over steps.
    """
    tap, module = Tap(layer, watcher, power), layer.module
    if layer.own:
        object.__setattr__(module, "_taps", (*module._taps, tap))

        def end() -> None:
            object.__setattr__(module, "_taps", tuple(t for t in module._taps if t is not tap))
    else:
        hooks = module.register_forward_pre_hook(tap.before), module.register_forward_hook(tap.after)

        def end() -> None:
            for hook in hooks:
                hook.remove()

    tap.end = end
    return end


def run_watched(taps: tuple[Tap, ...], run: Callable[..., tuple[Tensor, ...]], steps: int) -> Any:
    """Return what ``run(power, again)`` does, without the spikes sent that it ends with for a power.

    With it comes what is to be called when the run is over, and then shows those spikes to `taps`; it may be
    given a factor for them.  Taps of different powers take a run each, the others with ``again=True``.
    """
    if not taps:
        return run(0.0, False), _unseen
    for tap in taps:
        tap.begin()
    powers = {tap.power for tap in taps if tap.alive}
    if not powers:
        return run(0.0, False), _unseen
    found: Any = None
    sent: dict[float, Tensor] = {}
    for power in powers:
        *outputs, sent[power] = run(power, found is not None)
        found = found or outputs

    def show(factor: Tensor | None = None) -> None:
        for tap in taps:
            if tap.power in sent:
                spikes = sent[tap.power] if factor is None else sent[tap.power] * factor
                tap.see(spikes, 1, steps, 1.0)

    return found, show


def _unseen(factor: Tensor | None = None) -> None:
    """Show nobody."""


def reset(net: nn.Module) -> None:
    """Reset the states of `net` by the utilities of the frameworks in use."""
    for face in faces():
        face.reset_states(net)


_turn = threading.Condition()
"""Held while `_measured` is read and written."""
_measured: dict[int, threading.Thread] = {}
"""Who measures which module, by ``id``, for as long as it takes."""


def _start_anew() -> None:
    """Forget other threads, which a child after a fork does not have."""
    global _turn
    _turn = threading.Condition()
    _measured.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)


@contextlib.contextmanager
def untouched(net: nn.Module) -> Iterator[None]:
    """Give `net` back its states, statistics and training flags as they were.

    Meanwhile it runs only to be measured, of which those who watch it already see nothing; other networks are
    watched as ever, in every thread.  Of several threads that measure parts of one network each has its turn.
    """
    modules = list(net.modules())
    with _in_turn(modules) as thread:
        before = [_State(module) for module in modules]
        paused = [tap for module in modules for tap in taps(module) if tap.paused is None]
        for tap in paused:
            tap.paused = thread
        for module in modules:
            if getattr(module, "_observer", None) is not None:  # it is given back with the rest
                object.__setattr__(module, "_observer", None)
        try:
            yield
        finally:
            for state in before:
                state.restore()
            for tap in paused:
                tap.paused = None


@contextlib.contextmanager
def _in_turn(modules: list[nn.Module]) -> Iterator[threading.Thread]:
    """Wait until no other thread measures any of `modules`; yield this thread."""
    thread = threading.current_thread()
    with _turn:
        _turn.wait_for(lambda: all(_measured.get(id(module), thread) is thread for module in modules))
        mine = [id(module) for module in modules if id(module) not in _measured]
        _measured.update(dict.fromkeys(mine, thread))
    try:
        yield thread
    finally:
        with _turn:
            for module in mine:
                _measured.pop(module, None)  # gone in a child after a fork
            _turn.notify_all()


def taps(module: nn.Module) -> list[Tap]:
    """Return by whom `module` is watched."""
    hooks = (getattr(hook, "__self__", None) for hook in module._forward_hooks.values())
    return [tap for tap in (*getattr(module, "_taps", ()), *hooks) if isinstance(tap, Tap)]


class _State:
    """What a module holds; given back entry by entry, so that it is whole for another thread at any time."""

    def __init__(self, module: nn.Module) -> None:
        names = ("_buffers", *(name for face in faces() for name in face.STATES))
        own = {name: value for name, value in vars(module).items() if name != "_taps"}  # watchers come and go
        kept = [vars(module)[name] for name in names if name in own]
        self.contents = [(vars(module), own), *((entries, dict(entries)) for entries in kept)]
        tensors = [v for entries in kept for v in entries.values() if isinstance(v, Tensor)]
        self.values = [(v, v._version, v.detach().clone()) for v in tensors if not v.is_inference()]

    @torch.no_grad()
    def restore(self) -> None:
        for entries, before in self.contents:
            for name in [name for name in entries if name not in before and name != "_taps"]:
                del entries[name]
            for name, value in before.items():
                if name not in entries or entries[name] is not value:
                    entries[name] = value
        for tensor, version, value in self.values:
            if tensor._version != version:  # written to in place
                tensor.copy_(value)
