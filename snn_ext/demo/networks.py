"""The same three-layer network in each framework, and its non-spiking twin.

``Linear - neuron - Linear - neuron - Linear``; an input has shape (steps, batch, inputs), and the output
of the last layer is averaged over the steps.  An *arm* names the two neurons; what it does not name is
alike: hard reset, the same surrogate (arc tangent), decay and threshold learned (in SpikingJelly the decay
alone, one per layer, for its ``ParametricLIFNode`` has no more).  LIFB also learns its burst threshold and
intensity.  SoftResetMPR is as its authors have it: soft reset, its own surrogate, no leak, nothing learned,
a spike of twice the firing level.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

ARMS = {
    "VSN": ("vsn", "lif"),
    "LIFB": ("lifb", "lifb"),
    "SoftReset": ("soft", "soft"),
    "LIF": ("lif", "lif"),
    "ReLU": (),
}
HIDDEN = 64
DECAY = 0.5
BURSTS: Any = {"learn_burst_threshold": True, "learn_burst_intensity": True}


def build(framework: str, arm: str, inputs: int, outputs: int, threshold: float) -> Network:
    """Return the network of `arm` in `framework`, all neurons starting at `threshold`."""
    if arm == "ReLU":
        return Twin(inputs, outputs)
    network = {"snntorch": SnnTorchNet, "spikingjelly": SpikingJellyNet}[framework]
    return network(ARMS[arm], inputs, outputs, threshold)


def _linears(inputs: int, outputs: int, linear: Any = nn.Linear) -> tuple[nn.Module, ...]:
    return linear(inputs, HIDDEN), linear(HIDDEN, HIDDEN), linear(HIDDEN, outputs)


class Network(nn.Module):
    """What the demo's networks share: three linear layers with two neuron layers in between."""

    net: nn.Sequential


class Twin(Network):
    """The non-spiking twin; it sees the mean over the steps, so of events their number."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        a, b, c = _linears(inputs, outputs)
        self.net = nn.Sequential(a, nn.ReLU(), b, nn.ReLU(), c)

    def forward(self, x_seq: Tensor) -> Tensor:
        return self.net(x_seq.mean(0))


class SnnTorchNet(Network):
    """Stepped as snnTorch networks are: hidden states inside, a loop over time outside."""

    def __init__(self, kinds: tuple[str, ...], inputs: int, outputs: int, threshold: float) -> None:
        super().__init__()
        import snntorch as snn

        from ..snntorch import LIFB, VSN, SoftResetMPR, reset

        def neuron(kind: str) -> nn.Module:
            if kind == "soft":
                return SoftResetMPR(threshold=threshold, amplitude=2 * threshold, init_hidden=True)
            common: Any = {
                "beta": torch.full((HIDDEN,), DECAY),
                "threshold": torch.full((HIDDEN,), threshold),
                "init_hidden": True,
                "learn_beta": True,
                "learn_threshold": True,
                "reset_mechanism": "zero",
            }
            if kind == "lifb":
                return LIFB(**common, **BURSTS)
            return VSN(**common) if kind == "vsn" else snn.Leaky(**common)

        a, b, c = _linears(inputs, outputs)
        self.net = nn.Sequential(a, neuron(kinds[0]), b, neuron(kinds[1]), c)
        self._reset = reset

    def forward(self, x_seq: Tensor) -> Tensor:
        self._reset(self)
        return torch.stack([self.net(x) for x in x_seq]).mean(0)


class SpikingJellyNet(Network):
    """Run as SpikingJelly networks are: multi-step, the whole sequence through each layer."""

    def __init__(self, kinds: tuple[str, ...], inputs: int, outputs: int, threshold: float) -> None:
        super().__init__()
        from spikingjelly.activation_based import functional, layer, neuron, surrogate

        from ..spikingjelly import LIFBNode, SoftResetMPRNode, VSNNode

        def node(kind: str) -> nn.Module:
            if kind == "soft":
                return SoftResetMPRNode(v_threshold=threshold, amplitude=2 * threshold)
            tau = 1 / (1 - DECAY)
            common: Any = {
                "decay_input": False,
                "v_threshold": threshold,
                "surrogate_function": surrogate.ATan(),
                "detach_reset": True,
            }
            if kind == "lifb":
                return LIFBNode(tau, **common, learn_tau=True, **BURSTS)
            if kind == "vsn":
                return VSNNode(tau, **common, learn_tau=True)
            return neuron.ParametricLIFNode(tau, **common)

        a, b, c = _linears(inputs, outputs, layer.Linear)
        self.net = nn.Sequential(a, node(kinds[0]), b, node(kinds[1]), c)
        functional.set_step_mode(self.net, "m")
        self._reset = functional.reset_net

    def forward(self, x_seq: Tensor) -> Tensor:
        self._reset(self.net)
        return self.net(x_seq).mean(0)


class ActivityCounter:
    """Counts the fraction of neurons and steps that emit, by forward hooks on a network's neurons."""

    def __init__(self, network: Network) -> None:
        self.emitted = self.total = 0
        for layer in (network.net[1], network.net[3]):
            layer.register_forward_hook(self._count)

    def _count(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self.emitted += int((output.detach() != 0).sum())
        self.total += output.numel()

    @property
    def activity(self) -> float:
        return self.emitted / self.total
