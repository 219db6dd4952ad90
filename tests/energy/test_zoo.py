"""Networks of the frameworks' zoos, counted to the operation where what reaches weights is 0 and 1."""

import contextlib

import pytest
import torch
from torch import nn
from torch.nn import functional

from snn_ext.energy import fan_out, measure_energy

STEPS, BATCH = 2, 2


def by_hand(net, run):
    """Return the weights met by what is 0 and 1, by layer: ones convolved with what arrives."""
    found, hooks = {}, []

    def meets(name):
        def hook(module, inputs):
            x = inputs[0].detach().double()
            if bool(((x == 0) | (x == 1)).all()):
                if x.dim() == 5:
                    x = x.flatten(0, 1)
                if isinstance(module, nn.Linear):
                    met = x * module.out_features
                else:
                    convolve = functional.conv2d if module.weight.dim() == 4 else functional.conv1d
                    ones = torch.ones_like(module.weight, dtype=torch.float64)
                    met = convolve(
                        x, ones, None, module.stride, module.padding, module.dilation, module.groups
                    )
                found[name] = found.get(name, 0) + met.sum().item()

        return hook

    for name, module in net.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)):
            hooks.append(module.register_forward_pre_hook(meets(name)))
    with torch.no_grad():
        run()
    for hook in hooks:
        hook.remove()
    return found


class TestSpikingJelly:
    @pytest.fixture
    def native(self):
        return pytest.importorskip("spikingjelly.activation_based.functional")

    def net(self, native, kind, mode="m"):
        from spikingjelly.activation_based import neuron, surrogate
        from spikingjelly.activation_based.model import (
            parametric_lif_net,
            sew_resnet,
            spiking_resnet,
            spiking_vgg,
        )

        torch.manual_seed(0)
        options = {
            "spiking_neuron": neuron.IFNode, "v_threshold": 0.05, "surrogate_function": surrogate.ATan()
        }  # fmt: skip
        if kind == "resnet":
            net = spiking_resnet.SpikingResNet(spiking_resnet.BasicBlock, [1, 1, 1, 1], 10, **options)
        elif kind == "plif":
            net = parametric_lif_net.CIFAR10Net(channels=8, **options)
        elif kind == "vgg":
            net = spiking_vgg.spiking_vgg11_bn(num_classes=10, **options).features[:9]
        else:
            net = sew_resnet.SEWResNet(sew_resnet.BasicBlock, [2, 1, 1, 1], 10, cnf=kind, **options)
        native.set_step_mode(net, mode)
        return net.eval()

    def counts(self, native, net, x, mode="m"):
        def run():
            native.reset_net(net)
            for _ in range(1 if mode == "m" else STEPS):
                net(x)
            native.reset_net(net)

        found = by_hand(net, run)
        with contextlib.suppress(ImportError):  # SpikingJelly 0.0.0.0.14 has no counters
            from spikingjelly.activation_based import op_counter

            counter = op_counter.SynOpCounter()
            with op_counter.DispatchCounterMode([counter]):
                run()
            assert counter.get_total() == sum(found.values())
        return found

    @pytest.mark.parametrize("mode", ["s", "m"])
    @pytest.mark.parametrize("kind", ["resnet", "plif", "vgg", "AND", "IAND"])
    def test_counts_are_those_of_synopcounter(self, native, kind, mode):
        net = self.net(native, kind, mode)
        size = 32 if kind in ("plif", "vgg") else 16
        x = torch.rand(BATCH, 3, size, size)
        x = x.expand(STEPS, *x.shape) if mode == "m" else x
        steps = None if mode == "m" else STEPS
        rows = measure_energy(net, [x], steps=steps, progress=False).rows
        found = self.counts(native, net, x, mode)
        assert {row.name: row.ac * BATCH for row in rows if row.source != "analogue"} == found
        assert sum(found.values()) > 1e5
        if kind in ("AND", "IAND"):
            with pytest.raises(NotImplementedError, match="(mul|rsub) in 'layer1.0'"):
                fan_out(net, x)
        else:
            assert all(bool(psi.any()) for psi in list(fan_out(net, x).values())[:-1])

    def test_added_spikes_are_each_sent(self, native):
        net, x = self.net(native, "ADD"), torch.rand(BATCH, 3, 16, 16).expand(STEPS, -1, -1, -1, -1)
        rows = {row.name: row for row in measure_energy(net, [x], progress=False).rows}
        block = net.layer1[1].conv1
        seen = []
        hook = block.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].flatten(0, 1)))
        native.reset_net(net)
        with torch.no_grad():
            net(x)
        hook.remove()
        assert seen[0].max() == 2
        met = functional.conv2d(seen[0], torch.ones_like(block.weight), padding=1)
        assert rows["layer1.1.conv1"].ac * BATCH == met.sum() > 0

    def test_spikformer(self, native):
        spikformer = pytest.importorskip("spikingjelly.activation_based.model.spikformer")
        if not hasattr(spikformer, "Spikformer"):
            pytest.skip("this SpikingJelly has no such Spikformer")
        from spikingjelly.activation_based import op_counter

        torch.manual_seed(0)
        net = spikformer.Spikformer(
            T=STEPS, img_size_h=16, img_size_w=16, patch_size=4, num_classes=10, embed_dims=32, num_heads=4,
            depths=1,
        ).eval()  # fmt: skip
        for module in net.modules():
            if hasattr(module, "v_threshold"):
                module.v_threshold = 0.05
        x = torch.rand(BATCH, 3, 16, 16)
        with pytest.raises(NotImplementedError, match="matmul in 'blocks.0.attn': attention .* coincidence"):
            fan_out(net, x)
        rows = {row.name: row for row in measure_energy(net, [x], progress=False).rows}
        counter = op_counter.SynOpCounter()
        native.reset_net(net)
        with torch.no_grad(), op_counter.DispatchCounterMode([counter]):
            net(x)
        theirs = {name: sum(found.values()) for name, found in counter.get_counts().items()}
        attention = theirs["Spikformer.blocks.0.attn"] - sum(
            theirs.get(f"Spikformer.blocks.0.attn.{name}", 0) for name in ("qkv_conv_bn", "proj_conv_bn")
        )
        assert rows["blocks.0.attn"].ac * BATCH == attention > 0
        assert rows["blocks.0.mlp.fc2.0"].ac * BATCH == theirs["Spikformer.blocks.0.mlp.fc2.0"] > 0


class TestConverted:
    """What `convert` and `L4Recipe` make of ReLU networks, max pooling included."""

    def ann(self, kind):
        torch.manual_seed(0)
        if kind == "small":
            return nn.Sequential(
                nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3), nn.ReLU(),
                nn.Flatten(), nn.Linear(144, 10),
            ).eval()  # fmt: skip
        models = pytest.importorskip("torchvision.models.resnet")
        return models.ResNet(models.BasicBlock, [1, 1, 1, 1], num_classes=10).eval()

    @pytest.mark.parametrize("kind", ["small", "resnet"])
    def test_what_arrives_is_counted(self, face, kind):
        ann, images = self.ann(kind), torch.rand(4, 3, 16, 16)
        if face.name == "snntorch":
            net = face.ext.convert(ann, [images], num_steps=STEPS, progress=False)
        else:
            recipe = face.ext.L4Recipe([images], T=STEPS, progress=False)
            net = face.ext.Converter(recipe).convert(ann)
            face.functional.set_step_mode(net, "s")
        reset = face.ext.reset if face.name == "snntorch" else face.functional.reset_net
        psi = fan_out(net, images[:1])
        assert all(bool(found.any()) for found in psi.values())

        def run():
            reset(net)
            for _ in range(STEPS):
                net(images)
            reset(net)

        found = by_hand(net, run)
        rows = measure_energy(net, [images], coding="direct", progress=False).rows
        assert len(found) > 1
        counted = {row.name: row.ac * len(images) for row in rows}
        assert {name: counted[name] for name in found} == found
        assert rows[0].source == "analogue"
