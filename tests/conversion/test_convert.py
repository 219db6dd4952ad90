"""The conversion itself: balancing, units, offsets, and the simulation of what comes out."""

import copy
import itertools

import numpy as np
import pytest
import torch
from conversion_nets import ALL, NETS, Mobile, ResNet, sequential, trained
from torch import nn

from snn_ext import coding
from snn_ext.conversion import Options, poisson, simulate
from snn_ext.conversion.balance import Activations
from snn_ext.conversion.convert import SAMPLE, Conversion, prepare
from snn_ext.conversion.graph import per_channel, watching
from snn_ext.conversion.spiking import MaxPool, Spiking, converted, input_norms

PLAIN = {"rule": "none", "per_channel": False, "fit_offsets": False, "progress": False}


def relu_twin(net):
    """Put ReLU and max pooling back where the conversion has put neurons."""
    net = copy.deepcopy(net)
    for name, layer in list(net.named_children()):
        if isinstance(layer, Spiking):
            setattr(net, name, nn.ReLU())
        elif isinstance(layer, MaxPool):
            setattr(net, name, layer.pool)
    return net


@pytest.mark.parametrize("build", NETS)
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(("rule", "strength"), [("none", 0.0), ("equalize", 0.7), ("equalize", -1.0)])
def test_units_and_equalize_leave_the_function_of_the_network_as_it_is(build, per_channel, rule, strength):
    net, images = trained(build)
    options = Options(**{**PLAIN, "rule": rule, "strength": strength, "per_channel": per_channel})
    spiking = prepare(net, images.split(16), options)
    torch.testing.assert_close(relu_twin(spiking)(images), net(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("build", NETS)
def test_equalize_at_full_strength_makes_the_norms_equal(build):
    net, images = trained(build)
    conversion = Conversion(net, images.split(16), progress=False)
    spiking = conversion.network(Options(**{**PLAIN, "rule": "equalize", "strength": 1.0}))
    assert all(layer.l4_spread < 1e-5 for layer in converted(spiking).values())
    plain = conversion.network(Options(**PLAIN))
    assert all(layer.l4_spread > 0.02 for layer in converted(plain).values() if layer.l4_mean > 0)


@pytest.mark.parametrize("build", ALL)
def test_rates_come_near_to_the_activations_as_time_goes_on(build):
    net, images = trained(build, dtype=torch.float64)
    images = images[:8]
    options = Options(**{**PLAIN, "percentile": 1.0, "coding": "direct"})
    spiking = prepare(net, images.split(4), options)
    errors = []
    for steps in (16, 64, 1024):
        mean = simulate.Run(spiking, simulate.CORE)(images.expand(steps, *images.shape)).mean(0)
        errors.append((mean - net(images)).abs().mean().item() / net(images).abs().mean().item())
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.03


@pytest.mark.parametrize("fraction", [1.0, 0.999, 0.9, 0.5])
def test_percentiles_are_those_of_all_activations(fraction):
    batches = [torch.randn(16, 6, 5, 5).relu() * torch.arange(1, 7).view(6, 1, 1) for _ in range(3)]
    activations = Activations(6)
    for batch in batches:
        activations.add(batch)
    values = torch.cat(batches).movedim(1, 0).flatten(1).numpy()
    if fraction > 0.5:  # at the median some channels are at zero
        expected = np.quantile(values, fraction, axis=1, method="inverted_cdf")
        np.testing.assert_allclose(activations.percentile(fraction, True), expected, rtol=0.003)
        expected = np.quantile(values, fraction, method="inverted_cdf")
        np.testing.assert_allclose(activations.percentile(fraction, False), expected, rtol=0.003)


def test_where_the_percentile_is_zero_a_tenth_of_the_largest_is_taken():
    activations = Activations(3)
    batch = torch.zeros(100, 3)
    batch[0, 0], batch[:, 1] = 5.0, 2.0
    activations.add(batch)
    layer = activations.percentile(0.9, False)
    torch.testing.assert_close(layer, torch.tensor(2.0), rtol=0.003, atol=0)
    found = activations.percentile(0.9, True)  # the third never fires: the layer's scale
    torch.testing.assert_close(found, torch.tensor([0.5, 2.0, layer]), rtol=0.003, atol=0)


def mean_rates(spiking, x_seq):
    rates = {}

    def see(name, z_seq, y_seq):
        rates[name] = y_seq.mean((0, 1, *range(3, y_seq.dim())))

    simulate.Run(spiking, simulate.CORE, see)(x_seq)
    return {name: rate for name, rate in rates.items() if isinstance(spiking.get_submodule(name), Spiking)}


def activations(reading, images):
    found = {}
    with watching(reading, found.__setitem__):
        reading(images)
    return found


@pytest.mark.parametrize("build", [sequential, ResNet])
@pytest.mark.parametrize("options", [{"rule": "none"}, {"rule": "scale"}, {"rule": "equalize"}])
def test_fitted_offsets_make_mean_rates_those_of_the_activations(build, options):
    net, images = trained(build)
    conversion = Conversion(net, images.split(16), progress=False)
    options = Options(**options, progress=False)
    spiking = conversion.network(options)
    x_seq = poisson(images, 16, torch.Generator().manual_seed(0))
    wanted = activations(conversion.reading, images)
    told = 0
    for name, rate in mean_rates(spiking, x_seq).items():
        worth = conversion._neurons(name, options).worth
        target = (wanted[name] / per_channel(worth, wanted[name].dim())).clamp(max=1)
        target = target.mean((0, *range(2, target.dim())))
        active = (target > 0) & (target < 1)
        away = (rate[active] - target[active]).abs()
        assert away.median() < 0.01
        assert away.max() < 1.5 / 16  # neurons of equal input fire together: rates come in sixteenths
        told += int(active.sum())
    assert told > 20


def test_channels_that_are_silent_where_offsets_are_fitted_are_left_as_they_are():
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 1.0, 0]]))
        net[0].bias.zero_()
    images = torch.rand(32, 4)
    images[:, 1] = 0
    spiking = prepare(net, images.split(16), Options(rule="none", progress=False))
    assert spiking.layer_0.bias[1] == 0
    assert spiking.layer_0.bias[0] != 0


@pytest.mark.parametrize("rule", ["none", "scale", "equalize"])
@pytest.mark.parametrize("size", [1e-2, 1e-6, 1e-12])
def test_channels_of_next_to_no_weights_do_not_run_wild(rule, size):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 4)
    )
    images = torch.rand(32, 3, 8, 8)
    for _ in range(20):
        net(images)
    with torch.no_grad():
        net[1].weight[:8], net[1].bias[:8] = size, 0.05
    net.eval()
    options = Options(rule=rule, coding="direct", steps=64, progress=False)
    spiking = prepare(net, images.split(16), options)
    mean = simulate.Run(spiking, simulate.CORE)(images.expand(256, *images.shape)).mean(0)
    bound = 0.3 if rule == "scale" else 0.1  # scale changes the function, though boundedly
    assert (mean - net(images)).abs().mean() < bound * net(images).std()


def test_an_offset_is_added_once_where_a_sum_takes_the_same_layer_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.out = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x):
            h = self.fc(x)
            return self.out(torch.relu(h + h))

    net, images = Twice().eval(), torch.rand(32, 4)
    conversion = Conversion(net, images.split(16), progress=False)
    plain, shifted = (
        conversion.network(Options(**{**PLAIN, "rule": "bias", "strength": strength}))
        for strength in (0.0, -0.3)
    )
    inputs = []
    for spiking in (plain, shifted):
        simulate.Run(spiking, simulate.CORE, lambda name, z, y: inputs.append(z))(images.unsqueeze(0))
    norm = input_norms(conversion.reading)["relu"] / conversion.activations["relu"].percentile(0.999, False)
    torch.testing.assert_close(inputs[1] - inputs[0], (0.3 * norm).expand_as(inputs[0]), rtol=1e-4, atol=1e-5)


def test_offsets_are_fitted_on_images_of_all_batches():
    net, images = trained(sequential, samples=200)
    conversion = Conversion(net, images.split(50), progress=False)
    assert len(conversion.images) == SAMPLE
    places = [(images == image).flatten(1).all(1).nonzero().item() for image in conversion.images]
    assert len(set(places)) == SAMPLE
    assert all(sum(start <= place < start + 50 for place in places) > 5 for start in (0, 50, 100, 150))


def test_a_strength_fitted_by_layer_follows_the_norms_and_its_control_does_not():
    net, images = trained(sequential)
    conversion = Conversion(net, images.split(16), progress=False)
    common = {**PLAIN, "rule": "bias"}
    plain = conversion.network(Options(**{**common, "strength": 0.0}))
    shifts = {}
    for control in (False, True):
        fitted = conversion.network(Options(**{**common, "strength": "fit", "control": control}))
        before, after = (net.get_submodule("layer_0").bias for net in (plain, fitted))
        shifts[control] = after - before
    norm = input_norms(conversion.reading)["layer_2"]
    ratio = shifts[False] / norm
    torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio), rtol=1e-3, atol=1e-4)
    assert shifts[False].std() > 1e-4
    torch.testing.assert_close(shifts[True], shifts[True].mean().expand_as(norm), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("rule", ["scale", "threshold", "bias", "equalize"])
def test_a_control_keeps_the_mean_and_takes_away_the_differences(rule):
    net, images = trained(sequential)
    conversion = Conversion(net, images.split(16), progress=False)
    common = {**PLAIN, "rule": rule, "strength": 0.5}
    layers = {
        control: {
            name: conversion._neurons(name, Options(**{**common, "control": control}))
            for name in conversion.activations
        }
        for control in (False, True)
    }
    for name, ours in layers[False].items():
        theirs = layers[True][name]
        scale = conversion.activations[name].percentile(0.999, False)
        thresholds = (ours.unit / scale, theirs.unit / scale)
        gains = (scale / ours.unit, scale / theirs.unit)
        pairs = ((ours.offset, theirs.offset), thresholds if rule == "threshold" else gains)
        for one, other in pairs:
            torch.testing.assert_close(one.mean(), other.mean())
            torch.testing.assert_close(other, other.mean().expand_as(other))


@pytest.mark.parametrize("build", [ResNet, sequential])
def test_parts_of_the_steps_give_what_all_at_once_give(build):
    net, images = trained(build, dtype=torch.float64)
    spiking = prepare(net, images.split(16), Options(progress=False))
    x_seq = poisson(images[:3], 12, torch.Generator().manual_seed(1))
    whole = simulate.Run(spiking, simulate.CORE)(x_seq)
    run = simulate.Run(spiking, simulate.CORE)
    torch.testing.assert_close(torch.cat([run(part) for part in x_seq.split(5)]), whole, rtol=0, atol=1e-12)


def test_max_pooling_has_emitted_as_many_spikes_as_the_busiest_neuron_of_each_window():
    x_seq = (torch.rand(20, 2, 3, 6, 6) < 0.3).float()
    layer = MaxPool(nn.MaxPool2d(2))
    first, state = simulate.fire_max_pool(layer, x_seq[:7], None)
    rest, _ = simulate.fire_max_pool(layer, x_seq[7:], state)
    pooled = torch.cat([first, rest])
    expected = layer.pool(x_seq.cumsum(0).flatten(0, 1)).unflatten(0, (20, 2))
    torch.testing.assert_close(pooled.cumsum(0), expected)
    assert set(pooled.unique().tolist()) == {0.0, 1.0}


def test_one_run_gives_the_accuracy_at_every_step():
    net, images = trained(sequential)
    labels = net(images).argmax(1)
    spiking = prepare(net, images.split(16), Options(progress=False))
    loader = list(zip(images.split(10), labels.split(10), strict=True))
    make = lambda: simulate.Run(spiking, simulate.CORE)  # noqa: E731
    curve = simulate.curve(make, loader, 24, seed=3, largest=lambda samples: 7)
    generator = torch.Generator().manual_seed(3)
    right = torch.zeros(24)
    for x, y in loader:
        x_seq = torch.cat([poisson(x, length, generator) for length in (7, 7, 7, 3)])
        right += (make()(x_seq).cumsum(0).argmax(2) == y).sum(1)
    torch.testing.assert_close(curve, right / len(images))
    with pytest.raises(ValueError, match="loader is empty"):
        simulate.curve(make, [], 4)
    with pytest.raises(ValueError, match="number of steps is 0"):
        simulate.curve(make, loader, 0)


def test_memory_does_not_grow_with_the_steps(monkeypatch):
    net, images = trained(sequential)
    spiking = prepare(net, images.split(16), Options(progress=False))
    monkeypatch.setattr(coding, "LARGEST", 3 * len(images) * 8 * 14 * 14)  # of the widest layer
    sizes = []
    fire = dict(simulate.CORE)
    fire[Spiking] = lambda layer, x_seq, v: (
        sizes.append(x_seq.numel()),
        simulate.fire_spiking(layer, x_seq, v),
    )[1]
    labels = torch.zeros(len(images))
    simulate.accuracy_curve(spiking, fire, lambda: None, [(images, labels)], 40)
    assert max(sizes) == coding.LARGEST
    monkeypatch.setattr(coding, "LARGEST", 1)
    assert simulate.at_once(spiking, 1) == 1


def test_poisson_spikes_have_the_rates_of_the_pixels_and_follow_the_seed():
    images = torch.rand(2, 3, 4)
    draw = lambda: poisson(images, 4000, torch.Generator().manual_seed(2))  # noqa: E731
    spikes = draw()
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(spikes.mean(0), images, atol=0.04, rtol=0)
    torch.testing.assert_close(draw(), spikes)


@pytest.mark.parametrize("value", [-0.1, 1.5])
def test_images_that_are_no_probabilities_are_refused(value):
    images = torch.rand(4, 3, 16, 16)
    images[0, 0, 0, 0] = value
    with pytest.raises(ValueError, match=r"images has a value of .*outside \[0, 1\].*coding='direct'"):
        poisson(images, 4)
    with pytest.raises(ValueError, match=r"calibration has a value of .*outside \[0, 1\]"):
        prepare(trained(sequential)[0], [images], Options(progress=False))


@pytest.mark.parametrize(
    ("calibration", "error", "match"),
    [
        ([], ValueError, "calibration is empty"),
        ([torch.rand(0, 3, 16, 16)], ValueError, "calibration is empty"),
        (torch.rand(4, 3, 16, 16), TypeError, r"calibration must be a loader.*images.split\(64\)"),
        (7, TypeError, "calibration must be a loader"),
        ([torch.zeros(4, 3, 16, 16, dtype=torch.uint8)], TypeError, "floating point.*uint8"),
        ([torch.full((4, 3, 16, 16), float("nan"))], ValueError, "calibration contains NaN or infinity"),
        ([{"x": 1}], TypeError, "floating point.*dict"),
    ],
)
def test_bad_calibration_data_are_refused_and_the_network_is_not_touched(calibration, error, match):
    net, _ = trained(sequential)
    net.train()
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(error, match=match):
        prepare(net, calibration, Options(progress=False))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(layer.training and not layer._forward_hooks for layer in net.modules())


def test_calibration_data_may_come_as_tuples_and_only_once():
    net, images = trained(sequential)
    once = ((batch, None) for batch in images.split(16))
    ours = prepare(net, once, Options(progress=False))
    theirs = prepare(net, images.split(16), Options(progress=False))
    x_seq = poisson(images, 4, torch.Generator().manual_seed(1))
    found, expected = (simulate.Run(n, simulate.CORE)(x_seq) for n in (ours, theirs))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"rule": "l4"}, ValueError, "rule='l4' is not known"),
        ({"strength": "fit"}, ValueError, "strength='fit' is for rule='bias'"),
        ({"strength": "much"}, ValueError, "strength='much' must be a number"),
        ({"strength": float("inf")}, ValueError, "strength=inf must be finite"),
        ({"rule": "bias"}, ValueError, "fit_offsets=False"),
        ({"percentile": 99.9}, ValueError, r"percentile=99.9 is outside \(0, 1\].*0.999"),
        ({"percentile": 0}, ValueError, r"percentile=0 is outside"),
        ({"reset": "hard"}, ValueError, "reset='hard' is not known"),
        ({"decay": 1.1}, ValueError, r"decay=1.1 is outside"),
        ({"decay": 0.0}, ValueError, "decay=0.0 must be a number above 0"),
        ({"initial": 1.0}, ValueError, "initial=1.0 must be a number below 1"),
        ({"initial": -0.1}, ValueError, "initial=-0.1 is outside"),
        ({"initial": 0.5, "decay": 0.9}, ValueError, "initial=0.5 needs reset='subtract' and decay=1"),
        ({"initial": 0.5, "reset": "zero"}, ValueError, "use initial=0"),
        ({"coding": "rate"}, ValueError, "coding='rate' is not known"),
        ({"per_channel": "no"}, TypeError, "per_channel='no' must be True or False"),
        ({"seed": 0.5}, TypeError, "seed=0.5 must be a whole number"),
        ({"rule": "none", "control": True}, ValueError, "control=True needs a rule"),
        ({"steps": 0}, ValueError, "steps=0 must be a whole number"),
        ({"steps": 2.5}, ValueError, "steps=2.5 must be a whole number"),
        ({"thresholds": 1}, TypeError, "thresholds"),
    ],
)
def test_bad_options_are_refused(options, error, match):
    with pytest.raises(error, match=match):
        Options(**options)


def test_the_initial_potential_follows_the_reset_and_the_leak():
    assert Options().initial == 0.5
    assert Options(reset="zero").initial == Options(decay=0.9).initial == 0.0


def test_a_stream_without_length_calibrates_and_images_are_not_changed():
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(images)

    net, images = trained(sequential)
    net = nn.Sequential(nn.ReLU(inplace=True), *net)
    images[0, 0, 0, 0] = 0.5
    before = images.clone()
    loader = torch.utils.data.DataLoader(Stream(), batch_size=16)
    spiking = prepare(net, loader, Options(progress=False))
    images -= 0.7
    prepare(net, [images], Options(progress=False, coding="direct"))
    torch.testing.assert_close(images, before - 0.7)
    assert len(converted(spiking)) == 4


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_network_s_precision_is_kept(dtype):
    net, images = trained(sequential)
    net, images = nn.Sequential(nn.ReLU(), *net).to(dtype), images.to(dtype)
    spiking = prepare(net, images.split(16), Options(progress=False, per_channel=True))
    assert {value.dtype for value in spiking.state_dict().values()} == {dtype}
    assert simulate.Run(spiking, simulate.CORE)(images.unsqueeze(0)).dtype == dtype


def test_a_conversion_is_the_same_every_time():
    net, images = trained(sequential)
    first, second = (prepare(net, images.split(16), Options(progress=False)) for _ in range(2))
    for (name, one), (_, other) in itertools.zip_longest(
        first.state_dict().items(), second.state_dict().items()
    ):
        assert torch.equal(one, other), name


@pytest.mark.parametrize("rule", ["none", "scale", "equalize", "threshold"])
def test_a_clipped_neuron_stands_for_no_more_than_its_limit(rule):
    net, images = trained(Mobile)
    conversion = Conversion(net, images.split(16), progress=False)
    options = Options(**{**PLAIN, "rule": rule, "strength": 1.0, "percentile": 1.0})
    for name, limit in conversion.limits.items():
        assert conversion._neurons(name, options).worth.max() <= limit
    assert set(conversion.limits.values()) == {6.0, 0.2, 0.1}


def test_activations_that_overflow_on_calibration_data_are_refused_by_layer():
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    with torch.no_grad():
        net[0].weight.fill_(1e38)
    images = [torch.full((4, 4), 1e-3), torch.full((4, 4), 1e3)]
    with pytest.raises(ValueError, match="the ReLU at '1' gives NaN or infinity on calibration data"):
        prepare(net, images, Options(progress=False, coding="direct"))


@pytest.mark.parametrize(
    ("loader", "error", "match"),
    [
        (
            [(torch.rand(4, 3, 16, 16), torch.zeros(3))],
            ValueError,
            r"labels has shape \(3,\).*one label an im",
        ),
        ([(torch.rand(4, 3, 16, 16), torch.zeros(1))], ValueError, r"labels has shape \(1,\)"),
        ([(torch.rand(4, 3, 16, 16), torch.zeros(4, 5))], ValueError, r"labels has shape \(4, 5\)"),
        ([(torch.rand(4, 3, 16, 16), torch.full((4,), 5))], ValueError, "value of 5, but .* labelled 0 to 4"),
        ([(torch.rand(4, 3, 16, 16), torch.full((4,), -1))], ValueError, "value of -1, but"),
        ([torch.rand(4, 3, 16, 16)], TypeError, "must yield pairs of tensors.*got a Tensor"),
        (torch.rand(4, 3, 16, 16), TypeError, "must give batches, got one tensor"),
        ([(torch.rand(4, 3, 16, 16), [0, 1, 2, 3])], TypeError, "must yield pairs of tensors"),
    ],
)
def test_labels_that_are_none_of_the_outputs_are_refused(loader, error, match):
    net, images = trained(sequential)
    spiking = prepare(net, images.split(16), Options(progress=False))
    with pytest.raises(error, match=match):
        simulate.accuracy_curve(spiking, simulate.CORE, lambda: None, loader, 4)


def test_outputs_that_are_no_classes_have_no_accuracy():
    spiking = prepare(
        nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1)),
        [torch.rand(8, 4)],
        Options(progress=False),
    )
    loader = [(torch.rand(8, 4), torch.zeros(8))]
    with pytest.raises(ValueError, match=r"outputs of shape \(8, 1\), but accuracy"):
        simulate.accuracy_curve(spiking, simulate.CORE, lambda: None, loader, 4)


@pytest.mark.parametrize(
    ("name", "neurons"), [("resnet18", 17), ("vgg11_bn", 10), ("mobilenet_v2", 35), ("squeezenet1_1", 26)]
)
def test_networks_of_torchvision_are_converted(name, neurons):
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    ann = getattr(models, name)(num_classes=7).eval()
    if name == "vgg11_bn":  # whose linear layers take a minute
        ann.classifier = nn.Sequential(nn.Linear(25088, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(True))
    images = torch.rand(4, 3, 40, 40)
    spiking = prepare(ann, [images], Options(progress=False, fit_offsets=False, percentile=1.0))
    assert sum(isinstance(layer, Spiking) for layer in spiking.children()) == neurons
    outputs = simulate.Run(spiking, simulate.CORE)(poisson(images, 3))
    assert outputs.shape == (3, *ann(images).shape)
    assert torch.isfinite(outputs).all()
