"""Fan-out: what single impulses meet when they are pushed through the real layers, neuron by neuron."""

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.nn.utils import prune

from snn_ext.energy import fan_out


def pushed(layers, shape, numbers=torch.ones_like):
    """Return the weights that an impulse in each neuron meets: forward, one impulse at a time."""
    impulses = torch.eye(shape.numel()).view(-1, *shape)
    met = torch.zeros(shape.numel())
    for layer in layers:
        if isinstance(layer, nn.Flatten):
            impulses = impulses.flatten(1)
        elif hasattr(layer, "weight") and not isinstance(layer, nn.BatchNorm2d):
            ones = nn.Module.__new__(type(layer))
            ones.__dict__ = {
                **{key: value for key, value in layer.__dict__.items() if key != "weight"},
                "_forward_pre_hooks": {},  # a pruned weight is made anew in one
                "_parameters": {"weight": numbers(layer.weight), "bias": None},
            }
            with torch.no_grad():
                return ones(impulses).flatten(1).sum(1).view(shape) + met.view(shape)
        elif isinstance(layer, (nn.AvgPool2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d)):
            with torch.no_grad():  # one impulse: an average is above zero just where a maximum is
                impulses = (layer(impulses) > 0).float()
    return met.view(shape)


@st.composite
def behind_a_neuron(draw):
    """Draw the layers behind a neuron of shape (4, 7, 6)."""
    pool = draw(
        st.sampled_from(
            [
                None,
                lambda: nn.AvgPool2d(2),
                lambda: nn.AvgPool2d(3, stride=2, padding=1),
                lambda: nn.MaxPool2d(2, ceil_mode=True),
                lambda: nn.MaxPool2d(3, stride=1, padding=1),
                lambda: nn.AdaptiveAvgPool2d((3, 4)),
            ]
        )
    )
    layers = [] if pool is None else [pool()]
    layers += draw(st.sampled_from([[], [nn.Dropout(0.5)], [nn.BatchNorm2d(4), nn.ReLU()]]))
    kind = draw(st.sampled_from(["conv", "transposed", "linear"]))
    if kind == "linear":
        size = nn.Sequential(*layers).eval()(torch.zeros(1, 4, 7, 6)).numel()
        return [*layers, nn.Flatten(), nn.Linear(size, draw(st.integers(1, 5)))]
    groups, kernel = draw(st.sampled_from([1, 2, 4])), draw(st.integers(1, 3))
    stride, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    padding = draw(st.integers(0, 1)) + dilation * (kernel - 1) // 2
    if kind == "conv":
        return [*layers, nn.Conv2d(4, 8, kernel, stride, padding, dilation, groups)]
    extra = draw(st.integers(0, max(stride, dilation) - 1))
    options = {"output_padding": extra, "groups": groups, "dilation": dilation}
    return [*layers, nn.ConvTranspose2d(4, 8, kernel, stride, min(padding, 1), **options)]


class TestAgainstImpulses:
    @given(layers=behind_a_neuron())
    def test_equals_what_single_impulses_meet(self, face, layers):
        net = nn.Sequential(face.lifb(), *layers)
        if face.name == "spikingjelly":
            face.functional.set_step_mode(net, "s")
        psi = fan_out(net, torch.rand(2, 4, 7, 6))["0"]
        assert torch.equal(psi, pushed(layers, psi.shape))

    @given(layers=behind_a_neuron(), amount=st.floats(0.1, 0.9))
    def test_pruned_weights_count_or_do_not(self, face, layers, amount):
        prune.random_unstructured(layers[-1], "weight", amount=amount)
        net = nn.Sequential(face.lifb(), *layers)
        if face.name == "spikingjelly":
            face.functional.set_step_mode(net, "s")
        x = torch.rand(2, 4, 7, 6)
        psi, kept = fan_out(net, x)["0"], fan_out(net, x, zero_weights="skip")["0"]
        assert torch.equal(psi, pushed(layers, psi.shape))
        assert torch.equal(kept, pushed(layers, psi.shape, lambda weight: (weight != 0).float()))

    def test_several_consumers_add_up_residuals_and_concatenation_included(self, face):
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.lif, self.second = face.lif(), face.lif()
                self.conv, self.skip = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 1)
                self.head, self.weight = nn.Linear(4 * 16, 3), nn.Parameter(torch.ones(64, 5))

            def forward(self, x):
                x = self.lif(x)
                y = self.second(self.conv(x) + self.skip(x))
                y = torch.cat([y, x + 0.5 * y], 1).flatten(1)
                return self.head(y) + (y @ self.weight).sum(1, keepdim=True)

        psi = fan_out(Net(), torch.rand(1, 2, 4, 4))
        inside = 2 * 9 + 2 + 3 + 5
        assert psi["lif"][0, 1, 1] == inside
        assert psi["lif"][0, 0, 0] == inside - 2 * 5
        assert torch.equal(psi["second"], torch.full((2, 4, 4), 2.0 * (3 + 5)))

    def test_one_dimension_and_three(self, face):
        one = nn.Sequential(face.lif(), nn.MaxPool1d(2), nn.Conv1d(3, 5, 3, padding=1))
        assert fan_out(one, torch.rand(1, 3, 8))["0"][0].tolist() == [10, 10, 15, 15, 15, 15, 10, 10]
        three = nn.Sequential(face.lif(), nn.AvgPool3d(2), nn.Conv3d(1, 4, 1))
        assert fan_out(three, torch.rand(1, 1, 4, 4, 4))["0"].unique().tolist() == [4]


class TestNetworks:
    def test_multi_step_layers_count_like_single_steps(self):
        jelly = pytest.importorskip("spikingjelly.activation_based")
        from spikingjelly.activation_based import functional as native
        from spikingjelly.activation_based import layer

        from snn_ext.spikingjelly import VSNNode

        assert jelly
        net = nn.Sequential(VSNNode(), layer.Conv2d(2, 4, 3, stride=2, padding=1), layer.BatchNorm2d(4))
        single = fan_out(net, torch.rand(2, 2, 6, 6))["0"]
        native.set_step_mode(net, "m")
        assert torch.equal(fan_out(net, torch.rand(3, 2, 2, 6, 6))["0"], single)

    def test_multi_step_of_snntorch(self):
        pytest.importorskip("snntorch")
        from snn_ext.snntorch import LIFB

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.lifb, self.head = LIFB(0.5), nn.Linear(6, 7)

            def forward(self, x_seq):
                return self.head(self.lifb.multi_step(x_seq)[0])

        assert fan_out(Net(), torch.rand(3, 2, 6))["lifb"].tolist() == [7] * 6

    def test_a_loop_over_steps_counts_one_step(self, face):
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.lif, self.head = face.lif(), nn.Linear(6, 7)

            def forward(self, x):
                return sum(self.head(self.lif(x)) for _ in range(3)) / 3

        assert fan_out(Net(), torch.rand(2, 6))["lif"].tolist() == [7] * 6

    def test_the_network_is_left_as_it_was(self, face):
        net = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), face.lif(), nn.Dropout(), nn.Linear(6, 3))
        net(torch.rand(4, 6))
        before = {name: value.clone() for name, value in net.state_dict().items()}
        state = dict(net[2].__dict__), net[2].mem if face.name == "snntorch" else net[2].v
        sample = torch.rand(2, 6)
        random = torch.get_rng_state()
        fan_out(net, sample)
        assert net.training
        assert net[3].training
        assert "forward" not in net[2].__dict__
        assert net[2].__dict__.keys() == state[0].keys()
        assert (net[2].mem if face.name == "snntorch" else net[2].v) is state[1]
        assert torch.equal(torch.get_rng_state(), random)
        assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())

    def test_spikes_that_go_nowhere_are_reported_and_an_output_is_not(self, face):
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.unused, self.out = face.lif(), face.lif()

            def forward(self, x):
                self.unused(x)
                return self.out(x)

        with pytest.warns(UserWarning, match="'unused': nothing consumes"):
            assert not any(psi.any() for psi in fan_out(Net(), torch.rand(1, 4)).values())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fan_out(nn.Sequential(face.lif(), face.lif()), torch.rand(1, 4))


class TestRefusals:
    def test_no_spiking_layer(self, face):
        with pytest.raises(ValueError, match="no spiking layer"):
            fan_out(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), torch.rand(1, 2))
        with pytest.raises(TypeError, match="net must be"):
            fan_out(lambda x: x, torch.rand(1, 2))

    @pytest.mark.parametrize(
        ("forward", "message"),
        [
            (lambda x: x @ x.T, "matmul in 'behind': attention"),
            (lambda x: functional.scaled_dot_product_attention(x, x, x), "attention multiplies"),
            (lambda x: x * x, "mul in 'behind': spikes are multiplied by spikes"),
            (lambda x: torch.sigmoid(x), "sigmoid in 'behind': it is not known"),
            (lambda x: 1 - x, "rsub in 'behind': something else is added"),
            (lambda x: x - 0.5, "sub in 'behind': something else is added"),
            (lambda x: x.clone().add_(0.5), "add in 'behind': something else is added"),
            (lambda x: x + nn.Parameter(torch.ones(4)), "add in 'behind': something else is added"),
            (lambda x: functional.pad(x, (1, 1), value=0.5) + functional.pad(x, (2, 0)), "add in 'behind'"),
            (lambda x: (x > 0).float(), "gt in 'behind': it is not known"),
            (lambda x: torch.clamp(x, min=0.25), "clamp in 'behind': it makes something"),
            (lambda x: x[:, x[0] > 0], "gt in 'behind': it is not known"),
            (
                lambda x: torch.tensor(x.numpy()),
                "Behind in 'behind': what it does with spikes cannot be seen",
            ),
        ],
    )
    def test_what_has_no_fixed_number_is_named_with_its_place(self, face, forward, message):
        class Behind(nn.Module):
            def forward(self, x):
                return forward(x)

        class Head(nn.Module):
            def forward(self, x):
                return functional.linear(x, torch.ones(3, x.shape[-1]))

        net = nn.Sequential(face.lif(), nn.Identity())
        net.add_module("behind", Behind())
        net.add_module("head", Head())
        with pytest.raises(NotImplementedError, match=message):
            fan_out(net, torch.rand(2, 4))
        assert "forward" not in net[0].__dict__

    def test_what_multiplies_spikes_by_the_input(self, face):
        class Gated(nn.Module):
            def __init__(self):
                super().__init__()
                self.lif, self.head = face.lif(), nn.Linear(4, 3)

            def forward(self, x):
                return self.head(self.lif(x) * torch.sigmoid(x))

        with pytest.raises(NotImplementedError, match="mul in 'the network': .* depends on the input"):
            fan_out(Gated(), torch.rand(2, 4))

    def test_an_unknown_way_to_treat_zero_weights(self, face):
        with pytest.raises(ValueError, match="zero_weights='ignore' is not known; use 'count' or 'skip'"):
            fan_out(nn.Sequential(face.lif(), nn.Linear(4, 2)), torch.rand(2, 4), zero_weights="ignore")

    def test_a_sample_without_batch(self, face):
        with pytest.raises(ValueError, match="batch dimension"):
            fan_out(nn.Sequential(face.lif(), nn.Linear(4, 2)), torch.rand(4))
