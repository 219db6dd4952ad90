"""What is measured: neurons as their users call them, and a copy of the bytes that they must move."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..ops import dispatch

TITLES = {"snntorch": "snnTorch", "spikingjelly": "SpikingJelly"}


class Case(NamedTuple):
    """A neuron of `framework`: ours on `implementation`, or the framework's own where that is empty.

    `run` takes a sequence and returns what is emitted: a sequence, or the one step for a sequence of one.
    """

    name: str
    framework: str
    implementation: str
    run: Callable[[Tensor], Tensor]

    @property
    def title(self) -> str:
        return f"{self.name}, {self.implementation}" if self.implementation else self.name


def cases(framework: str, steps: int, device: torch.device, learned: bool = False) -> list[Case]:
    """Return the neurons of a framework's face on every implementation, and the framework's own LIF.

    With `learned`, they learn their decay.
    """
    make = {"snntorch": _snntorch, "spikingjelly": _spikingjelly}[framework]
    native, ours = make(steps, device, learned)
    found = [Case(name, framework, "", run) for name, run in native.items()]
    for implementation in dispatch.available():
        if implementation == "reference" or dispatch.SERVES[implementation] == device.type:
            found += [Case(name, framework, implementation, run) for name, run in ours.items()]
    return found


@contextlib.contextmanager
def forced(implementation: str) -> Iterator[None]:
    """Let the operators run on `implementation` (any, if empty)."""
    before = os.environ.get(dispatch.VARIABLE)
    if implementation:
        os.environ[dispatch.VARIABLE] = implementation
    try:
        yield
    finally:
        os.environ.pop(dispatch.VARIABLE, None)
        if before is not None:
            os.environ[dispatch.VARIABLE] = before


Runs = dict[str, Callable[[Tensor], Tensor]]


def _snntorch(steps: int, device: torch.device, learned: bool) -> tuple[Runs, Runs]:
    import snntorch as snn

    from .. import snntorch as face

    def loop(layer: Any) -> Callable[[Tensor], Tensor]:
        def run(x_seq: Tensor) -> Tensor:
            mem = layer.reset_mem()
            if steps == 1:
                return layer(x_seq[0], mem)[0]
            emitted = []
            for x in x_seq:
                y, mem = layer(x, mem)
                emitted.append(y)
            return torch.stack(emitted)

        return run

    def fused(layer: Any) -> Callable[[Tensor], Tensor]:
        return loop(layer) if steps == 1 else lambda x_seq: layer.multi_step(x_seq, layer.reset_mem())[0]

    def neuron(kind: Any) -> Any:
        return kind(beta=0.9, learn_beta=learned).to(device)

    ours = {kind.__name__: fused(neuron(kind)) for kind in (face.VSN, face.LIFB, face.SoftResetMPR)}
    return {"Leaky": loop(neuron(snn.Leaky))}, ours


def _spikingjelly(steps: int, device: torch.device, learned: bool) -> tuple[Runs, Runs]:
    from spikingjelly.activation_based import neuron

    from .. import spikingjelly as face

    def runner(layer: Any) -> Callable[[Tensor], Tensor]:
        layer.step_mode = "s" if steps == 1 else "m"
        layer.to(device)

        def run(x_seq: Tensor) -> Tensor:
            layer.reset()
            return layer(x_seq[0] if steps == 1 else x_seq)

        return run

    ours = {}
    for kind in (face.VSNNode, face.LIFBNode, face.SoftResetMPRNode):
        ours[kind.__name__] = runner(kind(tau=2.0, learn_tau=learned))
    native = neuron.ParametricLIFNode(init_tau=2.0) if learned else neuron.LIFNode(tau=2.0)
    return {type(native).__name__: runner(native)}, ours


def step(run: Callable[[Tensor], Tensor], x_seq: Tensor, grad: Tensor) -> Callable[[], None]:
    """Return a forward and backward pass, to the input and whatever is learned."""

    def both() -> None:
        y = run(x_seq)
        y.backward(grad if y.shape == grad.shape else grad[0])
        x_seq.grad = None

    return both


def forward(run: Callable[[Tensor], object], x_seq: Tensor) -> Callable[[], None]:
    """Return a forward pass without gradients."""

    def alone() -> None:
        with torch.no_grad():
            run(x_seq)

    return alone


def copies(x_seq: Tensor, grad: Tensor) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return what moving the bytes costs that must be moved, forward and in both passes.

    The forward pass must read `x_seq` and write as much, the backward pass read both and write as much.
    """
    y, gx = torch.empty_like(x_seq), torch.empty_like(x_seq)

    def both() -> None:
        y.copy_(x_seq)
        torch.add(x_seq, grad, out=gx)

    return forward(y.copy_, x_seq), both
