r"""SpikingJelly 2.0's counters and energy estimators, told what this package's neurons do.

Its counters watch the operators that a network runs.  Theirs take 0 and 1 for spikes; what is neither, a
burst, the graded spike of a VSN or one of another amplitude, they leave out (``SynOpCounter``, ``ACCounter``)
or charge as dense multiplications (``MACCounter``).  And each of these neurons is one operator, in which they
see no state.  The rules here go where SpikingJelly takes rules from outside:

===========================  ==============================================================================
``SynOpCounter``             ``extra_rules=synop_rules(net)``
``ACCounter``                ``extra_rules=ac_rules(net)``
``MACCounter``               ``extra_rules=mac_rules(net)``
``NeuronStateCounter``       ``extra_state_rules=state_rules(net)``
``estimate_simple_energy``   `estimate_simple_energy` of this module
Lemaire, SpikeSim, NeuroMC   ``with as_native(net): estimate_lemaire_energy(net, x)``, NeuroMC inference only
===========================  ==============================================================================

**Spikes.**  A burst of intensity :math:`\kappa` is :math:`\kappa` synaptic operations at each synapse that it
reaches, an event of a VSN one multiplication, a spike of any amplitude one operation, as in
`snn_ext.energy.measure_energy`.  They are recognised by where they come from, through views, copies,
concatenation, padding with zeros and max pooling, which may pass one of several; after anything else, such as
average pooling or a sum, they are values to SpikingJelly, as the native neurons' are.  Counters hold whole
numbers: each product is rounded.

**States.**  Firing apart, the potentials of these neurons move as those of ``LIFNode``, or of ``IFNode``
where nothing leaks.  So what the counters find in one of those is what they find here: it is run on the same
input with the same events (and, where bursts emit more than spikes, a second comparison).  Activations,
amplitudes and the rectifier touch no state.

**Estimators that go by modules** have formulas for binary spikes of ``IFNode`` and ``LIFNode``, and others
for values.  In `as_native` these neurons are taken for native ones, so bursts and graded spikes are charged
as values, densely.  ``decouple`` gives a LIFB that spikes in 0 and 1 instead.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from spikingjelly.activation_based import neuron
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from ..neurons.leaky import Leaky
from ..ops import reference
from ..ops.operators import NEURONS
from ..surrogate import from_name, is_fused
from ._base import LeakyNode
from ._compat import as_surrogate, default_surrogate, op_counter
from .neurons import LIFBNode, SoftResetMPRNode, VSNNode

__all__ = ["ac_rules", "as_native", "estimate_simple_energy", "mac_rules", "state_rules", "synop_rules"]

Rule = Callable[[tuple[Any, ...], dict[str, Any], Any], int]

_aten = torch.ops.aten
_OPERATORS: dict[Any, type[Leaky]] = {getattr(torch.ops.snn_ext, kind.name).default: kind for kind in NEURONS}


def synop_rules(net: nn.Module) -> dict[Any, Rule]:
    """Return the ``extra_rules`` with which a ``SynOpCounter`` counts what this package's neurons send.

    Parameters
    ----------
    net : nn.Module
        The network that will be counted.  The rules are for one counter, and one network at a time.

    Returns
    -------
    dict
        Rules by operator, as ``extra_rules`` takes them.

    Raises
    ------
    ImportError
        This SpikingJelly has no counters.
    TypeError, NotImplementedError
        `net` is no module, or has a neuron with a surrogate or activation of your own.

    Examples
    --------
    ::

        counter = SynOpCounter(extra_rules=synop_rules(net))
        with torch.no_grad(), DispatchCounterMode([counter]):
            net(x_seq)
        print(counter.get_total())
    """
    return _rules(net, "SynOpCounter", graded=True, plain=True)


def ac_rules(net: nn.Module) -> dict[Any, Rule]:
    """Return the ``extra_rules`` of an ``ACCounter``: spikes and bursts, and the neurons' own additions.

    A LIFB's burst threshold, a sum, is counted by ``ACCounter`` as well, once a call.
    Arguments, errors and use are those of `synop_rules`.
    """
    return _rules(net, "ACCounter", graded=False, plain=True)


def mac_rules(net: nn.Module) -> dict[Any, Rule]:
    """Return the ``extra_rules`` of a ``MACCounter``: graded spikes multiply where they arrive.

    Arguments, errors and use are those of `synop_rules`.
    """
    return _rules(net, "MACCounter", graded=True, plain=False)


def state_rules(net: nn.Module) -> dict[type[nn.Module], Callable[..., dict[str, int] | None]]:
    """Return the ``extra_state_rules`` with which a ``NeuronStateCounter`` counts this package's neurons.

    A neuron counts what ``LIFNode`` (without a leak, ``IFNode``) counts by itself on the same input with the
    same events; a LIFB with intensities above 1 has one comparison with a threshold more.  Behind other
    neurons SpikingJelly's counter misses the first steps of native ones, whose new states it does not know
    from the others'; it misses none of these.  Where a rule counts, it has no ``potential_buffer_bytes``.

    Arguments and errors are those of `synop_rules`.

    Examples
    --------
    ::

        counter = NeuronStateCounter(extra_state_rules=state_rules(net))
        with torch.no_grad(), DispatchCounterMode([counter]):
            net(x_seq)
        print(counter.get_metric_counts()["Global"]["state_reads"], "bytes")
    """
    _check(net)

    def rule(
        module: nn.Module, func: Any, args: tuple[Any, ...], kwargs: Any, out: Any, keys: Any
    ) -> dict[str, int] | None:
        if func not in _OPERATORS:
            return None
        counter = op_counter.NeuronStateCounter()
        _Call(func, args).replay(counter)
        return counter.get_metric_counts().get("Global", {})

    kinds = {type(module) for module in net.modules() if isinstance(module, LeakyNode)}
    return dict.fromkeys(kinds | {VSNNode, LIFBNode, SoftResetMPRNode}, rule)


def estimate_simple_energy(net: nn.Module, inputs: Any, *, config: Any = None) -> Any:
    """SpikingJelly's ``estimate_simple_energy``, with the rules of this module.

    Reads of weights stay SpikingJelly's: those of a layer that bursts or graded spikes reach are dense.

    Parameters
    ----------
    net, inputs, config
        As SpikingJelly takes them.

    Returns
    -------
    SimpleEnergyReport
        Counts, and energies in pJ.

    Raises
    ------
    ImportError, TypeError, NotImplementedError
        As `synop_rules`.
    """
    _check(net)
    profiler = op_counter.SimpleEnergyProfiler(config=config)
    profiler.synop_counter.rules.update(synop_rules(net))
    profiler.ac_counter.rules.update(ac_rules(net))
    profiler.mac_counter.rules.update(mac_rules(net))
    profiler.bind_model(net)
    with profiler, torch.no_grad():
        if isinstance(inputs, dict):
            net(**inputs)
        else:
            net(*inputs) if isinstance(inputs, (tuple, list)) else net(inputs)
    return profiler.get_report()


@contextlib.contextmanager
def as_native(net: nn.Module) -> Iterator[None]:
    """Let the neurons of this package in `net` be taken for ``LIFNode`` (without a leak, ``IFNode``).

    That is what SpikingJelly's estimators by Lemaire, of SpikeSim and of NeuroMC ask for; they see what goes
    in and out, and none of the operators inside.  See the module for what their numbers mean.  NeuroMC's has
    no formula for the backward pass of these neurons, and refuses it.

    Parameters
    ----------
    net : nn.Module
        The network; its neurons are what they were when the block ends.

    Raises
    ------
    ImportError, TypeError, NotImplementedError
        As `synop_rules`.

    Examples
    --------
    ::

        with as_native(net):
            report = estimate_lemaire_energy(net, x_seq)
    """
    _check(net)
    changed = [module for module in net.modules() if isinstance(module, LeakyNode)]
    before = [type(module) for module in changed]
    try:
        for module in changed:
            with torch.no_grad():
                leaks = bool((torch.as_tensor(module._rate) != 0).any())
            module.__class__ = _native(type(module), neuron.LIFNode if leaks else neuron.IFNode)
        yield
    finally:
        for module, kind in zip(changed, before, strict=True):
            module.__class__ = kind


def _native(ours: type, theirs: type) -> Any:
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        keys = torch._C.DispatchKeySet(torch._C.DispatchKey.Python)
        with torch._C._ExcludeDispatchKeyGuard(keys):
            return ours.forward(self, *args, **kwargs)  # type: ignore[attr-defined]

    return type(ours.__name__, (ours, theirs), {"forward": forward})


def _check(net: nn.Module) -> None:
    if op_counter is None:
        raise ImportError(
            "this SpikingJelly has no counters of operators; upgrade with: "
            "pip install 'spikingjelly>=2.0.0', or use snn_ext.energy.measure_energy"
        )
    if not isinstance(net, nn.Module):
        raise TypeError(f"net must be a torch.nn.Module, got {type(net).__name__}; give the network itself")
    for name, module in net.named_modules():
        if not isinstance(module, LeakyNode):
            continue
        known = is_fused(as_surrogate(module.surrogate_function))
        if not known or not isinstance(getattr(module, "activation", ""), str):
            raise NotImplementedError(
                f"layer {name or 'of the network'!r}: a {type(module).__name__} with a surrogate or "
                "activation of your own runs as no operator that could be counted; the surrogate has no part "
                "in the forward pass, so set a named one while counting, or use measure_energy of "
                "snn_ext.energy"
            )


class _Call:
    """A call of one of this package's operators, taken apart."""

    def __init__(self, func: Any, args: tuple[Any, ...]) -> None:
        kind = _OPERATORS[func]
        start = 2 + len(kind.parameters)
        end = start + len(kind.options)
        self.x_seq, self.v0 = args[:2]
        self.p = dict(zip(kind.parameters, args[2:start], strict=True))
        self.neuron = kind(*args[start:end])
        surrogate, scale, _, strict, _, self.reset_delay, *_ = args[end:]
        self.spike = from_name(surrogate, scale, strict=strict)

    @torch.no_grad()
    def events(self) -> list[Tensor]:
        """Return the events of each step, ones and zeros."""
        return [step.o.to(self.x_seq.dtype) for step in self._steps()]

    @torch.no_grad()
    def sent(self) -> Tensor:
        """Return the number of spikes that is sent with each element of what is emitted."""
        return torch.stack(
            [self.neuron.transmitted(s.h, s.o, self.p, self.spike, 1.0) for s in self._steps()]
        )

    def _steps(self) -> Iterator[reference.Step]:
        when = {"detach_reset": False, "reset_delay": self.reset_delay}
        return reference.unroll(self.neuron, self.x_seq, self.v0, self.p, self.spike, **when)

    def replay(self, counter: Any) -> None:
        """Show `counter` what a native neuron does with the same input and the same events."""
        events, native = iter(self.events()), default_surrogate()
        bursts = bool((self.p.get("burst_intensity", torch.ones(())) > 1).any())

        def fire(distance: Tensor) -> Tensor:
            native(distance)
            if bursts:
                native(distance - 1.0)
            return next(events)

        options = {
            "v_reset": None if self.neuron.reset_mode == "soft" else self.neuron.v_reset,
            "surrogate_function": fire,
            "step_mode": "m",
            "store_v_seq": True,  # as the fused path of the native neurons does, for all its callers
        }
        if bool((self.p["decay"] == 1).all()):
            node = neuron.IFNode(**options)
        else:
            node = neuron.LIFNode(decay_input=bool((self.p["gain"] != 1).any()), **options)
        with torch.no_grad(), op_counter.DispatchCounterMode([counter]):
            node(self.x_seq)


class _Sent:
    """How many spikes came with each element of what neurons emit, as long as the elements are there."""

    def __init__(self) -> None:
        self._kept: dict[StorageWeakRef, tuple[torch.dtype, int | None, Tensor, bool]] = {}

    def put(self, y: Tensor, spikes: Tensor, graded: bool) -> None:
        self._kept = {storage: kept for storage, kept in self._kept.items() if not storage.expired()}
        size = y.untyped_storage().nbytes() // y.element_size()
        laid = torch.zeros(
            size, dtype=torch.float64 if y.dtype == torch.float64 else torch.float32, device=y.device
        )
        laid.as_strided(y.shape, y.stride(), y.storage_offset()).copy_(spikes)
        self._kept[StorageWeakRef(y.untyped_storage())] = y.dtype, _version(y), laid, graded

    def get(self, x: Tensor) -> tuple[Tensor | None, bool]:
        """Return the spikes of `x`, if a neuron has emitted it or more, and whether they are graded."""
        kept = self._kept.get(StorageWeakRef(x.untyped_storage()))
        if kept is None or kept[:2] != (x.dtype, _version(x)):
            return None, False
        return kept[2].as_strided(x.shape, x.stride(), x.storage_offset()), kept[3]


def _version(x: Tensor) -> int | None:
    return None if x.is_inference() else x._version


def _rules(net: nn.Module, name: str, *, graded: bool, plain: bool) -> dict[Any, Rule]:
    """Return rules that count graded spikes, others, or both, and leave the rest to those of `name`."""
    _check(net)
    sent, counter = _Sent(), getattr(op_counter, name)

    def emission(func: Any) -> Rule:
        def rule(args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
            call = _Call(func, args)
            sent.put(out[0], call.sent(), call.neuron.name == "vsn")
            if name == "SynOpCounter":
                return 0
            own = counter()
            call.replay(own)
            return own.get_total()

        return rule

    def product(func: Any, place: int, default: Rule) -> Rule:
        def rule(args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
            found = [sent.get(factor) for factor in args[place : place + 2]]
            if all(spikes is None for spikes, _ in found) or kwargs.get("alpha", 1) != 1:
                return default(args, kwargs, out)
            if not (graded if any(multiplies for _, multiplies in found) else plain):
                return 0
            a, b = (_spikes(factor, spikes) for factor, (spikes, _) in zip(args[place:], found, strict=False))
            if func is _aten.convolution.default:
                total = func(a, b, None, *args[3:]).sum()
            else:
                total = (a.sum(-2) * b.sum(-1)).sum()
            return round(total.item())

        return rule

    def carried(func: Any, default: Rule | None) -> Rule:
        def rule(args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
            several = isinstance(args[0], (tuple, list))
            parts = args[0] if several else args[:1]
            found = [sent.get(part) for part in parts]
            if any(spikes is not None for spikes, _ in found):
                known = [
                    part if spikes is None and _binary(part) else spikes
                    for part, (spikes, _) in zip(parts, found, strict=True)
                ]
                known = [spikes for spikes in known if spikes is not None]
                spikes = _CARRIERS[func](known, args, kwargs, out) if len(known) == len(parts) else None
                if spikes is not None:
                    y = out[0] if isinstance(out, tuple) else out
                    sent.put(y, spikes, any(multiplies for _, multiplies in found))
            return 0 if default is None else default(args, kwargs, out)

        return rule

    natively = counter().rules
    places = {_aten.mm: 0, _aten.bmm: 0, _aten.convolution: 0, _aten.addmm: 1, _aten.baddbmm: 1}
    return {
        **{func: emission(func) for func in _OPERATORS},
        **{op.default: product(op.default, place, natively[op.default]) for op, place in places.items()},
        **{func: carried(func, natively.get(func)) for func in _CARRIERS},
    }


def _spikes(factor: Tensor, spikes: Tensor | None) -> Tensor:
    """Return one side of a product, as spikes that arrive at a one, or ones that they arrive at."""
    if spikes is None:
        spikes = factor if _binary(factor) else torch.ones_like(factor)
    return spikes.double()


def _binary(x: Tensor) -> bool:
    return bool(((x == 0) | (x == 1)).all())


def _pooled(known: list[Any], args: Any, kwargs: Any, out: Any) -> Tensor:
    indices = out[1]
    return known[0].flatten(-2).gather(-1, indices.flatten(-2)).view(indices.shape)


def _padded(known: list[Any], args: Any, kwargs: Any, out: Any) -> Tensor | None:
    return torch.constant_pad_nd(known[0], args[1], 0) if not any(args[2:]) else None


def _joined(join: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda known, args, kwargs, out: join([spikes.double() for spikes in known], *args[1:], **kwargs)


def _same(known: list[Any], args: Any, kwargs: Any, out: Any) -> Tensor:
    return known[0]


_CARRIERS: dict[Any, Callable[..., Tensor | None]] = {
    _aten.clone.default: _same,
    _aten._to_copy.default: _same,
    _aten.cat.default: _joined(torch.cat),
    _aten.stack.default: _joined(torch.stack),
    _aten.constant_pad_nd.default: _padded,
    _aten.max_pool2d_with_indices.default: _pooled,
}
"""Operators whose results are elements of what goes in, and what becomes of the spikes."""
