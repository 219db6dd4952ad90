"""LIFB decoupled into native pairs: the same, everywhere, always; and what cannot be folded is refused."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import nn

import snn_ext.functional as F


def dyadic(*shape, low, high, generator):
    """Random multiples of 1/64: sums of them are exact, so potentials do stand at thresholds now and then."""
    return torch.randint(int(64 * low), int(64 * high), shape, generator=generator) / 64


@st.composite
def layers(draw):
    return {
        "reset": draw(st.sampled_from(["hard", "soft"])),
        "threshold": draw(st.sampled_from([0.25, 0.5, 1.0])),
        "gap": draw(st.sampled_from([1 / 64, 0.25, 1.0])),
        "intensity": draw(st.sampled_from([1.0, 1.5, 3.0, "per channel"])),
        "steps": draw(st.integers(1, 12)),
        "seed": draw(st.integers(0, 2**31)),
    }


def built(face, case, **more):
    generator = torch.Generator().manual_seed(case["seed"])
    intensity = case["intensity"]
    if intensity == "per channel":
        intensity = 1 + dyadic(5, low=0, high=3, generator=generator)
    lifb = face.lifb(
        threshold=case["threshold"],
        burst_threshold=case["threshold"] + case["gap"],
        burst_intensity=intensity,
        **(face.hard if case["reset"] == "hard" else face.soft),
        **more,
    )
    return lifb, dyadic(case["steps"], 3, 5, low=-2, high=3, generator=generator)


@given(layers())
def test_a_layer_and_its_pair_emit_the_same_bits(face, case):
    lifb, x_seq = built(face, case)
    expected = face.run(lifb, x_seq)
    assert torch.equal(face.run(lifb.decouple(), x_seq), expected)


@given(layers())
def test_the_next_layer_receives_the_same_from_binary_spikes(face, case):
    lifb, x_seq = built(face, case)
    net = nn.Sequential(lifb, face.linear(5, 4))
    expected = face.run(net, x_seq)
    pairs = face.ext.decouple(net)
    spikes = []
    pairs[0].register_forward_hook(lambda module, inputs, output: spikes.append(output))
    torch.testing.assert_close(face.run(pairs, x_seq), expected, rtol=0, atol=1e-6)
    assert set(torch.cat([s.flatten() for s in spikes]).tolist()) <= {0.0, 1.0}
    assert pairs[1].weight.shape == (4, 10)


def test_the_pair_is_native(face):
    pair = face.lifb(**face.soft).decouple()
    assert type(pair.regular) is type(pair.burst) is face.native


@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize("pool", ["avg_pool", "max_pool", None])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_convolutional_network_is_the_same(face, reset, pool, groups):
    torch.manual_seed(3)
    options = getattr(face, reset)
    net = nn.Sequential(
        face.conv(1, 4, 3),
        face.lifb(burst_threshold=0.75, burst_intensity=1 + 2 * torch.rand(4, 1, 1), **options),
        *([getattr(face, pool)(2)] if pool else []),
        face.conv(4, 8, 3, groups=groups),
        face.lifb(threshold=0.125, burst_intensity=1 + torch.rand(8, 1, 1), **options),
        nn.Dropout(0.5),
        face.flatten(),
        face.linear(8 * (9 if pool else 64), 40),
        face.lifb(threshold=0.125, burst_threshold=0.375, **options),
    ).eval()
    x_seq = torch.randn(6, 2, 1, 12, 12)
    expected = face.run(net, x_seq)
    assert expected.unique().tolist() == [0, 1, 2]
    torch.testing.assert_close(face.run(face.ext.decouple(net), x_seq), expected, rtol=0, atol=1e-6)
    assert torch.equal(face.run(face.ext.decouple(net, fold=False), x_seq), expected)


def trained(face):
    """A network with a learned LIFB, trained on the digits; and the digits that it has not seen."""
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    x, y = torch.as_tensor(images / 16, dtype=torch.float32), torch.as_tensor(labels)
    lifb = face.lifb(
        burst_threshold=0.8, burst_intensity=1.5, learn_burst_threshold=True, learn_burst_intensity=True
    )
    net = nn.Sequential(face.linear(64, 48), lifb, face.linear(48, 10))
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)

    def forward(x):
        x_seq = x.expand(4, *x.shape)
        if face.name == "snntorch":
            face.ext.reset(net)
            return torch.stack([net(step) for step in x_seq]).mean(0)
        face.functional.set_step_mode(net, "m")
        face.functional.reset_net(net)
        return net(x_seq).mean(0)

    start = lifb.burst_intensity.item()
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(forward(x[:1200]), y[:1200]).backward()
        optimizer.step()
    assert (forward(x[1200:]).argmax(1) == y[1200:]).float().mean() > 0.8
    assert lifb.burst_intensity.item() != start
    return net, x[1200:].expand(4, -1, -1)


def test_a_trained_network_is_reproduced(face):
    net, x_seq = trained(face)
    net, x_seq = net.double(), x_seq.double()  # so that rounding is no matter
    with face.ext.observe(net) as seen:
        expected = face.run(net, x_seq)
    assert min(seen["1"].values()) > 0.01  # all three modes
    folded = face.run(face.ext.decouple(net), x_seq)
    torch.testing.assert_close(folded, expected, rtol=0, atol=1e-6)
    assert torch.equal(folded.sum(0).argmax(1), expected.sum(0).argmax(1))
    unfolded = face.ext.decouple(net, fold=False)
    if face.name == "snntorch":
        assert torch.equal(face.run(unfolded, x_seq), expected)
    else:
        torch.testing.assert_close(face.run(unfolded, x_seq), expected, rtol=0, atol=1e-6)


def test_two_independent_neurons_are_not_equivalent(face):
    x_seq = torch.tensor([0.75, 0.75, 0.75, 0.75]).view(4, 1, 1)
    lifb = face.lifb(threshold=0.5, burst_threshold=1.0, burst_intensity=2.0, **face.hard)
    expected = face.run(lifb, x_seq)
    independent = [face.run(face.lif(threshold=th), x_seq) for th in (0.5, 1.0)]
    assert torch.equal(face.run(lifb.decouple(), x_seq), expected)
    assert expected.flatten().tolist() == [1, 1, 1, 1]
    assert sum(independent).flatten().tolist() == [1, 2, 1, 2]


def test_the_state_goes_along_and_the_network_is_untouched(face):
    net = nn.Sequential(face.linear(4, 5), face.lifb(**face.soft), face.linear(5, 2))
    x_seq = torch.randn(8, 3, 4)
    whole = face.run(net, x_seq)
    face.run(net, x_seq[:4])
    before = copy.deepcopy(net.state_dict())
    pairs = face.ext.decouple(net)
    with torch.no_grad():
        rest = torch.stack([pairs(x) for x in x_seq[4:]]) if face.name == "snntorch" else pairs(x_seq[4:])
    torch.testing.assert_close(rest, whole[4:], rtol=0, atol=1e-6)
    assert [type(m) for m in net][1] is type(face.lifb())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_resetting_works_on_pairs(face):
    net = face.ext.decouple(nn.Sequential(face.linear(4, 5), face.lifb(), face.linear(5, 2)))
    x_seq = torch.randn(5, 2, 4)
    assert torch.equal(face.run(net, x_seq), face.run(net, x_seq))


def test_gradients_reach_the_weights_through_the_pair(face):
    pair = nn.Sequential(face.linear(4, 5), face.lifb().decouple())
    x = torch.randn(3, 4) if face.name == "snntorch" else torch.randn(1, 3, 4)
    if face.name == "spikingjelly":
        face.functional.set_step_mode(pair, "m")
    pair(x).sum().backward()
    assert pair[0].weight.grad.abs().sum() > 0


class Custom(nn.Module):
    """A network with a forward of its own; `after` says where the bursts go."""

    def __init__(self, face, after):
        super().__init__()
        self.fc, self.lifb, self.out = face.linear(4, 5), face.lifb(), face.linear(5, 2)
        self.after = after

    def forward(self, x):
        return self.after(self, self.lifb(self.fc(x)))


AFTER = {
    "relu": (
        lambda net, y: net.out(torch.relu(y)),
        "'lifb' feeds something that is not linear.*.relu in for",
    ),
    "product": (lambda net, y: net.out(y * y), "'lifb' feeds something that is not linear"),
    "returned too": (lambda net, y: (net.out(y), y), "'lifb' is returned as well as passed on"),
    "shared": (
        lambda net, y: net.out(y) + net.out(torch.ones(1, 5)),
        "'out' takes more than the bursts of 'lifb'",
    ),
}


@pytest.mark.parametrize("after", AFTER)
def test_what_cannot_be_folded_is_refused_with_its_place_and_runs_unfolded(face, after):
    function, message = AFTER[after]
    net = Custom(face, function)
    with pytest.raises(ValueError, match=rf"{message}.*fold=False"):
        face.ext.decouple(net)
    x_seq = torch.randn(4, 3, 4)
    if after != "returned too":
        assert torch.equal(face.run(face.ext.decouple(net, fold=False), x_seq), face.run(net, x_seq))


def test_a_forward_of_its_own_is_followed(face):
    net = Custom(face, lambda net, y: net.out(y))
    x_seq = torch.randn(4, 3, 4)
    pairs = face.ext.decouple(net)
    assert pairs.out.in_features == 10
    torch.testing.assert_close(face.run(pairs, x_seq), face.run(net, x_seq), rtol=0, atol=1e-6)


def test_a_layer_that_is_not_linear_is_named(face):
    net = nn.Sequential(nn.Sequential(face.lifb(), nn.Softmax(-1)), face.linear(5, 2))
    with pytest.raises(ValueError, match=r"output of '0.0' feeds .* not linear.*\(Softmax at '0\.1'\)"):
        face.ext.decouple(net)


def test_a_forward_that_cannot_be_traced_is_refused(face):
    net = Custom(face, lambda net, y: net.out(y) if y.sum() > 0 else net.out(-y))
    with pytest.raises(ValueError, match=r"Custom cannot be traced by torch\.fx.*fold=False"):
        face.ext.decouple(net)


@pytest.mark.parametrize("shape", [(4, 6, 6), (1, 6, 6), (6, 1)])
def test_intensities_that_a_convolution_cannot_tell_apart_are_refused(face, shape):
    net = nn.Sequential(face.lifb(burst_intensity=1 + torch.rand(shape)), face.conv(4, 2, 3))
    with pytest.raises(ValueError, match="burst intensities of shape .* which differ between neurons"):
        face.ext.decouple(net)


def test_intensities_per_neuron_are_folded_behind_a_flatten(face):
    lifb = face.lifb(burst_intensity=1 + torch.rand(2, 3, 3))
    net = nn.Sequential(lifb, face.flatten(), face.linear(18, 4))
    x_seq = torch.randn(5, 2, 2, 3, 3)
    expected = face.run(net, x_seq)
    torch.testing.assert_close(face.run(face.ext.decouple(net), x_seq), expected, rtol=0, atol=1e-6)


def test_intensities_per_row_are_not_taken_for_channels(face):
    lifb = face.lifb(burst_intensity=1 + torch.rand(3, 1))
    net = nn.Sequential(lifb, face.flatten(), face.linear(18, 4))
    with pytest.raises(ValueError, match="were folded for 2 dimensions"):
        face.run(face.ext.decouple(net), torch.randn(5, 2, 2, 3, 3))


def test_a_network_without_bursts_is_refused(face):
    with pytest.raises(ValueError, match="Sequential has no LIFB(Node)? layer to decouple"):
        face.ext.decouple(nn.Sequential(face.linear(2, 2)))


def exact(face, net, x_seq):
    """Whether the decoupled network gives what `net` gives, folded (to rounding) and not (to the bit)."""
    expected = face.run(net, x_seq)
    torch.testing.assert_close(face.run(face.ext.decouple(net), x_seq), expected, rtol=0, atol=1e-6)
    assert torch.equal(face.run(face.ext.decouple(net, fold=False), x_seq), expected)


def test_a_layer_that_stands_at_two_places_is_decoupled_at_both(face):
    torch.manual_seed(0)
    lifb = face.lifb(threshold=0.25)
    net = nn.Sequential(face.linear(8, 8), lifb, face.linear(8, 8), lifb, face.linear(8, 3))
    exact(face, net, torch.randn(6, 4, 8))
    shared = face.linear(8, 8)
    net = nn.Sequential(face.linear(8, 8), face.lifb(), shared, lifb, shared)
    with pytest.raises(ValueError, match=r"takes more than the bursts|takes the bursts of several layers"):
        face.ext.decouple(net)


@pytest.mark.parametrize("kind", ["avg_pool", "max_pool"])
def test_pooling_over_neurons_of_a_linear_layer_is_refused(face, kind):
    net = nn.Sequential(face.lifb(), getattr(face, kind)(3, 1, 1), face.linear(8, 3))
    with pytest.raises(ValueError, match="is pooled along the features that it feeds into a linear layer"):
        face.ext.decouple(net)


def test_pooling_over_a_flattened_map_is_refused(face):
    net = nn.Sequential(
        face.conv(1, 4, 3), face.lifb(), face.flatten(), nn.AvgPool1d(3, 1, 1), face.linear(9, 3)
    )
    with pytest.raises(ValueError, match="not linear"):
        face.ext.decouple(net)


def test_subclasses_with_a_forward_of_their_own_are_not_taken_for_linear(face):
    class Standardised(nn.Linear):
        def forward(self, x):
            weight = (self.weight - self.weight.mean(1, keepdim=True)) / self.weight.std(1, keepdim=True)
            return nn.functional.linear(x, weight, self.bias)

    net = nn.Sequential(face.lifb(), Standardised(5, 3))
    with pytest.raises(ValueError, match="not known to be .Standardised at '1'"):
        face.ext.decouple(net)
    x_seq = torch.randn(4, 2, 5)
    assert torch.equal(face.run(face.ext.decouple(net, fold=False), x_seq), face.run(net, x_seq))


def test_functional_layers_are_not_taken_for_readouts(face):
    weight = torch.randn(2, 5)
    net = Custom(face, lambda net, y: nn.functional.linear(y, weight))
    with pytest.raises(ValueError, match="not known to be .linear in forward"):
        face.ext.decouple(net)


def test_a_forward_may_look_at_shapes(face):
    net = Custom(face, lambda net, y: net.out(y) * y.shape[0] / y.size(0))
    exact(face, net, torch.randn(4, 3, 4))


def test_a_forward_that_changes_the_network_is_traced_on_a_copy(face):
    class Resetting(Custom):
        def forward(self, x):
            if hasattr(self.lifb, "reset_mem"):
                self.lifb.reset_mem()
            else:
                self.lifb.reset()
            self.seen = x
            return super().forward(x)

    net = Resetting(face, lambda net, y: net.out(y))
    face.run(net, torch.randn(1, 3, 4))
    kept = net.lifb.mem if face.name == "snntorch" else net.lifb.v
    face.ext.decouple(net)
    assert (net.lifb.mem if face.name == "snntorch" else net.lifb.v) is kept
    assert isinstance(net.seen, torch.Tensor)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_pairs_keep_the_state_of_the_lifb_in_any_precision(face, dtype):
    torch.manual_seed(0)
    x_seq = torch.randn(40, 8, 16).to(dtype)
    for options in (face.hard, face.soft):
        lifb = face.lifb(0.5, 0.5, burst_threshold=0.75, burst_intensity=1.5, **options).to(dtype)
        expected = face.run(lifb, x_seq)
        ours = face.run(lifb.decouple(), x_seq)
        assert ours.dtype == expected.dtype == dtype
        assert torch.equal(ours, expected)


# --- snnTorch ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
@pytest.mark.parametrize("init_hidden", [True, False])
def test_snntorch_states_and_multi_step_are_those_of_the_lifb(reset, init_hidden):
    pytest.importorskip("snntorch")
    from snn_ext.snntorch import LIFB

    lifb = LIFB(
        0.9, 0.4, burst_threshold=0.9, reset_mechanism=reset, init_hidden=init_hidden, output=init_hidden
    )
    x_seq = torch.randn(9, 3, 4)
    pair = lifb.decouple()
    for ours, theirs in zip(pair.multi_step(x_seq), lifb.multi_step(x_seq), strict=True):
        assert torch.equal(ours, theirs)
    lifb.reset_mem(), pair.reset_mem()
    mem = theirs_mem = None
    for x in x_seq:
        y, mem = pair(x) if init_hidden else pair(x, mem)
        theirs, theirs_mem = lifb(x) if init_hidden else lifb(x, theirs_mem)
        assert torch.equal(y, theirs)
        assert torch.equal(mem, theirs_mem)


def test_snntorch_loops_inside_forward_are_followed():
    pytest.importorskip("snntorch")
    import snntorch as snn

    from snn_ext.snntorch import LIFB, decouple

    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.lif1 = nn.Linear(5, 7), LIFB(0.9, 0.5, graded_spikes_factor=0.7)
            self.fc2, self.lif2 = nn.Linear(7, 3), snn.Leaky(0.9)

        def forward(self, x):
            mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
            mems = []
            for _ in range(8):
                spk1, mem1 = self.lif1(self.fc1(x), mem1)
                _, mem2 = self.lif2(self.fc2(spk1), mem2)
                mems.append(mem2)
            return torch.stack(mems)

    net, x = Loop().double(), torch.randn(4, 5).double()
    pairs = decouple(net)
    assert pairs.fc2.in_features == 14
    with torch.no_grad():
        torch.testing.assert_close(pairs(x), net(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("threshold", [0.4, -0.1])
def test_snntorch_a_zero_reset_within_the_step_is_that_of_leaky_from_any_state(threshold):
    snn = pytest.importorskip("snntorch")
    from snn_ext.snntorch import LIFB

    options = {"reset_mechanism": "zero", "reset_delay": False}
    native = snn.Leaky(0.8, threshold, **options)
    lifb = LIFB(0.8, threshold, burst_threshold=0.9, burst_intensity=1.0, **options)
    pair = lifb.decouple()
    mem = mem_native = mem_pair = torch.randn(4, 5)
    for x in torch.randn(20, 4, 5):
        y, mem = lifb(x, mem)
        spk, mem_native = native(x, mem_native)
        y_pair, mem_pair = pair(x, mem_pair)
        assert torch.equal(y, spk)
        assert torch.equal(y_pair, spk)
        torch.testing.assert_close(mem, mem_native)
        torch.testing.assert_close(mem_pair, mem_native)


def test_snntorch_a_negative_spike_factor_and_max_pooling_are_refused():
    pytest.importorskip("snntorch")
    from snn_ext.snntorch import LIFB, decouple

    lifb = LIFB(0.9, 0.4, graded_spikes_factor=-1.0, init_hidden=True)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), lifb, nn.MaxPool2d(2), nn.Conv2d(4, 2, 3))
    with pytest.raises(ValueError, match="negative graded_spikes_factor and is followed by max pooling"):
        decouple(net)


def test_snntorch_pairs_are_reset_by_our_reset():
    pytest.importorskip("snntorch")
    from snn_ext.snntorch import LIFB, decouple, reset

    net = decouple(nn.Sequential(nn.Linear(4, 5), LIFB(0.9, 9.0, init_hidden=True), nn.Linear(5, 2)))
    net(torch.randn(3, 4))
    assert net[1].mem.any()
    reset(net)
    assert not net[1].mem.any()


def test_snntorch_an_immediate_reset_is_decoupled_where_leaky_allows():
    pytest.importorskip("snntorch")
    from snn_ext.snntorch import LIFB

    lifb = LIFB(0.9, 0.4, reset_mechanism="zero", reset_delay=False)
    x_seq = torch.randn(9, 3, 4)
    for ours, theirs in zip(lifb.decouple().multi_step(x_seq), lifb.multi_step(x_seq), strict=True):
        assert torch.equal(ours, theirs)
    with pytest.raises(NotImplementedError, match="reset_mechanism='subtract' with reset_delay=False"):
        LIFB(0.9, reset_delay=False).decouple()


def test_snntorch_what_a_pair_does_not_have_is_refused():
    pytest.importorskip("snntorch")
    from snn_ext.snntorch import LIFB

    with pytest.warns(UserWarning, match="Inhibition"):
        lifb = LIFB(0.9, inhibition=True)
    for wrong, what in ((lifb, "inhibition"), (LIFB(0.9, state_quant=torch.round), "state_quant")):
        with pytest.raises(NotImplementedError, match=f"LIFB with {what}.* cannot be decoupled"):
            wrong.decouple()


# --- SpikingJelly ----------------------------------------------------------------------------------------


def test_spikingjelly_a_learned_time_constant_and_another_reset_potential_go_along():
    pytest.importorskip("spikingjelly")
    from spikingjelly.activation_based import functional

    from snn_ext.spikingjelly import LIFBNode

    lifb = LIFBNode(3.0, v_threshold=0.4, v_reset=-0.25, learn_tau=True, step_mode="m").double()
    x_seq = torch.randn(9, 3, 4, dtype=torch.float64)
    pair = lifb.decouple()
    expected = lifb(x_seq)
    torch.testing.assert_close(pair(x_seq), expected.detach())
    functional.reset_net(pair)
    functional.set_step_mode(pair, "s")
    torch.testing.assert_close(torch.stack([pair(x) for x in x_seq]), expected.detach())


def test_spikingjelly_monitors_see_the_native_neurons_of_a_pair():
    pytest.importorskip("spikingjelly")
    from spikingjelly.activation_based import functional, layer, monitor, neuron

    from snn_ext.spikingjelly import LIFBNode, decouple

    net = decouple(nn.Sequential(layer.Linear(4, 5), LIFBNode(), layer.Linear(5, 2)))
    functional.set_step_mode(net, "m")
    spikes = monitor.OutputMonitor(net, neuron.LIFNode)
    net(torch.randn(6, 3, 4))
    assert [record.shape for record in spikes.records] == [(3, 5)] * 12


def test_spikingjelly_layers_of_its_own_may_lie_in_between():
    pytest.importorskip("spikingjelly")
    from spikingjelly.activation_based import functional, layer

    from snn_ext.spikingjelly import LIFBNode, decouple

    net = nn.Sequential(
        layer.Conv2d(1, 4, 3, padding=1),
        LIFBNode(v_threshold=0.1),
        layer.Dropout(0.5),
        layer.Flatten(),
        layer.Linear(256, 3),
    ).eval()
    other = nn.Sequential(net[0], net[1], nn.Flatten(2), net[4]).eval()
    for network in (net, other):
        functional.set_step_mode(network, "m")
        x_seq = torch.randn(5, 2, 1, 8, 8)
        functional.reset_net(network)
        expected = network(x_seq)
        functional.reset_net(network)
        torch.testing.assert_close(decouple(network)(x_seq), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tau": float("inf"), "decay_input": False}, "tau=inf cannot be decoupled"),
        ({"tau": 1.0}, "tau=1 cannot be decoupled"),
        ({"v_threshold": torch.tensor([0.5, 0.6])}, r"v_threshold differs between neurons \(shape \(2,\)\)"),
        ({"tau": torch.tensor([2.0, 3.0])}, "tau differs between neurons"),
    ],
)
def test_spikingjelly_what_lifnode_does_not_have_is_refused(arguments, message):
    pytest.importorskip("spikingjelly")
    from snn_ext.spikingjelly import LIFBNode

    with pytest.raises(NotImplementedError, match=message):
        LIFBNode(**arguments).decouple()


def test_spikingjelly_strict_firing_is_refused():
    pytest.importorskip("spikingjelly")
    from snn_ext.spikingjelly import LIFBNode
    from snn_ext.surrogate import ATan

    with pytest.raises(NotImplementedError, match="fires strictly above"):
        LIFBNode(surrogate_function=ATan(strict=True)).decouple()


def test_the_potential_is_that_of_the_functional_form(face):
    lifb = face.lifb(threshold=0.5, burst_threshold=0.75, **face.hard)
    x_seq = torch.randn(7, 2, 3).mul(16).round() / 16
    strict = face.name == "snntorch"
    y_seq, _ = F.lifb(
        x_seq, decay=0.5, threshold=0.5, burst_threshold=0.75, burst_intensity=2.0, strict=strict
    )
    assert torch.equal(face.run(lifb.decouple(), x_seq), y_seq)
