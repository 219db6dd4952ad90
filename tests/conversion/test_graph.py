"""Reading a network: what is read computes the same; what cannot be read is refused by name and place."""

import copy

import pytest
import torch
from conversion_nets import ALL, Concatenated, Functional, Mobile, ResNet, sequential, trained
from torch import nn
from torch.nn import functional as F

from snn_ext.conversion.graph import Affine, Rectifier, read
from snn_ext.conversion.spiking import input_norms
from snn_ext.conversion.weights import l4_norm


@pytest.mark.parametrize("build", ALL)
def test_what_is_read_computes_what_the_network_computes(build):
    net, images = trained(build)
    reading = read(net, images[:2])
    torch.testing.assert_close(reading(images), net(images), rtol=1e-5, atol=1e-5)
    kinds = {type(layer) for layer in reading.children()}
    assert not kinds & {nn.BatchNorm1d, nn.BatchNorm2d, nn.Dropout, nn.Dropout2d, nn.Identity, nn.ReLU}


@pytest.mark.parametrize("build", ALL)
def test_the_network_is_not_touched(build):
    net, images = trained(build)
    net.train()
    hooks = [len(layer._forward_hooks) for layer in net.modules()]
    before = copy.deepcopy(net.state_dict())
    read(net, images[:2])
    after = net.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(layer.training for layer in net.modules())
    assert [len(layer._forward_hooks) for layer in net.modules()] == hooks


def test_batch_norm_is_folded_where_there_is_a_layer_before_it():
    net, images = trained(sequential)
    assert not any(isinstance(layer, Affine) for layer in read(net, images[:2]).children())
    net, images = trained(Functional)
    assert sum(isinstance(layer, Affine) for layer in read(net, images[:2]).children()) == 1


def test_every_call_of_a_shared_relu_is_neurons_of_its_own():
    net, images = trained(ResNet)
    paths = [layer.path for layer in read(net, images[:2]).children() if isinstance(layer, Rectifier)]
    assert paths == ["stem.2", "blocks.0.relu", "blocks.0.relu", "blocks.1.relu", "blocks.1.relu"]


def test_a_relu_in_place_is_seen_by_whoever_else_reads_its_input():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.relu, self.out = nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 2)

        def forward(self, x):
            x = self.fc(x)
            y = self.relu(x)
            return self.out(y + x)

    net, x = Shared().eval(), torch.randn(8, 4)
    torch.testing.assert_close(read(net, x)(x), net(x))


def test_norms_of_residual_branches_count_together():
    net, images = trained(ResNet)
    reading = read(net, images[:2])
    norms = input_norms(reading)
    layers = dict(reading.named_children())
    assert list(norms) == [name for name, layer in layers.items() if isinstance(layer, Rectifier)]
    parts = [l4_norm(layers[name].weight) ** 4 for name in ("blocks_1_conv2", "blocks_1_down_0")]
    torch.testing.assert_close(norms["blocks_1_relu_2"], sum(parts) ** 0.25)


class Forward(nn.Module):
    """A network whose forward is a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.fc = nn.Linear(4, 4)
        self.constant = nn.Parameter(torch.ones(4))

    def forward(self, x):
        return self.function(self, x)


def branch(net, x):
    return net.fc(x).relu() if x.sum() > 0 else x


@pytest.mark.parametrize(
    ("net", "match"),
    [
        (nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.GELU())), "GELU at '1.0' .*only ReLU"),
        (nn.Sequential(nn.Linear(4, 4), nn.LeakyReLU()), "LeakyReLU at '1' .*train the network with nn.ReLU"),
        (nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.LayerNorm(4)), "LayerNorm at '2' cannot be converted"),
        (nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False)), "running statistics"),
        (nn.Sequential(nn.Linear(4, 4), nn.LeakyReLU()), "LeakyReLU at '1' .*below zero it gives values"),
        (nn.Sequential(nn.Linear(4, 4), nn.Hardtanh()), "Hardtanh at '1' .*below zero"),
        (nn.Sequential(nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, 4)), "Sigmoid at '1' .*as the last layer"),
        (Forward(lambda net, x: net.fc(torch.sigmoid(net.fc(x)))), "sigmoid in the forward.*only ReLU"),
        (
            Forward(lambda net, x: net.fc(x).softmax(1) + net.fc(x)),
            "softmax in the forward.*as the last layer",
        ),
        (
            nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Softmax(0)),
            "Softmax over dimension 0 .*not over class",
        ),
        (Forward(lambda net, x: F.log_softmax(net.fc(x).relu(), dim=0)), "log_softmax over dimension 0"),
        (Forward(lambda net, x: F.leaky_relu(net.fc(x))), "leaky_relu in the forward.*below zero"),
        (Forward(lambda net, x: F.hardtanh(net.fc(x))), "hardtanh in the forward.*below zero"),
        (
            Forward(lambda net, x: torch.cat((net.fc(x), x)).relu()),
            "concatenation along dimension 0, not along",
        ),
        (Forward(lambda net, x: net.fc(x).relu() + 1), "an addition of anything but two tensors"),
        (Forward(lambda net, x: net.fc(x).relu() * x), "mul in the forward"),
        (Forward(lambda net, x: net.fc(x).relu() + net.constant), "tensor 'constant' of the module"),
        (Forward(lambda net, x: net.fc(x).relu().view(-1, 2)), r"a reshape from \(8, 4\) to \(16, 2\)"),
        (Forward(lambda net, x: net.fc(x).relu().mean(1)), "a mean over anything but space"),
        (Forward(lambda net, x: (net.fc(x).relu(), x)), "returns anything but one tensor"),
        (Forward(branch), "cannot be traced by torch.fx"),
        (Forward(lambda net, x: F.dropout(net.fc(x).relu())), "does not ask self.training"),
        (
            nn.Sequential(nn.Unflatten(1, (2, 2)), nn.Linear(2, 2), nn.ReLU()),
            "Unflatten at '0' cannot be converted",
        ),
    ],
)
def test_what_cannot_be_converted_is_refused_by_name_and_place(net, match):
    with pytest.raises(NotImplementedError, match=match):
        read(net.eval(), torch.randn(8, 4))


@pytest.mark.parametrize(
    ("net", "match"),
    [
        (
            nn.Sequential(nn.Conv1d(3, 6, 3), nn.ReLU(), nn.Linear(6, 6)),
            r"Linear on an input of shape \(4, 6, 6\)",
        ),
        (nn.Sequential(nn.Flatten(), nn.ReLU(), nn.AvgPool1d(3, 1, 1)), "AvgPool1d on an input .* at '2'"),
    ],
)
def test_layers_over_anything_but_channels_are_refused(net, match):
    with pytest.raises(NotImplementedError, match=match):
        read(net.eval(), torch.randn(4, 3, 8))


@pytest.mark.filterwarnings("error")
def test_what_the_trace_does_not_show_is_refused_and_hooks_of_the_user_do_not_run():
    class Alias(nn.Module):
        def __init__(self):
            super().__init__()
            self.c, self.d, self.o = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            h = self.c(x)
            y = h
            y += self.d(x)
            return self.o(torch.relu(h))

    x = torch.randn(8, 4)
    with pytest.raises(NotImplementedError, match="computes something else"):
        read(Alias().eval(), x)
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval()
    seen = []
    net[1].register_forward_hook(lambda module, inputs, output: seen.append(output))
    read(net, x)
    assert not seen
    net.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 2 - 1,))
    with pytest.raises(NotImplementedError, match=r"computes something else .*a hook"):
        read(net, x)


def test_a_batch_norm_behind_a_layer_with_other_readers_is_not_folded():
    class Readers(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.drop, self.norm = nn.Linear(4, 4), nn.Dropout(), nn.BatchNorm1d(4)

        def forward(self, x):
            h = self.fc(x)
            return torch.relu(self.norm(self.drop(h)) + h)

    net, x = Readers(), torch.randn(8, 4)
    net(x)
    torch.testing.assert_close(read(net.eval(), x)(x), net(x))


def test_a_network_without_relu_or_for_other_inputs_is_refused():
    with pytest.raises(ValueError, match="Sequential has no ReLU"):
        read(nn.Sequential(nn.Linear(4, 4)), torch.randn(8, 4))
    with pytest.raises(ValueError, match=r"does not take a batch of shape \(8, 5\)"):
        read(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), torch.randn(8, 5))


class Ended(nn.Module):
    """A network that ends in a function."""

    def __init__(self, end):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        self.end = end

    def forward(self, x):
        return self.end(self.body(x))


ENDS = [
    nn.Softmax(1),
    nn.Softmax(-1),
    nn.LogSoftmax(dim=1),
    nn.Sigmoid(),
    nn.Tanh(),
    nn.Sequential(nn.Dropout(), nn.Sigmoid(), nn.Identity()),
    torch.sigmoid,
    torch.tanh,
    lambda x: F.softmax(x, dim=1),
    lambda x: torch.softmax(x, -1),
    lambda x: x.softmax(dim=1),
    lambda x: x.log_softmax(1),
    lambda x: x.sigmoid(),
    lambda x: F.logsigmoid(x),
]


@pytest.mark.parametrize("end", ENDS)
def test_what_follows_the_outputs_and_changes_no_prediction_is_left_out_and_said(end):
    torch.manual_seed(0)
    net, x = Ended(end).eval(), torch.randn(8, 4)
    with pytest.warns(UserWarning, match="is left out of the spiking network: the prediction"):
        reading = read(net, x)
    torch.testing.assert_close(reading(x), net.body(x))
    assert torch.equal(reading(x).argmax(1), net(x).argmax(1))


def test_a_hook_before_a_softmax_is_still_seen():
    net, x = (
        nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3), nn.Softmax(1)).eval(),
        torch.randn(8, 4),
    )
    net.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 2 - 1,))
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(NotImplementedError, match="computes something else"),
    ):
        read(net, x)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    "place", ["0.weight", "0.bias", "1.weight", "1.running_mean", "1.running_var", "3.bias"]
)
def test_weights_that_are_no_numbers_are_refused_by_name(place, value):
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).eval()
    with torch.no_grad():
        net.state_dict()[place][1] = value
    layer, name = place.split(".")
    kind = type(net[int(layer)]).__name__
    with pytest.raises(ValueError, match=f"{name} of {kind} at '{layer}' contains NaN or infinity"):
        read(net, torch.randn(8, 4))


def test_numbers_that_overflow_on_the_way_are_refused():
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).eval()
    with torch.no_grad():
        net[1].running_var[0] = -2.0
    with pytest.raises(ValueError, match="running_var of BatchNorm1d at '1' is negative"):
        read(net, torch.randn(8, 4))
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    with torch.no_grad():
        net[2].weight.fill_(3e38)
    with pytest.raises(ValueError, match="Sequential gives NaN or infinity for a batch"):
        read(net, 1e3 * torch.randn(8, 4))


def test_norms_of_concatenated_branches_stand_side_by_side():
    net, images = trained(Concatenated)
    layers = dict((reading := read(net, images[:2])).named_children())
    norms = input_norms(reading)
    first = [norm for name, norm in norms.items() if layers[name].path.startswith("relu")]
    sums = l4_norm(net.both.weight) ** 4 + torch.cat([l4_norm(net.two.weight), l4_norm(net.one.weight)]) ** 4
    torch.testing.assert_close(first[3], sums**0.25)
    assert not first[2].any()  # behind ReLUs there are no weights


def test_clips_are_read_with_their_limits():
    net, images = trained(Mobile)
    limits = [layer.limit for layer in read(net, images[:2]).children() if isinstance(layer, Rectifier)]
    assert limits == [6.0, 6.0, 0.2, 0.1]
