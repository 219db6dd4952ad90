"""The network that the tests of energy ask their questions of."""

import torch
from torch import nn

STEPS, BATCH = 4, 3


def network(face, neuron=None):
    torch.manual_seed(0)
    make = neuron or face.lif
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), make(), nn.Conv2d(3, 4, 3, stride=2, padding=1), make(),
        nn.Flatten(), nn.Linear(4 * 9, 5),
    )  # fmt: skip
    if face.name == "spikingjelly":
        face.functional.set_step_mode(net, "s")
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(3)
    return net
