"""Observing networks of either framework: what is reported is what happened, and nothing is disturbed."""

import copy
import importlib
import pickle

import pytest
import torch
from torch import nn

from snn_ext.observe import observe


class Face:
    """One framework: its neurons by name, with hidden state, and how a network of them runs and resets."""

    def __init__(self, framework):
        pytest.importorskip(framework, reason=f"{framework} is not installed")
        self.ext = importlib.import_module(f"snn_ext.{framework}")


class SnnTorch(Face):
    def __init__(self):
        super().__init__("snntorch")

    def neuron(self, name, threshold=0.4, **options):
        if name == "LIFB":
            options = {"reset_mechanism": "zero", **options}
        if options.pop("vanilla", False):
            options["reset_mechanism"] = "zero"
        return getattr(self.ext, name)(0.75, threshold, init_hidden=True, **options)

    def native(self):
        return importlib.import_module("snntorch").Leaky(0.9, init_hidden=True)

    def run(self, net, x_seq):
        return torch.stack([net(x) for x in x_seq])

    def reset(self, net):
        self.ext.reset(net)

    def state(self, neuron):
        return neuron.mem


class SpikingJelly(Face):
    def __init__(self):
        super().__init__("spikingjelly")

    def neuron(self, name, threshold=0.4, **options):
        if options.pop("vanilla", False):
            options["v_reset"] = 0.0
        settings = {"tau": 4.0, "decay_input": False, "v_threshold": threshold, "step_mode": "m"}
        return getattr(self.ext, f"{name}Node")(**settings, **options)

    def native(self):
        return importlib.import_module("spikingjelly.activation_based.neuron").LIFNode(step_mode="m")

    def run(self, net, x_seq):
        return net(x_seq)

    def reset(self, net):
        importlib.import_module("spikingjelly.activation_based.functional").reset_net(net)

    def state(self, neuron):
        return neuron.v


@pytest.fixture(params=[SnnTorch, SpikingJelly], ids=lambda face: face.__name__)
def face(request):
    return request.param()


NAMES = ["VSN", "LIFB", "SoftResetMPR"]
X_SEQ = torch.randn(12, 5, 4, generator=torch.Generator().manual_seed(3)) * 1.5


def test_the_fractions_of_the_modes_are_those_of_the_output_and_sum_to_one(face):
    lifb = face.neuron("LIFB", burst_threshold=1.0, burst_intensity=3.0)
    with observe(lifb) as seen:
        y_seq = face.run(lifb, X_SEQ)
    modes = seen[""]
    assert modes == {
        name: pytest.approx((y_seq == value).double().mean().item())
        for name, value in (("rest", 0), ("regular", 1), ("burst", 3))
    }
    assert sum(modes.values()) == pytest.approx(1)
    assert min(modes.values()) > 0


def test_bursts_are_counted_even_if_they_emit_no_more_than_a_spike(face):
    bursting, plain = (face.neuron("LIFB", burst_intensity=kappa) for kappa in (3.0, 1.0))
    with observe(nn.ModuleList([bursting, plain])) as seen:
        face.run(bursting, X_SEQ)
        face.run(plain, X_SEQ)
    assert seen["0"] == seen["1"]
    assert seen["1"]["burst"] > 0


@pytest.mark.parametrize("name", ["VSN", "SoftResetMPR"])
def test_the_firing_rate_is_that_of_the_output(face, name):
    neuron = face.neuron(name)
    with observe(neuron) as seen:
        y_seq = face.run(neuron, X_SEQ)
    assert seen[""]["firing_rate"] == pytest.approx((y_seq != 0).double().mean().item())
    assert 0 < seen[""]["firing_rate"] < 1


def phi(u):
    """The rectifier as its authors wrote it."""
    inner = 0.5 * torch.tanh(3 * (u - 0.5)) / torch.tanh(torch.tensor(1.5)) + 0.5
    outer = torch.where(u < 0, 1 - (1 - u.clamp(max=0)) ** (1 / 3), u.clamp(min=1) ** (1 / 3))
    return torch.where((u >= 0) & (u <= 1), inner, outer)


@pytest.mark.parametrize("arm", [{}, {"mpr": False}, {"mpr": False, "vanilla": True}], ids=str)
@pytest.mark.parametrize("amplitude", [1.0, 0.5])
def test_the_quantisation_error_is_the_square_distance_of_potential_and_spike(face, arm, amplitude):
    neuron = face.neuron("SoftResetMPR", threshold=amplitude / 2, amplitude=amplitude, **arm)
    with observe(neuron) as seen:
        y_seq = face.run(neuron, X_SEQ)
    v, errors = torch.zeros(5, 4), []
    for x, y in zip(X_SEQ, y_seq, strict=True):
        h = 0.75 * v + x
        u = phi(h / amplitude) if arm.get("mpr", True) else h / amplitude
        errors.append((u - y / amplitude) ** 2)
        v = torch.where(y > 0, torch.zeros(()), h) if arm.get("vanilla") else h - y
    expected = torch.stack(errors).mean().item()
    assert seen[""]["quantization_error"] == pytest.approx(expected, rel=1e-5)


def test_the_rectifier_lowers_the_quantisation_error(face):
    x_seq, errors = torch.rand(200, 50), []
    for arm in ({"mpr": False}, {}):
        neuron = face.neuron("SoftResetMPR", threshold=0.5, **arm)
        with observe(neuron) as seen:
            face.run(neuron, x_seq)
        errors.append(seen[""]["quantization_error"])
    assert errors[1] < errors[0]


def network(face):
    return nn.Sequential(
        nn.Linear(4, 6),
        nn.Sequential(face.neuron("VSN", 0.1), nn.Linear(6, 6), face.neuron("LIFB", 0.1)),
        nn.Linear(6, 6),
        face.native(),
        nn.Linear(6, 3),
        face.neuron("SoftResetMPR", 0.1),
    )


def test_layers_are_found_at_any_depth_by_their_names_and_native_ones_too(face):
    net = network(face)
    with observe(net) as seen:
        face.run(net, X_SEQ)
    assert {name: set(measured) for name, measured in seen.items()} == {
        "1.0": {"firing_rate"},
        "1.2": {"rest", "regular", "burst"},
        "3": {"firing_rate"},
        "5": {"firing_rate", "quantization_error"},
    }


def test_a_layer_that_did_not_run_is_left_out(face):
    net = network(face)
    with observe(net) as seen:
        face.run(net[1][0], torch.randn(3, 2, 6))
    assert set(seen) == {"1.0"}


def test_observing_disturbs_nothing(face):
    net = network(face)
    twin = copy.deepcopy(net)
    results = []
    for each, watched in ((net, True), (twin, False)):
        if watched:
            with observe(each):
                y_seq = face.run(each, X_SEQ)
                copies = [copy.deepcopy(each[1]), pickle.loads(pickle.dumps(each[1]))]
        else:
            y_seq = face.run(each, X_SEQ)
        grads = torch.autograd.grad(y_seq.sum(), each.parameters())
        results.append((y_seq, face.state(each[1][2]), face.state(each[5]), grads))
    torch.testing.assert_close(*results, rtol=0, atol=0)
    for each in (net, *copies):
        assert "_observer" not in str(each.state_dict().keys())
        assert all(getattr(module, "_observer", None) is None for module in each.modules())


def test_several_forward_calls_are_averaged_by_their_size(face):
    neuron = face.neuron("LIFB")
    parts, weights, seen_apart = [X_SEQ[:4], X_SEQ[4:10, :3]], [4 * 5 * 4, 6 * 3 * 4], []
    for part in parts:
        with observe(neuron) as seen:
            face.run(neuron, part)
        seen_apart.append(seen[""])
        face.reset(neuron)
    with observe(neuron) as together:
        for part in parts:
            face.run(neuron, part)
            face.reset(neuron)
    for mode, value in together[""].items():
        expected = sum(w * s[mode] for w, s in zip(weights, seen_apart, strict=True)) / sum(weights)
        assert value == pytest.approx(expected)


def test_what_has_been_seen_so_far_can_be_asked_for(face):
    neuron = face.neuron("VSN")
    with observe(neuron) as seen:
        assert seen == {}
        face.run(neuron, X_SEQ)
        assert seen == {}
        seen.refresh()
        assert set(seen) == {""}


def test_after_the_block_nothing_more_is_counted(face):
    neuron = face.neuron("VSN")
    with observe(neuron) as seen:
        face.run(neuron, X_SEQ)
    before = dict(seen)
    face.run(neuron, X_SEQ + 9)
    seen.refresh()
    assert seen == before


def test_an_error_in_the_block_ends_the_observation(face):
    neuron = face.neuron("VSN")
    with pytest.raises(ZeroDivisionError), observe(neuron):
        1 / 0  # noqa: B018
    assert neuron._observer is None


def test_an_inner_observation_takes_over_until_it_ends(face):
    neuron = face.neuron("VSN")
    with observe(neuron) as outer:
        face.run(neuron, X_SEQ)
        with observe(neuron) as inner:
            face.run(neuron, X_SEQ + 9)
    assert inner[""]["firing_rate"] == 1
    assert outer[""]["firing_rate"] < 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_and_gradients_are_observed_too(face, name, dtype):
    neuron = face.neuron(name)
    x_seq = X_SEQ.to(dtype).requires_grad_()
    with observe(neuron) as seen:
        y_seq = face.run(neuron, x_seq)
    y_seq.float().sum().backward()
    active = 1 - seen[""]["rest"] if name == "LIFB" else seen[""]["firing_rate"]
    assert active == pytest.approx((y_seq != 0).double().mean().item())


def test_a_callable_surrogate_is_observed_too(face):
    spike = {"spike_grad" if isinstance(face, SnnTorch) else "surrogate_function": lambda u: (u > 0).to(u)}
    neuron = face.neuron("LIFB", burst_intensity=3.0, **spike)
    with observe(neuron) as seen:
        y_seq = face.run(neuron, X_SEQ)
    assert seen[""]["burst"] == pytest.approx((y_seq == 3).double().mean().item())


def test_both_faces_offer_it(face):
    assert face.ext.observe is observe


def test_a_network_without_neurons_is_refused(face):
    net = nn.Sequential(nn.Linear(4, 3))
    with pytest.raises(ValueError, match="Sequential has no spiking layer to observe"), observe(net):
        pass
    with pytest.raises(TypeError, match="net must be a torch.nn.Module, got str"), observe("net"):
        pass
