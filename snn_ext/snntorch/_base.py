"""What snnTorch's faces of all neurons share: arguments, state, steps, copies."""

from __future__ import annotations

import functools
import warnings
import weakref
from collections.abc import Callable
from typing import Any, ClassVar

import snntorch as snn
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from .. import checks, functional, transient
from ..checkpoints import Checkpoints
from ..checks import Numbers
from ..energy.layers import Tap, run_watched
from ..neurons.leaky import Leaky
from ..observe import Observer
from ..surrogate import ATan, Surrogate
from ._compat import as_surrogate

RESETS = {"subtract": "late", "zero": "hard", "none": "none"}
"""snnTorch's reset mechanisms, in the words of `snn_ext.neurons.leaky`."""

_STEP = (
    "_base_state_function",
    "_base_sub",
    "_base_zero",
    "_base_int",
    "_build_state_function",
    "_build_state_function_hidden",
    "fire",
    "fire_inhibition",
    "mem_reset",
)
"""What a step of ``snn.Leaky`` is made of, in one release or another."""

_NAMES = {"v0": "mem", "decay": "beta", "surrogate": "spike_grad"}


class Neuron(Checkpoints, snn.Leaky):
    """Base of the neurons: ``snn.Leaky`` in all but its dynamics, which a neuron gives by `_equations`."""

    default_surrogate: ClassVar[Surrogate] = ATan(strict=True)
    reset_mechanisms: ClassVar[tuple[str, ...]] = ("subtract", "zero", "none")
    why_not: ClassVar[str] = "use one of 'subtract', 'zero' or 'none'"
    """What to say about any other reset mechanism."""
    not_in_nir: ClassVar[str]
    """What NIR has no node for, which is why snnTorch's own exporter must not write the neuron."""
    nir_remedy: ClassVar[str] = "export it with snn_ext.snntorch.export_to_nir"

    _observer: Observer | None = None
    _taps: tuple[Tap, ...] = ()
    _held: tuple[transient.Held, ...] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        checks.overrides(cls, snn.Leaky, _STEP, "forward", "a subclass of snn.Leaky")

    _before: tuple[Tensor | None, ...] = ()
    """The potential before the last single step."""

    def __init__(
        self,
        beta: Numbers,
        threshold: Numbers,
        spike_grad: Callable[[Tensor], Tensor] | None,
        surrogate_disable: bool,
        init_hidden: bool,
        inhibition: bool,
        learn_beta: bool,
        learn_threshold: bool,
        reset_mechanism: str,
        state_quant: Any,
        output: bool,
        graded_spikes_factor: Numbers,
        learn_graded_spikes_factor: bool,
        reset_delay: bool,
    ) -> None:
        beta = checks.in_range("beta", beta, 0, 1, "it is the fraction of the potential kept per step")
        threshold = checks.number_or_tensor("threshold", threshold)
        graded_spikes_factor = checks.number_or_tensor("graded_spikes_factor", graded_spikes_factor)
        self._check_reset_mechanism(reset_mechanism)
        if state_quant is None or state_quant is False:
            state_quant = False
        elif not callable(state_quant) or isinstance(state_quant, type):
            raise TypeError(
                f"state_quant must be callable, got {type(state_quant).__name__}; use e.g. "
                "snntorch.functional.quant.state_quant(num_bits=4)"
            )
        flags = {
            "surrogate_disable": surrogate_disable,
            "init_hidden": init_hidden,
            "inhibition": inhibition,
            "learn_beta": learn_beta,
            "learn_threshold": learn_threshold,
            "output": output,
            "learn_graded_spikes_factor": learn_graded_spikes_factor,
            "reset_delay": reset_delay,
        }
        flags = {name: checks.flag(name, value) for name, value in flags.items()}
        if flags["inhibition"] and not flags["reset_delay"]:
            raise ValueError(
                "inhibition=True needs reset_delay=True: with an immediate reset only the winner would be "
                f"reset, which a {type(self).__name__} does not define"
            )
        surrogate = self.default_surrogate if spike_grad is None else as_surrogate(spike_grad)
        if not isinstance(surrogate, Surrogate):
            checks.spike_function("spike_grad", surrogate, probe=True)
        super().__init__(
            beta,
            threshold,
            surrogate,
            reset_mechanism=reset_mechanism,
            state_quant=state_quant,
            graded_spikes_factor=graded_spikes_factor,
            **flags,
        )

    def _equations(self) -> Leaky:
        """Return the neuron of `snn_ext.neurons` that runs."""
        raise NotImplementedError

    def _parameters_of_its_own(self) -> dict[str, float | Tensor]:
        """Return what the equations take beside decay, gain and threshold."""
        return {}

    @property
    def _detach_reset(self) -> bool:
        return bool(self.reset_delay)

    def forward(self, input_: Tensor, mem: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Run one step; see the class for what goes in and out."""
        input_ = checks.concrete_tensor(self, "input_", input_)
        if transient.at_work(input_):
            return self._within(input_, lambda: self._run("input_", input_, mem, single=True))
        return self._returned(*self._run("input_", input_, mem, single=True))

    def multi_step(self, x_seq: Tensor, mem: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Run all steps of `x_seq`, shape (T, batch, ...), in one fused call.

        Equal to calling the neuron T times.  Returns ``(y_seq, mem)`` with `mem` after the last step, or
        ``y_seq`` alone with ``init_hidden=True, output=False``; takes `mem` as `forward` does.  Forward
        hooks belong to `forward` and are not called; a `forward` of a subclass is, step by step.
        """
        x_seq = checks.concrete_tensor(self, "x_seq", x_seq)
        if type(self).forward is not Neuron.forward:
            return self._step_by_step(x_seq, mem)
        one_by_one = self.inhibition and any(tap.alive for tap in self._taps)
        run = self._each if one_by_one else functools.partial(self._run, "x_seq")
        if transient.at_work(x_seq):
            return self._within(x_seq, lambda: run(x_seq, mem))
        return self._returned(*run(x_seq, mem))

    def _each(self, x_seq: Tensor, mem: Tensor | None) -> tuple[Tensor, Tensor]:
        """Run all steps one by one, as winners are counted; if one of them fails, nothing has changed."""
        functional.check_input("x_seq", x_seq)
        before, emitted = (self._buffers["mem"], self._before), []
        try:
            for x in x_seq:
                y, new = self._run("x_seq", x, mem, single=True)
                mem = None if self.init_hidden else new
                emitted.append(y)
        except BaseException:
            self._buffers["mem"], self.__dict__["_before"] = before
            raise
        return torch.stack(emitted), new

    def _within(self, x: Tensor, step: Callable[[], Any]) -> Tensor | tuple[Tensor, Tensor]:
        """Run a step, or all, within a transform, whose `mem` does not outlive it."""
        before = self._before
        try:
            return self._returned(*transient.run(self, self._buffers, ("mem",), x, step))
        finally:
            self.__dict__["_before"] = before

    @property
    def mem(self) -> Tensor:
        """The potential; within a transform, what its last step has left."""
        if "mem" not in self._buffers:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute 'mem'")
        return transient.look(self, "mem", self._buffers) if self._held else self._buffers["mem"]

    def __setattr__(self, name: str, value: Any) -> None:
        """As natively; but the `mem` that is set within a transform, by a reset say, does not outlive it."""
        if name == "mem" and not torch.compiler.is_compiling() and transient.belongs(value):
            own = self._buffers["mem"]
            if not transient.belongs(own):
                return transient.hold(self, value, {"mem": own}, {"mem": value})
        super().__setattr__(name, value)

    def _step_by_step(self, x_seq: Tensor, mem: Tensor | None) -> Tensor | tuple[Tensor, Tensor]:
        functional.check_input("x_seq", x_seq)
        emitted = []
        for x in x_seq:
            found = self.forward(x) if mem is None else self.forward(x, mem)
            y, mem = found if isinstance(found, tuple) else (found, None)
            emitted.append(y)
            last, mem = mem, None if self.init_hidden else mem
        return self._returned(torch.stack(emitted), self.mem if last is None else last)

    def _run(
        self, name: str, x_seq: Tensor, mem: Tensor | None, single: bool = False
    ) -> tuple[Tensor, Tensor]:
        if mem is not None:
            if self.init_hidden:
                raise TypeError("`mem` should not be passed as an argument while `init_hidden=True`")
            mem = checks.concrete_tensor(self, "mem", mem)
        step = x_seq.shape if single else x_seq.shape[1:]
        if self.inhibition and len(step) < 2:
            raise ValueError(
                f"{name} needs a batch and a neuron dimension for inhibition, got one step of shape "
                f"{tuple(step)}"
            )
        state = self.mem if mem is None else mem
        neuron = self._equations()
        start = state if state.shape == step else None
        parameters = {
            "decay": _clamped(self.beta),
            "gain": 1.0,
            "threshold": self.threshold,
            **self._parameters_of_its_own(),
        }
        options: dict[str, Any] = {
            "surrogate": as_surrogate(self.spike_grad),
            "detach_reset": self._detach_reset,
            "reset_delay": bool(self.reset_delay),
            "state_quant": self.state_quant or None,
            "names": {**_NAMES, "x_seq": name},
            "single": single,
        }

        def run(power: float, again: bool) -> tuple[Tensor, ...]:
            return functional.run(
                neuron,
                x_seq,
                start,
                parameters,
                return_v_seq=self.inhibition,
                power=power,
                observer=None if again else self._observer,
                **options,
            )

        (y_seq, new, *mem_seq), show = run_watched(self._taps, run, 1 if single else len(x_seq))
        winners = None
        if self.inhibition:
            winners = _winners(mem_seq[0] - self.threshold).to(y_seq.dtype)
            winners = winners.squeeze(0) if single else winners
            y_seq = y_seq * winners
        factor = self.graded_spikes_factor
        if _number(factor) != 1:
            like = y_seq.unsqueeze(0) if single else y_seq
            factor = functional.as_parameter("graded_spikes_factor", factor, like)
            y_seq = y_seq * factor.to(y_seq.dtype)
        if torch.compiler.is_compiling():
            self._buffers["mem"] = new
            if self._before:
                self._before = ()  # not known, as after `multi_step`
            show(winners)
            return y_seq, new
        before = self._buffers["mem"], self._before
        if start is not None and start.requires_grad:  # no graph is kept for `reset`
            start = start.detach()
        self._buffers["mem"], self.__dict__["_before"] = new, (start,) if single else ()
        try:
            show(winners)
        except BaseException:  # the step has not been made
            self._buffers["mem"], self.__dict__["_before"] = before
            raise
        return y_seq, new

    @property
    def reset(self) -> Tensor:
        """What the last step has reset, as 0 and 1; as natively, there is none before the first step.

        Nor is there one after `multi_step`, which keeps no potential in between.
        """
        if not self._before:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute 'reset'")
        (before,) = self._before
        with torch.no_grad():
            before = torch.zeros_like(self.mem) if before is None else before
            return (before > self.threshold).to(self.mem.dtype)

    def _returned(self, y: Tensor, mem: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return y if self.init_hidden and not self.output else (y, mem)

    def _adapt(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Keep the reset that the neuron was made with, as natively; say so if it is another one."""
        super()._adapt(state_dict, prefix)
        value = state_dict.get(f"{prefix}reset_mechanism_val")
        names = {number: name for name, number in snn.SpikingNeuron.reset_dict.items()}
        loaded = names.get(int(value)) if isinstance(value, Tensor) and not value.is_meta else None
        if loaded in self.reset_mechanisms and loaded != self.reset_mechanism:
            warnings.warn(
                f"{type(self).__name__}: the checkpoint is of a neuron with reset_mechanism={loaded!r}; "
                f"this one was made with {self.reset_mechanism!r}, and keeps it",
                stacklevel=2,
            )
        if value is not None and not self.reset_mechanism_val.is_meta:
            state_dict[f"{prefix}reset_mechanism_val"] = self.reset_mechanism_val

    def __getstate__(self) -> dict[str, Any]:
        """Leave the graph behind: a copy or pickle taken during training carries the bare potential."""
        state = self.__dict__.copy()
        state.pop("_observer", None)
        state.pop("_taps", None)
        state.pop("_before", None)
        state.pop("_held", None)
        state["_buffers"] = {**self._buffers, "mem": self.mem.detach()}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Register the copy with snnTorch, whose reset and detach utilities go through `instances`.

        The list holds a copy weakly, so that snapshots of a network are freed with it.
        """
        super().__setstate__(state)
        register_copy(self)

    @property
    def reset_mechanism(self) -> str:
        """How an event resets the potential."""
        return self._reset_mechanism

    @reset_mechanism.setter
    def reset_mechanism(self, value: str) -> None:
        self._check_reset_mechanism(value)
        self.reset_mechanism_val = torch.as_tensor(snn.SpikingNeuron.reset_dict[value])
        self._reset_mechanism = value

    def _check_reset_mechanism(self, value: str) -> None:
        if not isinstance(value, str) or value not in self.reset_mechanisms:
            raise ValueError(f"reset_mechanism={checks.shown(value)}: {self.why_not}")

    def extra_repr(self) -> str:
        return f"reset_mechanism={self.reset_mechanism!r}, spike_grad={self.spike_grad!r}"


def register_copy(neuron: snn.SpikingNeuron) -> None:
    """Make snnTorch's utilities reach a copy; weakly, so that it can be freed."""
    instances = snn.SpikingNeuron.instances

    def forget(dead: Any) -> None:  # the list may be gone through by its length just now
        for i, held in enumerate(instances):
            if held is dead:
                instances[i] = _Gone()

    instances[:] = [held for held in instances if type(held) is not _Gone]
    instances.append(weakref.proxy(neuron, forget))


class _Gone:
    """Stands where a copy was that has been freed; snnTorch's utilities pass it by."""

    def __getattr__(self, name: str) -> Tensor:
        return torch.zeros(0)


def _number(value: Tensor) -> float | None:
    """Return what a constant number on the CPU is, or ``None`` if that cannot be seen for free."""
    if torch.compiler.is_compiling() or type(value) is not Tensor or value.requires_grad or value.dim():
        return None
    if torch._C._len_torch_dispatch_stack() and any(
        isinstance(mode, FakeTensorMode) for mode in _get_current_dispatch_mode_stack()
    ):
        return None  # there are no numbers
    seen = value.device.type == "cpu" and value.is_floating_point() and not functional._transformed(value)
    return value.item() if seen else None


def _clamped(beta: Tensor) -> Tensor:
    number = _number(beta)
    return beta if number is not None and 0 <= number <= 1 else beta.clamp(0, 1)


def _winners(distance_seq: Tensor) -> Tensor:
    """Return ones where the distance to threshold is the largest of dimension 1 of each step."""
    winner = distance_seq.argmax(dim=2, keepdim=True)
    return torch.zeros_like(distance_seq).scatter_(2, winner, 1.0)
