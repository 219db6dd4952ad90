"""What follows spikes: in place and through views, by value where they are none any more, to any weights."""

import pytest
import torch
from energy_nets import STEPS
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize, prune

from snn_ext.energy import SynapticPenalty, fan_out, measure_energy


class Ways(nn.Module):
    """A function of spikes before weights."""

    def __init__(self, face, function, features=6, inputs=6):
        super().__init__()
        self.lif, self.function, self.head = face.lif(), function, nn.Linear(features, 5)
        self.k = nn.Parameter(torch.full((inputs,), 0.5))

    def forward(self, x):
        s = self.lif(x)
        return self.head(self.function(self, s))


def measured(net, x, **options):
    return measure_energy(net, [x], steps=STEPS, progress=False, **options)


def input_of(net, layer, x, face):
    """Return what arrives at a layer in all steps."""
    seen = []
    hook = layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    (face.ext.reset if face.name == "snntorch" else face.functional.reset_net)(net)
    with torch.no_grad():
        for _ in range(STEPS):
            net.eval()(x)
    hook.remove()
    (face.ext.reset if face.name == "snntorch" else face.functional.reset_net)(net)
    return torch.stack(seen)


def half(make):
    def write(net, s):
        buffer = make(s)
        buffer[:, :6] = s
        buffer.view(len(s), 2, 6)[:, 1].copy_(s)
        return buffer

    return write


def written_rows(name):
    def write(net, s):
        index = torch.tensor([5, 3])
        target = s.repeat(1, 2) if name == "index_add_" else torch.zeros(len(s), 12)
        return getattr(target, name)(1, index, s[:, 1:3])

    return write


def scattered(net, s):
    index = torch.arange(6).flip(0).expand(len(s), 6)
    return torch.zeros(len(s), 12).scatter_(1, index, s)


def grown(net, s):
    total = 0
    for factor in (1.0, 0.5):
        total = total + s * factor
    out = total.clone()
    out += s
    out -= s.flip(1)
    return out


def changed(*calls):
    def change(net, s):
        y = s.clone()
        for call in calls:
            call(y)
        return y

    return change


IN_PLACE = {
    "buffer": (half(lambda s: torch.zeros(len(s), 12)), 12),
    "empty buffer": (half(lambda s: torch.empty(len(s), 12)), 12),
    "like": (half(lambda s: torch.zeros_like(torch.cat([s, s], 1))), 12),
    "index_copy_": (written_rows("index_copy_"), 12),
    "index_add_": (written_rows("index_add_"), 12),
    "scatter_": (scattered, 12),
    "sums": (grown, 6),
    "scaled": (changed(lambda y: y.mul_(0.5), lambda y: y.div_(0.25), lambda y: y.neg_()), 6),
    "masked": (changed(lambda y: y.masked_fill_(torch.arange(6) > 3, 0.0)), 6),
    "zeroed": (changed(lambda y: y[:, :2].zero_(), lambda y: y.__setitem__((slice(None), 5), 0)), 6),
    "passed": (
        changed(
            lambda y: functional.relu(y, inplace=True),
            lambda y: y.clamp_(0, 1),
            lambda y: functional.dropout(y, 0.5, False, True),
        ),
        6,
    ),
    "added through a view": (changed(lambda y: y.view(-1, 2, 3)[:, 0].add_(y[:, 3:])), 6),
    "detached": (lambda net, s: s.detach().clone().requires_grad_(False).data, 6),
    "turned": (lambda net, s: s.t().clone(memory_format=torch.contiguous_format).t(), 6),
}


class TestInPlace:
    @pytest.mark.parametrize("name", IN_PLACE)
    def test_equals_what_single_impulses_reach(self, face, name):
        function, features = IN_PLACE[name]
        net = Ways(face, function, features)
        reached = [function(net, impulse.unsqueeze(0)) != 0 for impulse in torch.eye(6)]
        if name in ("sums", "scaled", "added through a view"):  # several may arrive where they add up
            x = torch.rand(1, 6, requires_grad=True)
            jacobian = torch.autograd.functional.jacobian(lambda x: function(net, x), x)
            several = {"sums": [4] * 6, "scaled": [1] * 6, "added through a view": [1] * 3 + [2] * 3}
            assert bool((jacobian != 0).any())
            expected = torch.tensor(several[name]) * 5.0
        else:
            expected = torch.tensor([float(r.sum()) for r in reached]) * 5
        assert torch.equal(fan_out(net, torch.rand(2, 6))["lif"], expected)

    def test_what_a_neuron_emits_may_be_changed_in_place(self, face):
        net = nn.Sequential(face.lif(), nn.ReLU(inplace=True), nn.Dropout(0.5, inplace=True), nn.Linear(6, 5))
        assert fan_out(net, torch.rand(2, 6))["0"].tolist() == [5] * 6

    def test_a_residual_of_a_current_ends_in_the_neuron(self, face):
        class Block(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.second = face.lif(), face.lif()
                self.conv, self.head = nn.Conv2d(2, 2, 1), nn.Linear(18, 5)

            def forward(self, x):
                identity = self.first(x)
                out = self.conv(identity)
                out += identity
                return self.head(self.second(out).flatten(1))

        psi = fan_out(Block(), torch.rand(1, 2, 3, 3))
        assert psi["first"].unique().tolist() == [2]
        assert psi["second"].unique().tolist() == [5]


class TestProvenance:
    @pytest.mark.parametrize(
        "function",
        [
            lambda net, s: s * net.k.view(1, 6),
            lambda net, s: s * net.k[None],
            lambda net, s: s * net.k.expand(len(s), 6),
            lambda net, s: s / net.k.detach(),
        ],
    )
    def test_a_view_of_a_parameter_is_a_factor(self, face, function):
        assert fan_out(Ways(face, function), torch.rand(2, 6))["lif"].tolist() == [5] * 6

    def test_a_learned_scale_before_the_neuron_is_not_taken_for_spikes(self, face):
        class Scaled(nn.Module):
            def __init__(self):
                super().__init__()
                self.k, self.lif, self.head = nn.Parameter(torch.ones(6)), face.lif(), nn.Linear(6, 5)

            def forward(self, x):
                return self.head(self.lif(x * self.k.view(1, 6)))

        assert fan_out(Scaled(), torch.rand(2, 6))["lif"].tolist() == [5] * 6

    def test_effective_batch_norm_over_time(self):
        layer = pytest.importorskip("spikingjelly.activation_based.layer")
        from spikingjelly.activation_based import functional as native
        from spikingjelly.activation_based import neuron

        if not hasattr(layer, "TemporalEffectiveBatchNorm2d"):
            pytest.skip("this SpikingJelly has no such batch norm")
        norm = layer.TemporalEffectiveBatchNorm2d(4, 4)
        net = nn.Sequential(layer.Conv2d(2, 4, 3), norm, neuron.LIFNode(), layer.Conv2d(4, 3, 1))
        native.set_step_mode(net, "m")
        assert fan_out(net, torch.rand(4, 1, 2, 8, 8))["2"].unique().tolist() == [3]


BY_VALUE = {
    "inverted": lambda net, s: 1 - s,
    "compared": lambda net, s: (s > 0.5).float(),
    "chosen": lambda net, s: torch.where(s > 0, 0.0, 1.0),
    "gated": lambda net, s: s * (1 - s.roll(1, 1)),
    "offset": lambda net, s: s - 0.5,
    "biased": lambda net, s: s + net.k,
    "offset in place": lambda net, s: s.clone().add_(0.25),
    "by the input": lambda net, s: torch.sigmoid(s) * s,
}


class TestByValue:
    @pytest.mark.parametrize("name", BY_VALUE)
    def test_what_is_no_spike_any_more_counts_by_its_value(self, face, name):
        net, x = Ways(face, BY_VALUE[name]), torch.rand(3, 6)
        arrived = input_of(net, net.head, x, face)
        binary = bool(((arrived == 0) | (arrived == 1)).all())
        assert binary == (name in ("inverted", "compared", "chosen", "gated"))
        row = measured(net, x).rows[-1]
        expected = (0, arrived.sum() * 5 / 3) if binary else (arrived.numel() * 5 / 3, 0)
        assert (row.mac, row.ac) == pytest.approx(tuple(map(float, expected)))
        assert row.source == "lif"
        assert row.synops > 0

    def test_spikes_beside_analogue_values(self, face):
        net = Ways(face, lambda net, s: torch.cat([s, net.x], 1), 10)
        x = torch.rand(3, 6)
        net.register_forward_pre_hook(lambda module, inputs: setattr(module, "x", inputs[0][:, :4]))
        assert fan_out(net, x)["lif"].tolist() == [5] * 6
        row = measured(net, x).rows[-1]
        assert row.mac == STEPS * 4 * 5
        assert row.ac == pytest.approx(float(input_of(net, net.head, x, face)[..., :6].sum()) * 5 / 3)
        assert row.source == "lif, analogue"

    def test_max_pooling_lets_one_through(self, face):
        net = nn.Sequential(face.lif(), nn.MaxPool2d(2), nn.Conv2d(2, 3, 3, padding=1))
        x = torch.rand(3, 2, 6, 6)
        arrived = input_of(net, net[2], x, face).flatten(0, 1)
        met = functional.conv2d(arrived, torch.ones(3, 2, 3, 3), padding=1)
        assert measured(net, x).rows[0].ac == pytest.approx(float(met.sum()) / 3)
        bound = measured(nn.Sequential(net[0], nn.AvgPool2d(2), net[2]), x).rows[0].ac
        assert 0 < float(met.sum()) / 3 < bound
        psi = fan_out(net, x)["0"]
        assert torch.equal(psi, fan_out(nn.Sequential(net[0], nn.AvgPool2d(2), net[2]), x)["0"])

    @pytest.mark.parametrize("kind", ["lifb", "vsn"])
    def test_bursts_and_graded_spikes_through_max_pooling(self, face, kind):
        neuron = face.lifb(burst_threshold=0.7, burst_intensity=3.0) if kind == "lifb" else face.vsn()
        net, x = nn.Sequential(neuron, nn.MaxPool1d(2), nn.Conv1d(2, 3, 1)), torch.rand(3, 2, 6)
        arrived = input_of(net, net[2], x, face)
        row = measured(net, x).rows[0]
        if kind == "lifb":
            assert bool((arrived > 1).any())
            assert (row.mac, row.ac) == (0, pytest.approx(float(arrived.sum())))
        else:
            assert (row.mac, row.ac) == (pytest.approx(float((arrived != 0).sum())), 0)

    def test_attention_counts_coincidences(self, face):
        class Attention(nn.Module):
            def __init__(self):
                super().__init__()
                self.q, self.k, self.v = face.lif(), face.lif(threshold=0.3), face.lif(threshold=0.4)

            def forward(self, x):
                q, k, v = self.q(x), self.k(x), self.v(x)
                self.seen.append((q, k, v))
                return (q @ k.transpose(-2, -1)) @ v

        net, x = Attention(), torch.rand(3, 4, 6)
        net.seen = []
        with pytest.raises(NotImplementedError, match="matmul in 'the network': attention .* coincidence"):
            fan_out(net, x)
        row = measured(net, x).rows[0]
        (face.ext.reset if face.name == "snntorch" else face.functional.reset_net)(net)
        net.seen, expected = [], 0.0
        for _ in range(STEPS):
            net(x)
        for q, k, v in net.seen:
            scores = q @ k.transpose(-2, -1)
            assert not bool(((scores == 0) | (scores == 1)).all())
            expected += float(scores.sum()) + float(v.sum()) * 4  # a spike of v meets a column of scores
        assert (row.mac, row.ac) == (0, pytest.approx(expected / 3))
        assert (row.name, row.source) == ("matmul", "q, k, v")
        assert row.twin == 2 * 4 * 4 * 6


class Quantised(nn.Module):
    def forward(self, w):
        scale = w.abs().max() / 7
        return w + ((w / scale).round() * scale - w).detach()


class QuantisedLinear(nn.Linear):
    def forward(self, x):
        return functional.linear(x, Quantised()(self.weight), self.bias)


class Functional(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.w = nn.Parameter(torch.rand(outputs, inputs))
        self.register_buffer("mask", torch.ones(outputs, inputs))

    def forward(self, x):
        return functional.linear(x, self.w * self.mask)


class Matrix(Functional):
    def forward(self, x):
        return x @ self.w.t()


def pruned(layer):
    prune.l1_unstructured(layer, "weight", 0.5)
    return layer


def quantised(layer):
    parametrize.register_parametrization(layer, "weight", Quantised())
    return layer


def fake_quantised(inputs, outputs):
    qat = pytest.importorskip("torch.ao.nn.qat")
    quantization = pytest.importorskip("torch.ao.quantization")
    return qat.Linear(inputs, outputs, qconfig=quantization.get_default_qat_qconfig("fbgemm"))


MADE = {
    "pruned": lambda *n: pruned(nn.Linear(*n)),
    "weight_norm": lambda *n: parametrizations.weight_norm(nn.Linear(*n)),
    "old weight_norm": lambda *n: nn.utils.weight_norm(nn.Linear(*n)),
    "spectral_norm": lambda *n: parametrizations.spectral_norm(nn.Linear(*n)),
    "parametrised": lambda *n: quantised(nn.Linear(*n)),
    "own linear": QuantisedLinear,
    "qat": fake_quantised,
    "functional": Functional,
    "matrix": Matrix,
}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
class TestWeightsThatAreNoParameter:
    @pytest.mark.parametrize("name", MADE)
    def test_are_counted_as_plain_ones_are_under_the_name_of_their_module(self, face, name):
        def net(make):
            torch.manual_seed(0)
            first, second = make(6, 8), make(8, 3)
            return nn.Sequential(first, face.lif(threshold=0.1), second)

        x = torch.rand(4, 6)
        plain, found = measured(net(nn.Linear), x).rows, measured(net(MADE[name]), x).rows
        assert [row.name for row in found] == ["0", "2"]
        assert found[0] == plain[0]
        assert (found[0].mac, found[0].source) == (STEPS * 6 * 8, "analogue")
        assert found[1].twin == plain[1].twin == 24
        assert fan_out(net(MADE[name]), x)["1"].tolist() == [3] * 8

    def test_pruned_weights_count_or_are_skipped(self, face):
        torch.manual_seed(0)
        net, x = (
            nn.Sequential(pruned(nn.Linear(6, 8)), face.lif(threshold=0.1), pruned(nn.Linear(8, 3))),
            torch.rand(4, 6),
        )
        count, skip = measured(net, x).rows, measured(net, x, zero_weights="skip").rows
        kept = [int((net[i].weight != 0).sum()) for i in (0, 2)]
        assert kept == [24, 12]
        assert (count[0].mac, skip[0].mac) == (STEPS * 48, STEPS * 24)
        assert [row.twin for row in skip] == kept
        psi = (net[2].weight != 0).sum(0)
        penalty = SynapticPenalty(net, x, zero_weights="skip")
        for _ in range(STEPS):
            net(x)
        assert penalty().item() == pytest.approx(skip[1].ac)
        assert torch.equal(fan_out(net, x, zero_weights="skip")["1"], psi.float())
        spikes = input_of(net, net[2], x, face)
        assert skip[1].ac == pytest.approx(float((spikes * psi).sum()) / 4)
        assert 0 < skip[1].ac < count[1].ac == pytest.approx(float(spikes.sum()) * 3 / 4)

    def test_weights_that_are_shared_and_modules_that_are_called_twice(self, face):
        class Shared(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.second, self.tied = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
                self.second.weight = self.tied.weight
                self.lif = face.lif(threshold=0.1)

            def forward(self, x):
                s = self.lif(self.first(self.first(x)))
                return self.second(s) + self.tied(s) + functional.linear(s, self.first.weight)

        net, x = Shared(), torch.rand(4, 6)
        rows = {row.name: row for row in measured(net, x).rows}
        assert rows.keys() == {"first", "second", "tied", "linear"}
        assert rows["first"].mac == 2 * STEPS * 36
        assert rows["first"].twin == 2 * 36
        assert rows["second"].ac == rows["tied"].ac == rows["linear"].ac > 0
        assert fan_out(net, x)["lif"].tolist() == [18] * 6

    def test_standardised_weights_of_spikingjelly(self):
        layer = pytest.importorskip("spikingjelly.activation_based.layer")
        from spikingjelly.activation_based import functional as native
        from spikingjelly.activation_based import neuron

        if not hasattr(layer, "WSConv2d"):
            pytest.skip("this SpikingJelly has no WSConv2d")

        def net(conv):
            torch.manual_seed(0)
            net = nn.Sequential(conv(2, 4, 3), neuron.LIFNode(v_threshold=0.1), conv(4, 3, 1))
            native.set_step_mode(net, "m")
            return net

        x = torch.rand(STEPS, 2, 2, 8, 8)
        found = measure_energy(net(layer.WSConv2d), [x], progress=False).rows
        plain = measure_energy(net(layer.Conv2d), [x], progress=False).rows
        assert [row.name for row in found] == ["0", "2"]
        assert found[0] == plain[0]
        assert found[1].twin == plain[1].twin

    def test_products_that_are_not_looked_into_are_refused(self, face):
        class Recurrent(nn.Module):
            def __init__(self):
                super().__init__()
                self.lstm, self.lif = nn.LSTM(6, 6), face.lif()

            def forward(self, x):
                return self.lif(self.lstm(x)[0])

        assert fan_out(Recurrent(), torch.rand(2, 6))["lif"].tolist() == [0] * 6
        with pytest.raises(NotImplementedError, match="lstm in 'lstm': its weights are not looked into"):
            measured(Recurrent(), torch.rand(2, 6))


class TestRecurrence:
    @pytest.mark.parametrize("one_to_one", [False, True])
    @pytest.mark.parametrize("kind", ["RLeaky", "RSynaptic"])
    def test_recurrent_weights_of_snntorch_are_synapses(self, kind, one_to_one):
        snn = pytest.importorskip("snntorch")
        torch.manual_seed(0)
        options = {"all_to_all": False, "V": 0.5} if one_to_one else {"linear_features": 6}
        decay = (0.5,) if kind == "RLeaky" else (0.5, 0.5)
        neuron = getattr(snn, kind)(*decay, threshold=0.3, init_hidden=True, **options)
        net, x = nn.Sequential(neuron, nn.Linear(6, 2)), torch.rand(3, 6)
        own = 1 if one_to_one else 6
        assert fan_out(net, x)["0"].tolist() == [2 + own] * 6
        rows = {row.name: row for row in measured(net, x).rows}
        assert rows["0.recurrent"].ac == own / 2 * rows["1"].ac > 0
        assert rows["0.recurrent"].twin == (6 if one_to_one else 36)

    def test_a_convolution_of_a_neuron(self):
        snn = pytest.importorskip("snntorch")
        neuron = snn.RLeaky(0.5, conv2d_channels=2, kernel_size=3, threshold=0.3, init_hidden=True)
        psi = fan_out(nn.Sequential(neuron), torch.rand(1, 2, 4, 4))["0"]
        assert psi[0].tolist() == [[8, 12, 12, 8], [12, 18, 18, 12], [12, 18, 18, 12], [8, 12, 12, 8]]

    def test_gates_of_slstm(self):
        snn = pytest.importorskip("snntorch")
        torch.manual_seed(0)
        net = nn.Sequential(
            snn.Leaky(0.5, threshold=0.1, init_hidden=True),
            snn.SLSTM(6, 6, threshold=0.02, init_hidden=True),
            nn.Linear(6, 2),
        )
        x = torch.rand(3, 6)
        assert {name: psi.unique().tolist() for name, psi in fan_out(net, x).items()} == {"0": [24], "1": [2]}
        rows = {row.name: row for row in measured(net, x).rows}
        assert rows["1.lstm_cell.ih"].source == "0"
        assert rows["1.lstm_cell.hh"].mac == (STEPS - 1) * 4 * 36  # nothing is in the state at first
        assert rows["1.lstm_cell.hh"].source == "analogue"

    @pytest.mark.parametrize("mode", ["s", "m"])
    def test_containers_of_spikingjelly(self, mode):
        layer = pytest.importorskip("spikingjelly.activation_based.layer")
        from spikingjelly.activation_based import functional as native
        from spikingjelly.activation_based import neuron

        lif = neuron.LIFNode(v_threshold=0.1)
        net = nn.Sequential(layer.Linear(3, 4), layer.LinearRecurrentContainer(lif, 4, 4), layer.Linear(4, 2))
        net[0].step_mode = net[1].step_mode = net[2].step_mode = mode
        x = torch.rand(STEPS, 2, 3) if mode == "m" else torch.rand(2, 3)
        assert fan_out(net, x)["1.sub_module"].tolist() == [2 + 4] * 4
        steps = None if mode == "m" else STEPS
        rows = {row.name: row for row in measure_energy(net, [x], steps=steps, progress=False).rows}
        assert rows["1.rc"].ac == 2 * rows["2"].ac > 0
        assert rows["1.rc"].mac == STEPS * 4 * 4  # of the current beside the spikes
        summed = layer.ElementWiseRecurrentContainer(neuron.LIFNode(v_threshold=0.1), lambda x, y: x + y)
        net[1], summed.step_mode = summed, mode
        native.reset_net(net)
        assert fan_out(net, x)["1.sub_module"].tolist() == [2] * 4

    @pytest.mark.parametrize("mode", ["s", "m"])
    def test_delays(self, mode):
        layer = pytest.importorskip("spikingjelly.activation_based.layer")
        from spikingjelly.activation_based import functional as native
        from spikingjelly.activation_based import neuron

        if not hasattr(layer, "Delay"):
            pytest.skip("this SpikingJelly has no Delay")
        net = nn.Sequential(neuron.LIFNode(), layer.Delay(3), layer.Linear(3, 2))
        native.set_step_mode(net, mode)
        x = torch.rand(5, 2, 3) if mode == "m" else torch.rand(2, 3)
        if mode == "m" and not hasattr(layer.Delay, "single_step_functional_forward"):
            with pytest.raises(NotImplementedError, match="Delay in '1': what it does with spikes"):
                fan_out(net, x)  # SpikingJelly 0.0.0.0.14 stores them where nobody sees it
        else:
            assert fan_out(net, x)["0"].tolist() == [2] * 3

    def test_a_recurrence_of_ones_own(self, face):
        class Own(nn.Module):
            def __init__(self):
                super().__init__()
                self.into, self.back, self.lif = nn.Linear(3, 4), nn.Linear(4, 4), face.lif(threshold=0.1)
                self.register_buffer("last", None, persistent=False)

            def forward(self, x):
                last = x.new_zeros(len(x), 4) if self.last is None else self.last
                self.last = self.lif(self.into(x) + self.back(last))
                return self.last

        assert fan_out(Own(), torch.rand(2, 3))["lif"].tolist() == [4] * 4

    def test_spikes_that_stay_in_a_state_for_ever_are_refused(self, face):
        class Trace(nn.Module):
            def __init__(self):
                super().__init__()
                self.lif, self.head = face.lif(), nn.Linear(4, 2)
                self.register_buffer("trace", torch.zeros(1, 4))

            def forward(self, x):
                self.trace = self.trace * 0.5 + self.lif(x)
                return self.head(self.trace)

        net = Trace()
        net.trace = None
        net.forward = lambda x: (
            setattr(net, "trace", net.lif(x) if net.trace is None else net.trace * 0.5 + net.lif(x))
            or net.head(net.trace)
        )
        with pytest.raises(NotImplementedError, match="spikes stay in it"):
            fan_out(net, torch.rand(1, 4))


class Written(nn.Module):
    """A layer of weights, written as a function of its input and of itself."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.w = nn.Parameter(torch.rand(6, 8) + 0.1)
        self.a, self.b = nn.Parameter(torch.rand(2, 8)), nn.Parameter(torch.rand(6, 2))
        self.square = nn.Parameter(torch.rand(6, 6))
        self.k = nn.Parameter(torch.rand(8))

    def forward(self, x):
        return self.function(self, x)


AS_SUMS = {
    "last": lambda net, s: (s.unsqueeze(-2) * net.w).sum(-1),
    "first": lambda net, s: (net.w.t() * s[..., None]).sum(1),
    "mean": lambda net, s: (s.unsqueeze(-2) * net.w).mean(-1),
    "by the inverse": lambda net, s: (s.unsqueeze(-2) / net.w).sum(-1),
    "computed": lambda net, s: (s.unsqueeze(-2) * (net.w + 0.5 * net.b @ net.a)).sum(-1),
    "copied first": lambda net, s: (s.unsqueeze(-2).repeat(1, 6, 1) * net.w).sum(-1),
    "a dot product": lambda net, s: (s * net.k).sum(-1, keepdim=True).expand(-1, 6),
    "with a bias, moved": lambda net, s: (
        (s.unsqueeze(1).expand(-1, 6, -1) * net.w + 1).permute(2, 0, 1).clone().sum(0)
    ),
    "inner": lambda net, s: torch.inner(s, net.w),
    "addcmul": lambda net, s: torch.addcmul(torch.zeros(1), s.unsqueeze(-2), net.w).sum(-1),
    "three factors": lambda net, s: torch.einsum("ni,ri,or->no", s, net.a, net.b),
}


class TestProductsWrittenAsSums:
    @pytest.mark.parametrize("name", AS_SUMS)
    def test_are_refused_by_place_with_the_remedy(self, face, name):
        net = nn.Sequential(face.lif(threshold=0.1), Written(AS_SUMS[name]), face.lif(), nn.Linear(6, 3))
        x = torch.rand(2, 8)
        for count in (fan_out, measured, SynapticPenalty):
            with pytest.raises(NotImplementedError, match=r"in '1': .*write it with"):
                count(net, x)

    @pytest.mark.parametrize("name", AS_SUMS)
    def test_are_refused_where_they_meet_the_input(self, face, name):
        first = Written(AS_SUMS[name])
        with pytest.raises(NotImplementedError, match=r"in '0': its weights .*functional\.linear, matmul"):
            measured(nn.Sequential(first, nn.ReLU(), nn.Linear(6, 3)), torch.rand(2, 8))
        psi = fan_out(nn.Sequential(first, face.lif(), nn.Linear(6, 3)), torch.rand(2, 8))
        assert psi["1"].tolist() == [3] * 6

    @pytest.mark.parametrize(
        "function",
        [
            lambda net, s: s * net.k,
            lambda net, s: s * net.k[:, None].squeeze(-1).expand(len(s), 8),
            lambda net, s: (s.unsqueeze(-2) * net.k[:1]).expand(-1, 2, -1).sum(-2),
            lambda net, s: (s.view(-1, 2, 4) * net.k[:4]).sum(1).repeat(1, 2),
        ],
    )
    def test_scales_are_none(self, face, function):
        net = nn.Sequential(face.lif(), Written(function), nn.Linear(8, 3))
        assert set(fan_out(net, torch.rand(2, 8))["0"].tolist()) <= {3, 6}
        assert [row.name for row in measured(net, torch.rand(2, 8)).rows] == ["2"]


COMPUTED = {
    "adapted": lambda net, x: functional.linear(x, net.w + (net.b * 0.5) @ net.a),
    "a chain": lambda net, x: x @ (net.square.sigmoid() @ net.square.sigmoid().T @ net.w).T,
    "a linear function of parameters": lambda net, x: functional.linear(
        x, functional.linear(net.b.tanh(), net.a.t())
    ),
    "put into zeros": lambda net, x: x @ (filled(net.square) @ net.w).T,
    "an identity beside": lambda net, x: x @ ((torch.eye(6) + net.square * 0.5) @ net.w).T,
}


def filled(weights):
    made = torch.zeros(6, 6)
    made[:, :3] = weights[:, :3]
    return made


class TestProductsThatMakeWeights:
    @pytest.mark.parametrize("name", COMPUTED)
    def test_are_no_synapses(self, face, name):
        def net(layer):
            torch.manual_seed(0)
            return nn.Sequential(face.lif(threshold=0.1), layer)

        x = torch.rand(3, 8)
        (found,) = measured(net(Written(COMPUTED[name])), x).rows
        (plain,) = measured(net(nn.Linear(8, 6)), x).rows
        assert found == plain
        assert (found.name, found.source, found.mac, found.twin) == ("1", "0", 0, 48)
        assert fan_out(net(Written(COMPUTED[name])), x)["0"].tolist() == [6] * 8

    @pytest.mark.parametrize("loop", [False, True])
    @pytest.mark.parametrize("first", ["learned", "computed", "buffer"])
    def test_a_state_that_is_made_of_parameters_at_first_drives_them_later(self, face, first, loop):
        class Own(nn.Module):
            def __init__(self):
                super().__init__()
                self.into, self.back, self.lif = nn.Linear(3, 4), nn.Linear(4, 4), face.lif(threshold=0.1)
                self.last = None
                if first == "buffer":
                    self.register_buffer("first", torch.zeros(4))
                else:
                    self.first = nn.Parameter(torch.zeros(4))

            def step(self, x):
                start = self.first * 0.5 if first == "computed" else self.first
                last = start.expand(len(x), 4) if self.last is None else self.last
                self.last = self.lif(self.into(x) + self.back(last))
                return self.last

            def forward(self, x):
                if not loop:
                    return self.step(x)
                self.last = None
                return torch.stack([self.step(x) for _ in range(STEPS)])

        net, x = Own(), torch.rand(2, 3)
        assert fan_out(net, x)["lif"].tolist() == [4] * 4
        net.last = None
        rows = {row.name: row for row in measure_energy(net, [x], steps=1 if loop else STEPS).rows}
        assert rows["back"].twin == 16
        assert rows["into"].twin == 12
        assert rows["back"].source == "lif"
