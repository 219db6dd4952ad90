"""Spiking layers: found in a network of either framework, and watched while they run.

What is a spiking layer, how it emits and when it has been reset is for its framework to say: the faces derive
from `Layer`, and `spiking` asks the face of every framework that the process has imported.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import conv, rnn

FRAMEWORKS = ("snntorch", "spikingjelly")
SYNAPTIC = (nn.Linear, nn.Bilinear, conv._ConvNd, rnn.RNNBase, rnn.RNNCellBase)


class Layer:
    """A spiking layer; the faces say what their framework's own layers do."""

    own = False
    """Whether it is a neuron of this package, which hands the spikes it sends to its `Tap` instances."""
    over_steps: tuple[str, ...] = ()
    """Methods beside ``forward`` by which it runs, over all steps at once."""
    graded = False
    """Whether its spikes carry a value, by which the receiving synapse multiplies."""
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
        inside = [part for part in self.module.modules() if part is not self.module]
        if any(isinstance(part, SYNAPTIC) for part in inside):
            return "holds synapses of its own, which are not counted"
        return ""


def faces() -> list[Any]:
    """Return the module ``energy`` of the face of each framework in use."""
    package = __package__.rpartition(".")[0]
    return [importlib.import_module(f"{package}.{name}.energy") for name in FRAMEWORKS if name in sys.modules]


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
    found: list[Layer] = []
    inside: set[nn.Module] = set()
    for name, module in net.named_modules():
        layer = None if module in inside else _described(name, module)
        if layer is None:
            continue
        if reason := layer.refuse():
            raise NotImplementedError(
                f"layer {name or 'of the network'!r}: a {type(module).__name__} {reason}; use a neuron "
                "without, or leave it out of the network whose energy is counted"
            )
        inside.update(module.modules())
        found.append(layer)
    if needed and not found:
        raise ValueError(
            f"{type(net).__name__} has no spiking layer, so there are no spikes to count; use neurons of "
            "snnTorch, SpikingJelly or snn_ext in it"
        )
    return found


def _described(name: str, module: nn.Module) -> Layer | None:
    for face in faces():
        layer = face.describe(name, module)
        if layer is not None:
            return layer
    return None


_alone: list[Any] = []
"""Who alone may watch, the innermost last, while networks run only to be measured (`untouched`)."""


def _may(watcher: Any) -> bool:
    return watcher is not None and (not _alone or _alone[-1] is watcher)


class Tap:
    """Shows a watcher the events of one layer; the watcher is held weakly, and copies show nobody."""

    def __init__(self, layer: Layer | None, watcher: Any = None, power: float = 1.0) -> None:
        self.layer: Any = layer
        self.power = power
        self.end: Callable[[], None] = lambda: None
        """What takes it away; called when the watcher is gone."""
        self._watcher: Callable[[], Any] = lambda: None
        if watcher is not None:
            self._watcher = weakref.ref(watcher, lambda dead: self.end())

    @property
    def alive(self) -> bool:
        """Whether anybody watches who may."""
        return _may(self._watcher())

    def begin(self) -> None:
        """To be called before the layer runs."""
        watcher = self._watcher()
        if _may(watcher):
            watcher.begin(self.layer)

    def see(self, spikes: Tensor, leading: int, steps: int, power: float) -> None:
        """To be called after it has run; see `watch`."""
        watcher = self._watcher()
        if _may(watcher):
            watcher.see(self.layer, spikes, leading, steps, power)
            self.layer.ran()

    def before(self, module: nn.Module, inputs: Any) -> None:
        """Begin, as a hook."""
        if self.layer is not None and not self.layer.midway():
            self.begin()

    def after(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        """See, as a hook."""
        layer, watcher = self.layer, self._watcher()
        if watcher is not None and (not _alone or _may(watcher)):
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


@contextlib.contextmanager
def untouched(net: nn.Module, watcher: Any = None) -> Iterator[None]:
    """Give `net` back its states, statistics and training flags as they were.

    Meanwhile a `Tap` shows what it does to `watcher` alone.
    """
    kept = ("_buffers", *(name for face in faces() for name in face.STATES))
    before = [
        (module, module.__dict__.copy(), {name: dict(getattr(module, name, {})) for name in kept})
        for module in net.modules()
    ]
    _alone.append(watcher)
    try:
        yield
    finally:
        _alone.pop()
        for module, attributes, contents in before:
            module.__dict__.clear()
            module.__dict__.update(attributes)
            for name, values in contents.items():
                if name in attributes:
                    attributes[name].clear()
                    attributes[name].update(values)
