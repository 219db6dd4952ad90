"""Checkpoints: those of native networks load into our neurons, and no value that breaks a neuron does.

What was learned, and what differs from neuron to neuron, is in the ``state_dict``.  One constant for all
belongs to the constructor, as in the native neurons: it is in no checkpoint, but one that has it (as of
version 0.2.0) is honoured.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from . import checks

OURS = ("burst", "amplitude", "activation", "tau", "w", "v_threshold")
"""What native neurons do not keep, so that it may be missing."""


def hold(module: nn.Module, name: str, value: Tensor) -> None:
    """Keep a constant as a buffer; one for all neurons is in no checkpoint, and survives the meta device."""
    one = value.numel() == 1
    if one and not value.is_meta:
        vars(module).setdefault("_constants", {})[name] = value.item()
    module.register_buffer(name, placed(value), persistent=not one)


def valued(value: float | Tensor) -> Tensor:
    """Return a number on the CPU, where it has a value also while a network is built on the meta device."""
    return value.detach() if isinstance(value, Tensor) else torch.tensor(value, device="cpu")


def placed(value: Tensor) -> Tensor:
    """Return what has been computed on the CPU on the device on which modules are built now."""
    return value.to(torch.empty(()).device) if value.device.type == "cpu" else value


class Checkpoints:
    """A neuron that takes the checkpoints of its native counterpart, and refuses what would break it."""

    def _apply(self: Any, *args: Any, **kwargs: Any) -> Any:
        """As natively; but what no checkpoint holds gets its value back when memory is made for it."""
        without = list(self._without_values())
        super()._apply(*args, **kwargs)  # type: ignore[misc]
        for owner, name, value in without:
            if not owner._buffers[name].is_meta:
                owner._buffers[name].fill_(value)
        return self

    def _without_values(self: Any) -> Iterator[tuple[nn.Module, str, float]]:
        """Yield the constants that are on the meta device, with what they are."""
        for owner in self.modules():
            for name, value in vars(owner).get("_constants", {}).items():
                kept = owner._buffers.get(name)  # nothing where it has been made a parameter
                if kept is not None and kept.is_meta:
                    yield owner, name, value

    def _adapt(self: Any, state_dict: dict[str, Any], prefix: str) -> None:
        """Change what is loaded into what this neuron keeps."""
        if "burst" in self._modules:
            self._modules["burst"].adapt(state_dict, f"{prefix}burst.")

    def _load_from_state_dict(
        self: Any, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *rest: Any
    ) -> None:
        self._adapt(state_dict, prefix)
        learned = dict(self.named_parameters())
        own = {**learned, **{name: kept for name, kept in self.named_buffers() if name != "mem"}}
        found = {name: state_dict[prefix + name] for name in own if prefix + name in state_dict}
        problems = [_problem(prefix + name, name, value, own[name]) for name, value in found.items()]
        if any(problems):  # nothing of this neuron is loaded
            rest[-1].extend(filter(None, problems))
            found = {}
        missing = [
            name for name in own if name not in found and (name.split(".")[0] in OURS or any(problems))
        ]
        started = [name for name in missing if name in learned]
        if started and not any(problems):
            warnings.warn(
                f"{type(self).__name__}: {', '.join(started)} not in the checkpoint, as in one of a "
                "native network; learning starts where the constructor put it",
                stacklevel=2,
            )
        state_dict.update({prefix + name: own[name] for name in missing})
        for name in own:
            path, _, leaf = name.rpartition(".")
            owner = self.get_submodule(path)
            if leaf in owner._non_persistent_buffers_set:  # no key of its own, honoured where it stands
                value = state_dict.pop(prefix + name)
                if name in found:
                    owner._buffers[leaf] = value.detach().to(own[name], copy=True)
                    vars(owner).setdefault("_constants", {})[leaf] = value.item()
        super()._load_from_state_dict(  # type: ignore[misc]
            state_dict, prefix, local_metadata, *rest
        )
        if local_metadata.get("assign_to_params_buffers"):
            device = next(
                (value.device for value in found.values() if not value.is_meta), torch.device("cpu")
            )
            for owner, name, value in self._without_values():
                owner._buffers[name] = torch.full_like(owner._buffers[name], value, device=device)


def _problem(key: str, name: str, value: Any, own: Tensor) -> str:
    """Say what is wrong with the value of `key`, which is for `name`, or nothing."""
    check = _CHECKS.get(name)
    if check is None or not isinstance(value, Tensor):
        return ""
    try:
        check(key, value)
    except (TypeError, ValueError) as error:
        return str(error)
    if value.shape != own.shape:
        return (
            f"size mismatch for {key}: {tuple(value.shape)} in the checkpoint, "
            f"{tuple(own.shape)} in the neuron"
        )
    return ""


def _gap(name: str, value: Tensor) -> None:
    checks.above(name, checks.number_or_tensor(name, value), "0", 0.0)


def _intensity(name: str, value: Tensor) -> None:
    checks.in_range(name, value, 1, math.inf, "a burst is at least one spike")
    _finite(name, value)


def _finite(name: str, value: Tensor) -> None:
    checks.number_or_tensor(name, value)
    if checks.any_infinite(value):
        raise ValueError(f"{name} is infinite; it must be finite")


_CHECKS: dict[str, Callable[[str, Tensor], Any]] = {
    **dict.fromkeys(
        ("beta", "threshold", "graded_spikes_factor", "v_threshold", "w"), checks.number_or_tensor
    ),
    "tau": lambda name, value: checks.in_range(name, value, 1, math.inf, "it is a time constant in steps"),
    "amplitude": lambda name, value: checks.positive(name, value, "a spike carries something"),
    "burst.fixed_gap": _gap,
    "burst.fixed_intensity": _intensity,
    "burst.raw_gap": _finite,
    "burst.raw_intensity": _finite,
}
