"""Conversion in both frameworks: native layers, native utilities, the same spikes."""

import copy
import importlib.util
import math
import pickle
from types import SimpleNamespace

import pytest
import torch
from conversion_nets import (
    ALL,
    NETS,
    Concatenated,
    Functional,
    Mobile,
    ResNet,
    one_dimensional,
    sequential,
    trained,
)
from torch import nn

from snn_ext.conversion import poisson
from snn_ext.energy import measure_energy


class SnnTorch:
    name = "snntorch"

    def __init__(self):
        import snntorch as snn
        from snntorch import utils

        import snn_ext.snntorch as ext

        self.ext, self.neurons, self.utils = ext, snn.Leaky, utils

    def convert(self, net, calibration, *, decay=1.0, reset="subtract", steps=16, **options):
        return self.ext.convert(
            net, calibration, beta=decay, reset_mechanism=reset, num_steps=steps, progress=False, **options
        )

    def reset(self, net):
        self.utils.reset(net)

    def native(self, net, x_seq):
        with torch.no_grad():
            return torch.stack([net(x) for x in x_seq])


class SpikingJelly:
    name = "spikingjelly"

    def __init__(self):
        from spikingjelly.activation_based import functional, neuron

        import snn_ext.spikingjelly as ext

        self.ext, self.neurons, self.functional = ext, neuron.BaseNode, functional

    def convert(self, net, calibration, *, decay=1.0, reset="subtract", steps=16, **options):
        tau = math.inf if decay == 1 else 1 / (1 - decay)
        recipe = self.ext.L4Recipe(calibration, tau=tau, reset=reset, T=steps, progress=False, **options)
        return self.ext.Converter(recipe).convert(net)

    def reset(self, net):
        self.functional.reset_net(net)

    def native(self, net, x_seq):
        self.functional.set_step_mode(net, "m")
        with torch.no_grad():
            return net(x_seq)


@pytest.fixture(params=[SnnTorch, SpikingJelly], ids=lambda kind: kind.name)
def world(request):
    if importlib.util.find_spec(request.param.name) is None:
        pytest.skip(f"{request.param.name} is not installed")
    return request.param()


def coded(images, steps=20):
    return poisson(images[:4], steps, torch.Generator().manual_seed(5))


OPTIONS = [
    {},
    {"initial": 0.0},
    {"rule": "equalize", "per_channel": True},
    {"reset": "zero"},
    {"decay": 0.75},
    {"decay": 0.75, "reset": "zero", "rule": "none"},
]


@pytest.mark.parametrize("build", ALL)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_fast_runs_equal_native_steps_and_modes(world, build, options):
    net, images = trained(build)
    x_seq = coded(images)
    spiking = world.convert(net, images.split(16), **options)
    native = world.native(spiking, x_seq)
    world.reset(spiking)
    fast = world.ext.multi_step(spiking, x_seq)
    torch.testing.assert_close(fast, native, rtol=0, atol=1e-5)
    world.reset(spiking)
    parts = torch.cat([world.ext.multi_step(spiking, part) for part in x_seq.split(7)])
    torch.testing.assert_close(parts, native, rtol=0, atol=1e-5)
    assert native.std() > 0


@pytest.mark.parametrize("build", ALL)
@pytest.mark.parametrize("options", OPTIONS[:4], ids=str)
def test_both_frameworks_give_the_same_spikes(build, options):
    pytest.importorskip("snntorch")
    pytest.importorskip("spikingjelly")
    net, images = trained(build, dtype=torch.float64)
    x_seq = coded(images)
    spikes = []
    for world in (SnnTorch(), SpikingJelly()):
        spiking, seen = world.convert(net, images.split(16), **options), []
        for layer in spiking.children():
            if hasattr(layer, "converted"):
                layer.register_forward_hook(lambda m, i, output, seen=seen: seen.append(output))
        world.native(spiking, x_seq)
        spikes.append(seen)
    ours, theirs = spikes  # snnTorch: a call a step; SpikingJelly: a call a layer
    layers = len(theirs)
    for number, sequence in enumerate(theirs):
        stacked = torch.stack(ours[number::layers])
        assert torch.equal(stacked, sequence)
        assert set(stacked.unique().tolist()) <= {0.0, 1.0}
        assert stacked.any()


@pytest.mark.parametrize("build", [ResNet, sequential])
def test_layers_are_native_and_children_of_the_network(world, build):
    net, images = trained(build)
    spiking = world.convert(net, images.split(16))
    relus = 5 if build is ResNet else 3
    assert (
        sum(isinstance(layer, world.neurons) for layer in spiking.children() if hasattr(layer, "converted"))
        == relus
    )
    if world.name == "snntorch":
        import snntorch as snn

        plain = world.convert(net, images.split(16), initial=0.0)
        assert sum(type(layer) is snn.Leaky for layer in plain.children()) == relus
    else:
        from spikingjelly.activation_based import base, layer, neuron

        assert sum(type(child) is neuron.IFNode for child in spiking.children()) == relus
        assert all(isinstance(child, base.StepModule) for child in spiking.children())
        convolutions = [child for child in spiking.children() if isinstance(child, nn.Conv2d)]
        assert convolutions
        assert {type(child) for child in convolutions} == {layer.Conv2d}


@pytest.mark.parametrize("options", OPTIONS[:2], ids=str)
def test_reset_starts_anew_and_state_is_carried_on_without(world, options):
    net, images = trained(ResNet)
    x_seq = coded(images)
    spiking = world.convert(net, images.split(16), **options)
    first = world.native(spiking, x_seq)
    on = world.native(spiking, x_seq)
    world.reset(spiking)
    torch.testing.assert_close(world.native(spiking, x_seq), first)
    assert not torch.equal(on, first)
    world.reset(spiking)
    world.native(spiking, x_seq[:, :2])  # a batch of another size
    world.reset(spiking)
    torch.testing.assert_close(world.native(spiking, x_seq), first)


@pytest.mark.parametrize("options", OPTIONS[:2], ids=str)
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
@pytest.mark.parametrize("build", [ResNet, Concatenated])
def test_copies_and_pickles_work_alike(world, options, duplicate, build):
    net, images = trained(build)
    x_seq = coded(images)
    spiking = world.convert(net, images.split(16), **options)
    expected = world.ext.multi_step(spiking, x_seq)
    world.reset(spiking)
    twin = duplicate(spiking)
    torch.testing.assert_close(world.ext.multi_step(twin, x_seq), expected)
    reset = world.ext.reset if world.name == "snntorch" else world.reset
    reset(twin)
    torch.testing.assert_close(world.ext.multi_step(twin, x_seq), expected)
    if world.name == "spikingjelly" or not options:  # snnTorch's utility does not reach copies of snn.Leaky
        world.reset(twin)
        torch.testing.assert_close(world.ext.multi_step(twin, x_seq), expected)
    report = world.ext.conversion_report
    assert report(twin, images[:4]) == report(spiking, images[:4])


def test_the_state_dict_carries_the_conversion(world):
    net, images = trained(sequential)
    first = world.convert(net, images.split(16))
    other = world.convert(net, images.split(16), rule="none", fit_offsets=False)
    other.load_state_dict(first.state_dict())
    x_seq = coded(images)
    torch.testing.assert_close(world.ext.multi_step(other, x_seq), world.ext.multi_step(first, x_seq))


@pytest.mark.parametrize("build", NETS)
def test_the_network_is_never_touched(world, build):
    net, images = trained(build)
    net.train()
    before = copy.deepcopy(net.state_dict())
    world.convert(net, images.split(16))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(layer.training and not layer._forward_hooks for layer in net.modules())
    with pytest.raises(NotImplementedError, match=r"GELU at '2' cannot be converted.*nn.ReLU"):
        world.convert(nn.Sequential(nn.Flatten(), nn.Linear(768, 4), nn.GELU()), [torch.rand(4, 3, 16, 16)])
    with pytest.raises(NotImplementedError, match="cannot be traced by torch.fx"):
        world.convert(Branch(), [torch.rand(4, 3, 16, 16)])


class Branch(nn.Module):
    def forward(self, x):
        return torch.relu(x) if x.sum() > 0 else x


@pytest.mark.parametrize("options", OPTIONS[:2], ids=str)
def test_native_and_fast_runs_may_alternate(world, options):
    net, images = trained(ResNet)
    x_seq = coded(images)
    spiking = world.convert(net, images.split(16), **options)
    whole = world.native(spiking, x_seq)
    world.reset(spiking)
    runs = (world.native, world.ext.multi_step, world.native, world.ext.multi_step)
    parts = [run(spiking, part) for run, part in zip(runs, x_seq.split(5), strict=True)]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-5)


def test_accuracy_by_step_is_that_of_native_steps(world):
    net, images = trained(sequential)
    labels = net(images).argmax(1)
    spiking = world.convert(net, images.split(16), coding="direct")
    curve = world.ext.accuracy_curve(spiking, [(images, labels)], 30, coding="direct", progress=False)
    sums = world.native(spiking, images.expand(30, *images.shape)).cumsum(0)
    torch.testing.assert_close(curve, (sums.argmax(2) == labels).float().mean(1))
    assert curve[-1] > 0.8
    world.reset(spiking)
    once = world.ext.accuracy_curve(spiking, [(images, labels)], 8, seed=1, progress=False)
    assert torch.equal(once, world.ext.accuracy_curve(spiking, [(images, labels)], 8, seed=1, progress=False))


def test_the_report_counts_what_fires(world):
    net, images = trained(sequential)
    spiking = world.convert(net, images.split(16))
    report = world.ext.conversion_report(spiking, images, 16, seed=2)
    assert [layer.converted.path for layer in report] == ["2", "6", "11"]
    spikes = poisson(images, 16, torch.Generator().manual_seed(2))
    seen = {}
    for name, layer in spiking.named_children():
        if hasattr(layer, "converted"):
            layer.register_forward_hook(
                lambda m, i, output, name=name: seen.setdefault(name, []).append(output.detach().clone())
            )
    world.native(spiking, spikes)
    for layer, outputs in zip(report, seen.values(), strict=True):
        fired = torch.stack(outputs).flatten(0, -len(layer.converted.shape) - 2).view(16, 32, -1)
        assert layer.neurons == fired.shape[2]
        assert layer.rate == pytest.approx(fired.mean().item(), abs=1e-6)
        assert layer.dead == pytest.approx((fired.sum((0, 1)) == 0).float().mean().item())
        assert layer.saturated == pytest.approx((fired.sum(0).amax(0) > 15.2).float().mean().item())
    lines, (run, outcome, *basis) = str(report).splitlines()[:5], str(report).splitlines()[5:]
    assert run.startswith("after 16 steps")
    assert lines[0].split()[:2] == ["layer", "neurons"]
    assert len({len(line) for line in lines}) == 1
    assert len(lines) == 5
    assert outcome.startswith("energy")
    assert "MAC 4.6 pJ" in basis[0]


def wide(world, **options):
    """A network of few synapses behind its first layer, converted; with it its images."""
    torch.manual_seed(0)
    ann = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4)).eval()
    images = torch.rand(20, 16)
    return ann, world.convert(ann, images.split(10), **options), images


@pytest.mark.parametrize("mode", ["s", "m"])
@pytest.mark.parametrize("coding", ["poisson", "direct"])
@pytest.mark.filterwarnings("ignore:.*analogue")
def test_energy_is_by_default_that_of_what_the_network_was_fitted_for(world, coding, mode):
    if world.name == "snntorch" and mode == "m":
        pytest.skip("snnTorch has no step modes")
    _, spiking, images = wide(world, coding=coding, steps=12)
    if world.name == "spikingjelly":
        world.functional.set_step_mode(spiking, mode)
    report = measure_energy(spiking, [images], seed=3, progress=False)
    assert (report.steps, report.coding, report.fitted, report.samples) == (12, coding, 12, 20)
    x_seq = images.expand(12, 20, 16)
    if coding == "poisson":
        x_seq = poisson(images, 12, torch.Generator().manual_seed(3))
        expected = (0, 8 * x_seq.sum().item() / 20)
    else:
        expected = (12 * 16 * 8, 0)
    first, second = report.rows
    assert (first.mac, first.ac) == pytest.approx(expected)
    spikes = []
    layer = next(layer for layer in spiking.children() if hasattr(layer, "converted"))
    hook = layer.register_forward_hook(lambda m, i, output: spikes.append(output.sum().item()))
    world.native(spiking, x_seq)
    world.reset(spiking)
    hook.remove()
    assert sum(spikes) > 0
    assert second.ac == pytest.approx(4 * sum(spikes) / 20)
    assert report.twin_pj == pytest.approx((16 * 8 + 8 * 4) * 4.6)
    assert f"12 steps, {'images as random' if coding == 'poisson' else 'the same input'}" in str(report)
    assert spiking(images[:2].expand(3, 2, 16) if mode == "m" else images[:2]).shape[-1] == 4


@pytest.mark.filterwarnings("ignore:.*analogue")
def test_other_steps_and_sequences_are_measured_as_asked_and_said(world):
    _, spiking, images = wide(world)
    report = measure_energy(spiking, images.split(10), steps=5, coding="direct", progress=False)
    assert (report.steps, report.rows[0].mac) == (5, 5 * 16 * 8)
    assert "5 steps (fitted for 16), the same input at every step (direct)" in str(report)
    for mode in ("s", "m") if world.name == "spikingjelly" else ("s",):
        if world.name == "spikingjelly":
            world.functional.set_step_mode(spiking, mode)
        report = measure_energy(spiking, [images.expand(3, 20, 16)], progress=False)
        assert (report.steps, report.rows[0].mac, report.coding) == (3, 3 * 16 * 8, "given")
        with pytest.raises(ValueError, match="a sequence of shape .* leave them out"):
            measure_energy(spiking, [images.expand(3, 20, 16)], steps=3, progress=False)
        with pytest.raises(ValueError, match=r"loader gave shape \(16,\), but .* images of shape \(16,\)"):
            measure_energy(spiking, [images[0]], progress=False)
    if world.name == "spikingjelly":
        world.functional.set_step_mode(spiking, "s")
    inside = measure_energy(nn.Sequential(spiking), [images], progress=False)
    assert "1 step (fitted for 16), input as given" in str(inside)
    with pytest.raises(ValueError, match="coding='rate'"):
        measure_energy(spiking, [images], coding="rate", progress=False)


def test_before_and_after_stand_in_one_call(world):
    ann, spiking, images = wide(world)
    both = measure_energy({"before": ann, "after": spiking}, [(images, None)], progress=False)
    alone = measure_energy(spiking, [images], progress=False)
    assert both["after"] == alone
    assert both["before"].total_pj == both["before"].twin_pj == alone.twin_pj == 160 * 4.6
    assert (both["before"].steps, both["before"].samples) == (1, 20)
    lines = str(both).splitlines()
    assert lines[2].split()[:2] == ["before", "no"]
    assert lines[2].endswith("1.00 x")
    assert lines[3].endswith(f"{alone.total_pj / alone.twin_pj:.2f} x")
    assert "16 steps, images as random spikes" in lines[3]


def test_the_report_says_what_accuracy_costs(world):
    ann, spiking, images = wide(world, steps=9)
    labels = ann(images).argmax(1)
    report = world.ext.conversion_report(spiking, images, labels=labels, seed=4)
    curve = world.ext.accuracy_curve(spiking, [(images, labels)], 9, seed=4, progress=False)
    energy = measure_energy(spiking, [images], seed=4, progress=False)
    assert (report.steps, report.coding) == (9, "poisson")
    assert report.accuracy == pytest.approx(curve[-1].item())
    assert report.energy.total_pj == energy.total_pj
    assert report[0].rate == pytest.approx(energy.rates[next(iter(energy.rates))])
    text = str(report)
    assert f"accuracy {100 * report.accuracy:.1f} % after 9 steps, images as random spikes" in text
    times = f"{energy.total_pj / energy.twin_pj:.2f} times the ReLU network's 0.74 nJ"
    assert f"energy {energy.total_pj / 1e3:,.2f} nJ, {times}" in text


def test_where_energy_cannot_be_counted_the_report_says_why_and_the_rest_stands(world):
    ann, images = trained(sequential, dtype=torch.float32)
    spiking = world.convert(ann, images.split(16)).bfloat16()
    report = world.ext.conversion_report(spiking, images.bfloat16(), 2, coding="direct")
    assert len(report) == 3
    assert report.energy is None
    assert "energy is not counted: layer" in str(report)


def test_what_a_network_was_fitted_for_is_the_default_everywhere_and_survives_copies(world):
    ann, spiking, images = wide(world, steps=7, coding="direct")
    labels = ann(images).argmax(1)
    curve = world.ext.accuracy_curve
    default = curve(spiking, [(images, labels)], 7, progress=False)
    assert torch.equal(default, curve(spiking, [(images, labels)], 7, coding="direct", progress=False))
    for twin in (spiking, copy.deepcopy(spiking), pickle.loads(pickle.dumps(spiking))):
        report = world.ext.conversion_report(twin, images)
        assert (report.steps, report.coding) == (7, "direct")


def test_sequences_and_networks_from_elsewhere_are_refused(world):
    net, images = trained(sequential)
    with pytest.raises(TypeError, match="net must come from .*, got Sequential"):
        world.ext.multi_step(net, coded(images))
    with pytest.raises(TypeError, match="net must come from"):
        world.ext.conversion_report(net, images)
    spiking = world.convert(net, images.split(16))
    with pytest.raises(
        ValueError, match=r"x_seq must be .*T and N of at least 1, got shape \(0, 4, 3, 16, 16\)"
    ):
        world.ext.multi_step(spiking, coded(images)[:0])
    with pytest.raises(ValueError, match=r"images has a value of 2, outside \[0, 1\]"):
        world.ext.conversion_report(spiking, images * 0 + 2)
    with pytest.raises(ValueError, match="number of steps is 0"):
        world.ext.conversion_report(spiking, images, 0)
    with pytest.raises(ValueError, match="images is empty"):
        world.ext.conversion_report(spiking, images[:0])
    with pytest.raises(ValueError, match="percentile=99.9"):
        world.convert(net, images.split(16), percentile=99.9)


def test_gradients_reach_the_input_of_native_steps(world):
    net, images = trained(sequential)
    spiking = world.convert(net, images.split(16))
    x = images[:2].clone().requires_grad_()
    if world.name == "snntorch":
        out = sum(spiking(x) for _ in range(4))
    else:
        world.functional.set_step_mode(spiking, "m")
        out = spiking(x.expand(4, *x.shape)).sum(0)
    out.sum().backward()
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("build", [sequential, ResNet, Concatenated, Mobile])
def test_weights_are_frozen_until_they_are_asked_to_learn(world, build):
    net, images = trained(build)
    spiking = world.convert(net, images.split(16))
    parameters = dict(spiking.named_parameters())
    assert len(parameters) >= 6
    assert not any(p.requires_grad for p in parameters.values())
    spiking.requires_grad_(True)
    before = {name: p.detach().clone() for name, p in parameters.items()}
    labels = (net(images).argmax(1) + 1) % 5  # another task than the one it was trained for
    optimizer = torch.optim.SGD(spiking.parameters(), 0.02)
    if world.name == "spikingjelly":
        world.functional.set_step_mode(spiking, "m")
    losses = []
    for _ in range(12):
        world.reset(spiking)
        if world.name == "snntorch":
            outputs = sum(spiking(images) for _ in range(8)) / 8
        else:
            outputs = spiking(images.expand(8, *images.shape)).mean(0)
        loss = nn.functional.cross_entropy(outputs, labels)
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.any() for p in parameters.values())
        optimizer.step()
        losses.append(loss.item())
    assert all(not torch.equal(p, before[name]) for name, p in parameters.items())
    assert losses[-1] < losses[0]


def test_a_spiking_network_is_not_converted_again(world):
    net, images = trained(sequential)
    spiking = world.convert(net, images.split(16))
    with pytest.raises(ValueError, match=r"is a spiking network already: layer 'layer_2' is .*ReLU network"):
        world.convert(spiking, images.split(16))
    ours = world.ext.VSN(0.5, init_hidden=True) if world.name == "snntorch" else world.ext.VSNNode()
    with pytest.raises(ValueError, match=r"already: layer '1.0' is snn_ext's VSN"):
        world.convert(nn.Sequential(nn.Flatten(), nn.Sequential(ours)), images.split(16))
    if world.name == "snntorch":
        import snntorch as snn

        native, known = snn.Leaky(0.5, init_hidden=True), "snntorch's Leaky"
    else:
        from spikingjelly.activation_based import neuron

        native, known = neuron.LIFNode(), "spikingjelly's LIFNode"
    with pytest.raises(ValueError, match=f"layer '1' is {known}"):
        world.convert(nn.Sequential(nn.Flatten(), native), images.split(16))


@pytest.mark.parametrize("end", [nn.Softmax(1), nn.LogSoftmax(1), nn.Sigmoid()])
def test_a_network_that_ends_in_probabilities_predicts_the_same(world, end):
    net, images = trained(sequential)
    with pytest.warns(UserWarning, match=f"{type(end).__name__} at '1' is left out"):
        spiking = world.convert(nn.Sequential(net, end), images.split(16), coding="direct")
    plain = world.convert(net, images.split(16), coding="direct")
    x_seq = images.expand(4, *images.shape)
    torch.testing.assert_close(world.ext.multi_step(spiking, x_seq), world.ext.multi_step(plain, x_seq))


class TestSnnTorch:
    @pytest.fixture(autouse=True)
    def _needs(self):
        pytest.importorskip("snntorch")
        self.world = SnnTorch()

    def test_runs_on_what_spikegen_draws(self):
        from snntorch import spikegen

        net, images = trained(sequential)
        spiking = self.world.convert(net, images.split(16))
        spikes = spikegen.rate(images[:4], num_steps=6)
        native = self.world.native(spiking, spikes)
        self.world.reset(spiking)
        torch.testing.assert_close(self.world.ext.multi_step(spiking, spikes), native, rtol=0, atol=1e-5)

    def test_exports_to_nir_with_reset_to_zero_and_comes_back_with_equal_spikes(self):
        pytest.importorskip("nir")
        from snntorch.import_nir import import_from_nir

        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
        images = torch.rand(32, 6)
        spiking = self.world.convert(net, images.split(16), decay=0.875, reset="zero")
        graph = self.world.ext.export_to_nir(spiking, images[:1], ignore_dims=[0])
        kinds = sorted(type(node).__name__ for node in graph.nodes.values())
        assert kinds == ["Affine", "Affine", "Affine", "Input", "LIF", "LIF", "Output"]
        back = import_from_nir(graph)
        x_seq = poisson(images[:4], 20, torch.Generator().manual_seed(0))
        native, state, read = self.world.native(spiking, x_seq), None, []
        for x in x_seq:
            y, state = back(x, state)
            read.append(y)
        torch.testing.assert_close(torch.stack(read), native, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("options", [{"initial": 0.0}, {}])
    def test_is_not_exported_to_nir_with_a_reset_that_nir_has_not(self, options):
        pytest.importorskip("nir")
        net, images = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3)), torch.rand(8, 6)
        spiking = self.world.convert(net, [images], **options)
        with pytest.raises(NotImplementedError, match="cannot be exported to NIR.*reset"):
            self.world.ext.export_to_nir(spiking, images[:1], ignore_dims=[0])

    @pytest.mark.parametrize(
        ("options", "match"), [({"beta": 2.0}, "beta=2 is outside"), ({"reset_mechanism": "none"}, "'none'")]
    )
    def test_speaks_snntorchs_words_in_errors(self, options, match):
        net, images = trained(sequential)
        with pytest.raises(ValueError, match=match):
            self.world.ext.convert(net, images.split(16), **options)

    @pytest.mark.parametrize(
        ("given", "match"),
        [
            ({"rul": "scale"}, "convert has no argument 'rul'; did you mean 'rule'"),
            ({"num_step": 4}, "did you mean 'num_steps'"),
            ({"T": 4}, "here it is num_steps"),
            ({"decay": 0.5}, "here it is beta"),
            ({"reset": "zero"}, "here it is reset_mechanism"),
            ({"mode": "99.9%"}, r"here it is percentile: mode='99.9%' is percentile=0.999"),
            ({"whatever": 1}, "'whatever'; it takes ann, calibration, beta, .*per_channel"),
        ],
    )
    def test_names_the_argument_that_was_meant(self, given, match):
        net, images = trained(sequential)
        with pytest.raises(TypeError, match=match):
            self.world.ext.convert(net, images.split(16), **given)

    def test_names_it_for_curves_and_reports(self):
        with pytest.raises(TypeError, match="accuracy_curve has no argument 'T'; here it is num_steps"):
            self.world.ext.accuracy_curve(None, [], T=4)
        with pytest.raises(TypeError, match="conversion_report has no argument 'sed'; did you mean 'seed'"):
            self.world.ext.conversion_report(None, None, sed=1)


class TestSpikingJelly:
    @pytest.fixture(autouse=True)
    def _needs(self):
        pytest.importorskip("spikingjelly")
        self.world = SpikingJelly()

    @pytest.mark.parametrize(
        ("given", "match"),
        [
            ({"rul": "scale"}, "L4Recipe has no argument 'rul'; did you mean 'rule'"),
            ({"num_steps": 4}, "here it is T"),
            ({"beta": 0.5}, "here it is tau"),
            ({"mode": "99.9%"}, r"here it is percentile: mode='99.9%' is percentile=0.999"),
            ({"channel_wise": True}, "here it is per_channel"),
            ({"half_threshold": True}, "initial=0.5, the default"),
        ],
    )
    def test_names_the_argument_that_was_meant(self, given, match):
        with pytest.raises(TypeError, match=match):
            self.world.ext.L4Recipe([torch.rand(4, 3)], **given)

    def test_names_it_for_curves_and_reports(self):
        with pytest.raises(TypeError, match="accuracy_curve has no argument 'num_steps'; here it is T"):
            self.world.ext.accuracy_curve(None, [], num_steps=4)
        with pytest.raises(
            TypeError, match="conversion_report has no argument 'code'; did you mean 'coding'"
        ):
            self.world.ext.conversion_report(None, None, code="direct")

    def test_native_weights_learn_at_once_and_ours_when_asked(self):
        ann2snn = pytest.importorskip("spikingjelly.activation_based.ann2snn")
        if not hasattr(ann2snn, "RateCodingRecipe"):
            pytest.skip("no recipes in this release")
        net, images = trained(sequential)
        native = ann2snn.Converter(ann2snn.RateCodingRecipe([(images, 0)])).convert(net)
        ours = self.world.convert(net, images.split(16))
        assert not any(p.requires_grad for p in ours.parameters())
        for spiking in (native, ours.requires_grad_(True)):  # native fuses biases that learn nothing
            weights = [p for name, p in spiking.named_parameters() if name.endswith("weight")]
            before = [p.detach().clone() for p in weights]
            optimizer = torch.optim.SGD(spiking.parameters(), 0.1)
            sum(spiking(images) for _ in range(8)).pow(2).mean().backward()
            optimizer.step()
            assert all((p != old).any() for p, old in zip(weights, before, strict=True))

    @pytest.mark.parametrize("build", [ResNet, Functional, one_dimensional])
    def test_single_steps_equal_multi_step_mode(self, build):
        net, images = trained(build)
        x_seq = coded(images)
        spiking = self.world.convert(net, images.split(16))
        many = self.world.native(spiking, x_seq)
        self.world.reset(spiking)
        self.world.functional.set_step_mode(spiking, "s")
        with torch.no_grad():
            single = torch.stack([spiking(x) for x in x_seq])
        torch.testing.assert_close(single, many, rtol=0, atol=1e-5)

    @pytest.mark.parametrize(
        "name", ["LIFBNode", "SoftResetMPRNode", "ParametricLIFNode", "LIFNode", "IFNode"]
    )
    def test_takes_neurons_of_another_kind(self, name):
        from spikingjelly.activation_based import neuron

        make = {
            "LIFBNode": lambda: self.world.ext.LIFBNode(math.inf, False, 1.0, None, burst_intensity=2.0),
            "SoftResetMPRNode": lambda: self.world.ext.SoftResetMPRNode(math.inf, False, 1.0, None),
            "ParametricLIFNode": lambda: neuron.ParametricLIFNode(4.0, False, 1.0, None),
            "LIFNode": lambda: neuron.LIFNode(2.0, True, 1.0, None),
            "IFNode": lambda: neuron.IFNode(1.0, 0.25),
        }[name]
        net, images = trained(sequential)
        x_seq = coded(images)
        spiking = self.world.convert(
            net, images.split(16), neuron_factory=make, initial=0.0 if name == "IFNode" else 0.5
        )
        assert sum(type(layer).__name__ == name for layer in spiking.children()) == 3
        native = self.world.native(spiking, x_seq)
        self.world.reset(spiking)
        torch.testing.assert_close(self.world.ext.multi_step(spiking, x_seq), native, rtol=0, atol=1e-5)

    def test_bursts_are_the_same_spikes_up_to_twice_the_threshold_and_two_above(self):
        net, images = trained(sequential)
        make = lambda: self.world.ext.LIFBNode(math.inf, False, 1.0, None, burst_threshold=2.0)  # noqa: E731
        spiking = self.world.convert(net, images.split(16), neuron_factory=make)
        plain = self.world.convert(net, images.split(16))
        x_seq = coded(images)
        first = {}
        for kind, network in (("bursts", spiking), ("plain", plain)):
            layer = next(child for child in network.children() if hasattr(child, "converted"))
            layer.register_forward_hook(lambda m, i, output, kind=kind: first.__setitem__(kind, output))
            self.world.native(network, x_seq)
        assert torch.equal(first["bursts"] > 0, first["plain"] > 0)
        assert set(first["bursts"].unique().tolist()) <= {0.0, 1.0, 2.0}

    @pytest.mark.parametrize(
        ("make", "error", "match"),
        [
            (lambda: nn.ReLU(), TypeError, "neuron_factory must return a SpikingJelly neuron, got ReLU"),
            (lambda: SimpleNamespace(v_threshold=1.0), TypeError, "got SimpleNamespace"),
        ],
    )
    def test_refuses_what_is_no_neuron(self, make, error, match):
        net, images = trained(sequential)
        with pytest.raises(error, match=match):
            self.world.convert(net, images.split(16), neuron_factory=make)

    def test_refuses_another_threshold_and_what_cannot_be_called(self):
        from spikingjelly.activation_based import neuron

        net, images = trained(sequential)
        with pytest.raises(ValueError, match="IFNode with v_threshold=0.5; build it with v_threshold=1.0"):
            self.world.convert(net, images.split(16), neuron_factory=lambda: neuron.IFNode(0.5))
        with pytest.raises(TypeError, match="neuron_factory must be callable, got int"):
            self.world.convert(net, images.split(16), neuron_factory=3)
        with pytest.raises(ValueError, match="tau=1.0 must be a number above 1"):
            self.world.ext.L4Recipe(images.split(16), tau=1.0)
        with pytest.raises(
            ValueError, match="neuron_factory makes neurons with a tau and a reset of their own"
        ):
            self.world.convert(net, images.split(16), neuron_factory=neuron.IFNode, decay=0.5)
        with pytest.raises(ValueError, match="IFNode with v_reset=0.0, which forgets where it started"):
            self.world.convert(net, images.split(16), neuron_factory=lambda: neuron.IFNode(1.0))
        one = neuron.IFNode(1.0, None)
        with pytest.raises(ValueError, match="returned the same neuron twice"):
            self.world.convert(net, images.split(16), neuron_factory=lambda: one)

    def test_a_batch_of_another_size_needs_a_reset(self):
        net, images = trained(sequential)
        spiking = self.world.convert(net, images.split(16))
        self.world.ext.multi_step(spiking, coded(images))
        with pytest.raises(ValueError, match=r"IFNode holds a potential of shape .*reset_net"):
            self.world.ext.multi_step(spiking, coded(images)[:, :2])

    def test_the_converter_takes_recipes_only(self):
        with pytest.raises(TypeError, match="recipe"):
            self.world.ext.Converter([torch.rand(4, 3)])

    def test_one_recipe_converts_several_networks(self):
        net, images = trained(sequential)
        recipe = self.world.ext.L4Recipe(images.split(16), progress=False)
        converter = self.world.ext.Converter(recipe)
        first, second = converter.convert(net), converter.convert(net)
        x_seq = coded(images)
        torch.testing.assert_close(
            self.world.ext.multi_step(first, x_seq), self.world.ext.multi_step(second, x_seq)
        )
        assert recipe._conversion is None
