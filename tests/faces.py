"""One way to say the same network in either framework, for tests that ask both the same question."""

import importlib.util

import pytest
import torch
from torch import nn


class SnnTorch:
    """snnTorch: hidden states, one call a step."""

    name = "snntorch"
    hard, soft = {"reset_mechanism": "zero"}, {"reset_mechanism": "subtract"}

    def __init__(self):
        import snntorch as snn

        import snn_ext.snntorch as ext

        self.ext, self.native = ext, snn.Leaky
        self.linear, self.conv, self.flatten = nn.Linear, nn.Conv2d, nn.Flatten
        self.avg_pool, self.max_pool = nn.AvgPool2d, nn.MaxPool2d

    def lifb(self, decay=0.5, threshold=0.5, **options):
        return self.ext.LIFB(decay, threshold, init_hidden=True, **options)

    def mpr(self, decay, threshold, **options):
        return self.ext.SoftResetMPR(decay, threshold, init_hidden=True, **options)

    def vsn(self):
        return self.ext.VSN(0.5, init_hidden=True)

    def lif(self, decay=0.5, threshold=0.5, **options):
        return self.native(decay, threshold, init_hidden=True, **{**self.hard, **options})

    def run(self, net, x_seq):
        self.ext.reset(net)
        with torch.no_grad():
            return torch.stack([net(x) for x in x_seq])

    def export(self, net, x_seq, **options):
        batch = {"ignore_dims": [0]} if x_seq.dim() in (3, 5) else {}
        return self.ext.export_to_nir(net, x_seq[0], **batch, **options)


class SpikingJelly:
    """SpikingJelly: multi-step."""

    name = "spikingjelly"
    hard, soft = {"v_reset": 0.0}, {"v_reset": None}

    def __init__(self):
        from spikingjelly.activation_based import functional, layer, neuron

        import snn_ext.spikingjelly as ext

        self.ext, self.native, self.functional = ext, neuron.LIFNode, functional
        self.linear, self.conv, self.flatten = layer.Linear, layer.Conv2d, layer.Flatten
        self.avg_pool, self.max_pool = layer.AvgPool2d, layer.MaxPool2d

    def lifb(self, decay=0.5, threshold=0.5, **options):
        return self.ext.LIFBNode(1 / (1 - decay), False, threshold, **options)

    def mpr(self, decay, threshold, **options):
        return self.ext.SoftResetMPRNode(1 / (1 - decay), False, threshold, **options)

    def vsn(self):
        return self.ext.VSNNode()

    def lif(self, decay=0.5, threshold=0.5, **options):
        return self.native(1 / (1 - decay), False, threshold, **options)

    def run(self, net, x_seq):
        self.functional.set_step_mode(net, "m")
        self.functional.reset_net(net)
        with torch.no_grad():
            return net(x_seq)

    def export(self, net, x_seq, **options):
        self.functional.set_step_mode(net, "m")
        return self.ext.export_to_nir(net, x_seq, **options)


@pytest.fixture(scope="session", params=[SnnTorch, SpikingJelly], ids=lambda face: face.name)
def face(request):
    if importlib.util.find_spec(request.param.name) is None:
        pytest.skip(f"{request.param.name} is not installed")
    return request.param()
