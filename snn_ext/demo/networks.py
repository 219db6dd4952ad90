"""The same three-layer network in each framework, and its non-spiking twin.

``Linear - neuron - Linear - neuron - Linear``; the input is presented unchanged at every step (direct
coding) and the output of the last layer is averaged over the steps.  An *arm* names the two neurons:
``"VSN"`` is a VSN followed by a native LIF, ``"LIF"`` two native LIFs, ``"ReLU"`` no spiking at all.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

ARMS = {"VSN": ("vsn", "lif"), "LIF": ("lif", "lif"), "ReLU": ("relu", "relu")}
HIDDEN = 64
DECAY = 0.5


def build(framework: str, arm: str, inputs: int, outputs: int, threshold: float, steps: int) -> Network:
    """Return the network of `arm` in `framework`, all neurons starting at `threshold`."""
    kinds = ARMS[arm]
    if arm == "ReLU":
        return Twin(inputs, outputs)
    network = {"snntorch": SnnTorchNet, "spikingjelly": SpikingJellyNet}[framework]
    return network(kinds, inputs, outputs, threshold, steps)


def _linears(inputs: int, outputs: int, linear: Any = nn.Linear) -> tuple[nn.Module, ...]:
    return linear(inputs, HIDDEN), linear(HIDDEN, HIDDEN), linear(HIDDEN, outputs)


class Network(nn.Module):
    """What the demo's networks share: three linear layers with two neuron layers in between."""

    net: nn.Sequential

    def dynamics(self) -> dict[str, Tensor]:
        """Return decay and threshold of the VSN layer, detached."""
        raise NotImplementedError(f"{type(self).__name__} has no VSN layer")


class Twin(Network):
    """The non-spiking twin."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        a, b, c = _linears(inputs, outputs)
        self.net = nn.Sequential(a, nn.ReLU(), b, nn.ReLU(), c)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class SnnTorchNet(Network):
    """Stepped as snnTorch networks are: hidden states inside, a loop over time outside."""

    def __init__(
        self, kinds: tuple[str, str], inputs: int, outputs: int, threshold: float, steps: int
    ) -> None:
        super().__init__()
        import snntorch as snn

        from ..snntorch import VSN

        def neuron(kind: str) -> nn.Module:
            common: Any = {
                "beta": torch.full((HIDDEN,), DECAY),
                "threshold": torch.full((HIDDEN,), threshold),
                "init_hidden": True,
                "learn_beta": True,
                "learn_threshold": True,
            }
            return VSN(**common) if kind == "vsn" else snn.Leaky(**common, reset_mechanism="zero")

        a, b, c = _linears(inputs, outputs)
        self.net = nn.Sequential(a, neuron(kinds[0]), b, neuron(kinds[1]), c)
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        from ..snntorch import reset

        reset(self)
        return torch.stack([self.net(x) for _ in range(self.steps)]).mean(0)

    def dynamics(self) -> dict[str, Tensor]:
        vsn: Any = self.net[1]
        return {"decay": vsn.beta.detach().clamp(0, 1), "threshold": vsn.threshold.detach()}


class SpikingJellyNet(Network):
    """Run as SpikingJelly networks are: multi-step, the whole sequence through each layer."""

    def __init__(
        self, kinds: tuple[str, str], inputs: int, outputs: int, threshold: float, steps: int
    ) -> None:
        super().__init__()
        from spikingjelly.activation_based import functional, layer, neuron, surrogate

        from ..spikingjelly import VSNNode

        def node(kind: str) -> nn.Module:
            common: Any = {
                "decay_input": False,
                "v_threshold": threshold,
                "surrogate_function": surrogate.ATan(),
                "detach_reset": True,
            }
            tau = 1 / (1 - DECAY)  # learned, one per layer, in both: ParametricLIFNode has no more
            if kind == "vsn":
                return VSNNode(tau, **common, learn_tau=True)
            return neuron.ParametricLIFNode(tau, **common)

        a, b, c = _linears(inputs, outputs, layer.Linear)
        self.net = nn.Sequential(a, node(kinds[0]), b, node(kinds[1]), c)
        self.steps = steps
        functional.set_step_mode(self.net, "m")
        self._reset = functional.reset_net

    def forward(self, x: Tensor) -> Tensor:
        self._reset(self.net)
        return self.net(x.expand(self.steps, *x.shape)).mean(0)

    def dynamics(self) -> dict[str, Tensor]:
        vsn: Any = self.net[1]
        decay = 1 - vsn.w.detach().sigmoid()
        return {"decay": decay.expand(HIDDEN), "threshold": torch.full((HIDDEN,), vsn.v_threshold)}


class ActivityCounter:
    """Counts the fraction of neurons and steps that emit, by forward hooks on a network's neurons."""

    def __init__(self, network: Network) -> None:
        self.emitted = self.total = 0
        for layer in (network.net[1], network.net[3]):
            layer.register_forward_hook(self._count)

    def _count(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self.emitted += int((output.detach() != 0).sum())
        self.total += output.numel()

    def take(self) -> float:
        """Return the activity since the last call, and start anew."""
        activity = self.emitted / max(self.total, 1)
        self.emitted = self.total = 0
        return activity
