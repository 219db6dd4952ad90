"""Whole networks: a training step with each neuron, beside ReLU in its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..energy import SynapticPenalty

STEPS, BATCH = 8, 64
RELU = "ReLU"
PENALTIES = {"synaptic, p = 1": 1.0, "synaptic, p = 2": 2.0}
"""Penalties that a training step is timed with, and their exponents."""


class Network(NamedTuple):
    """A kind of network: the size of an image, and its stages of layers, with a neuron after each."""

    image: tuple[int, ...]
    stages: Callable[[], list[nn.Module]]


def _perceptron() -> list[nn.Module]:
    return [nn.Linear(784, 512), nn.Linear(512, 512), nn.Linear(512, 10)]


def _convolutional() -> list[nn.Module]:
    return [
        nn.Conv2d(1, 16, 3, padding=1),
        nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(16, 32, 3, padding=1)),
        nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(32 * 7 * 7, 10)),
    ]


NETWORKS = {"convolutional": Network((1, 28, 28), _convolutional), "perceptron": Network((784,), _perceptron)}


class Stages(nn.Module):
    """Stages over all steps at once, each followed by `fire` with its neuron."""

    def __init__(
        self, stages: list[nn.Module], neurons: list[nn.Module], fire: Callable[[Any, Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.stages, self.neurons, self.fire = nn.ModuleList(stages), nn.ModuleList(neurons), fire

    def forward(self, x_seq: Tensor) -> Tensor:
        for stage, neuron in zip(self.stages, self.neurons, strict=True):
            x_seq = self.fire(neuron, stage(x_seq.flatten(0, 1)).unflatten(0, x_seq.shape[:2]))
        return x_seq


class StepByStep(nn.Module):
    """The whole network once for each step, as snnTorch's tutorials write it."""

    def __init__(self, stages: list[nn.Module], neurons: list[nn.Module]) -> None:
        super().__init__()
        self.stages, self.neurons = nn.ModuleList(stages), nn.ModuleList(neurons)

    def forward(self, x_seq: Tensor) -> Tensor:
        mems = [neuron.reset_mem() for neuron in self.neurons]  # type: ignore[operator]
        emitted = []
        for x in x_seq:
            for i, (stage, neuron) in enumerate(zip(self.stages, self.neurons, strict=True)):
                x, mems[i] = neuron(stage(x), mems[i])
            emitted.append(x)
        return torch.stack(emitted)


def training_steps(kind: str, framework: str, device: torch.device) -> dict[str, Callable[[], None]]:
    """Return a training step of the network `kind` for every neuron of `framework`, and for ReLU."""
    network = NETWORKS[kind]
    batch = _batch(network, device)
    nets = {RELU: _batched(network, nn.ReLU, lambda neuron, x: neuron(x)), **_spiking(framework, network)}
    return {name: _training_step(net.to(device), *batch) for name, net in nets.items()}


def penalised_steps(kind: str, framework: str, device: torch.device) -> dict[Any, Callable[[], None]]:
    """Return a training step for every neuron of `framework`, without penalty (``""``) and with each."""
    network = NETWORKS[kind]
    batch = _batch(network, device)
    steps = {}
    for penalty, power in {"": None, **PENALTIES}.items():
        for name, net in _spiking(framework, network).items():
            steps[name, penalty] = _training_step(net.to(device), *batch, power)
    return steps


def _batch(network: Network, device: torch.device) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    x_seq = torch.rand(STEPS, BATCH, *network.image, device=device)
    return x_seq, torch.randint(10, (BATCH,), device=device)


def _spiking(framework: str, network: Network) -> dict[str, nn.Module]:
    return {"snntorch": _snntorch, "spikingjelly": _spikingjelly}[framework](network)


def _batched(
    network: Network, neuron: Callable[[], nn.Module], fire: Callable[[Any, Tensor], Tensor]
) -> nn.Module:
    stages = network.stages()
    return Stages(stages, [neuron() for _ in stages], fire)


def _snntorch(network: Network) -> dict[str, nn.Module]:
    import snntorch as snn

    from .. import snntorch as face

    def fused(neuron: Any, x_seq: Tensor) -> Tensor:
        return neuron.multi_step(x_seq, neuron.reset_mem())[0]

    def looped(neuron: Any, x_seq: Tensor) -> Tensor:
        mem, emitted = neuron.reset_mem(), []
        for x in x_seq:
            y, mem = neuron(x, mem)
            emitted.append(y)
        return torch.stack(emitted)

    def leaky() -> nn.Module:
        return snn.Leaky(beta=0.9)

    nets = {
        kind.__name__: _batched(network, lambda kind=kind: kind(beta=0.9), fused)  # type: ignore[misc]
        for kind in (face.VSN, face.LIFB, face.SoftResetMPR)
    }
    stages = network.stages()
    nets["Leaky"] = _batched(network, leaky, looped)
    nets["Leaky, network in a loop"] = StepByStep(stages, [leaky() for _ in stages])
    return nets


def _spikingjelly(network: Network) -> dict[str, nn.Module]:
    from spikingjelly.activation_based import neuron

    from .. import spikingjelly as face

    def fire(layer: Any, x_seq: Tensor) -> Tensor:
        layer.reset()
        return layer(x_seq)

    kinds = (face.VSNNode, face.LIFBNode, face.SoftResetMPRNode, neuron.LIFNode)
    return {
        kind.__name__: _batched(network, lambda kind=kind: kind(tau=2.0, step_mode="m"), fire)  # type: ignore[misc]
        for kind in kinds
    }


def _training_step(
    net: nn.Module, x_seq: Tensor, labels: Tensor, power: float | None = None
) -> Callable[[], None]:
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    penalty = None if power is None else SynapticPenalty(net, x_seq[:, :1], p=power)

    def step() -> None:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x_seq).mean(0), labels)
        if penalty is not None:
            loss = loss + 1e-7 * penalty()
        loss.backward()
        optimizer.step()

    return step
