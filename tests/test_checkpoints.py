"""Checkpoints: native ones, those of version 0.2.0, those that would break a neuron, in both frameworks."""

import copy
import warnings

import pytest
import torch
from torch import nn

PER_NEURON = [1.5, 2.0, 2.5]


def neurons(face, **learn):
    """Every neuron of the face, with values of its own; with `learn`, LIFB learns its burst values."""
    if face.name == "snntorch":
        lifb = face.ext.LIFB(0.5, burst_threshold=1.75, burst_intensity=3.0, **learn)
        return [lifb, face.ext.VSN(0.5), face.ext.SoftResetMPR(0.5, amplitude=0.75)]
    lifb = face.ext.LIFBNode(2.0, burst_threshold=1.75, burst_intensity=3.0, **learn)
    return [lifb, face.ext.VSNNode(2.0), face.ext.SoftResetMPRNode(2.0, amplitude=torch.tensor(0.75))]


LEARN = {"learn_burst_threshold": True, "learn_burst_intensity": True}


def run(face, neuron, x_seq):
    if face.name == "snntorch":
        return neuron.multi_step(x_seq, torch.zeros(x_seq.shape[1:]))[0]
    neuron.step_mode = "m"
    neuron.reset()
    return neuron(x_seq)


def test_a_native_checkpoint_loads_and_constants_stay_those_of_the_constructor(face):
    native = nn.Sequential(
        nn.Linear(3, 3), face.native(0.25) if face.name == "snntorch" else face.native(4.0)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for neuron in neurons(face):
            before = copy.deepcopy(neuron)
            net = nn.Sequential(nn.Linear(3, 3), neuron)
            net.load_state_dict(native.state_dict())
            assert torch.equal(net[0].weight, native[0].weight)
            if face.name == "snntorch":
                assert neuron.beta == 0.25
                assert neuron.reset_mechanism_val == before.reset_mechanism_val
                with torch.no_grad():
                    before.beta.fill_(0.25)
                    before.threshold.fill_(1.0)
            x_seq = torch.rand(5, 2, 3) * 3
            assert torch.equal(run(face, neuron, x_seq), run(face, before, x_seq))


def test_ours_loads_into_the_native_network(face):
    for neuron in neurons(face)[:2]:
        native = face.native(0.25) if face.name == "snntorch" else face.native(4.0)
        assert not any(native.load_state_dict(neuron.state_dict()))


def test_what_is_learned_and_not_in_the_checkpoint_starts_where_it_was_put_and_says_so_once(face):
    native = face.native(0.25) if face.name == "snntorch" else face.native(4.0)
    net = nn.Sequential(*[neurons(face, **LEARN)[0] for _ in range(3)])
    checkpoint = {f"{i}.{k}": v for i in range(3) for k, v in native.state_dict().items()}
    with warnings.catch_warnings(record=True) as said:
        warnings.resetwarnings()
        warnings.simplefilter("default")
        net.load_state_dict(checkpoint)
    (warning,) = said
    assert "burst.raw_gap, burst.raw_intensity not in the checkpoint" in str(warning.message)
    torch.testing.assert_close(net[2].burst_threshold, torch.tensor(1.75))
    torch.testing.assert_close(net[2].burst_intensity, torch.tensor(3.0))


def test_a_trained_parametric_lif_hands_over_its_time_constant(face):
    if face.name == "snntorch":
        native, own = face.native(0.3, learn_beta=True), face.ext.LIFB(0.5, learn_beta=True)
        own.load_state_dict(native.state_dict())
        assert own.beta == native.beta
    else:
        from spikingjelly.activation_based import neuron

        native, own = neuron.ParametricLIFNode(4.0), face.ext.LIFBNode(2.0, learn_tau=True)
        own.load_state_dict(native.state_dict())
        assert own.w == native.w
        with pytest.warns(UserWarning, match="w not in the checkpoint"):
            own.load_state_dict(neuron.LIFNode().state_dict())


def test_a_checkpoint_of_version_0_2_0_is_honoured(face):
    lifb, _, mpr = neurons(face)
    old = {"burst.fixed_gap": torch.tensor(0.25), "burst.fixed_intensity": torch.tensor(5.0)}
    lifb.load_state_dict({**lifb.state_dict(), **old})
    assert lifb.burst_threshold == 1.25
    assert lifb.burst_intensity == 5
    assert set(lifb.state_dict()).isdisjoint(old)
    mpr.load_state_dict({**mpr.state_dict(), "amplitude": torch.tensor(0.5)})
    assert mpr.amplitude == 0.5
    learned = neurons(face, **LEARN)[0]  # what has been constant is learned from there on, and the reverse
    learned.load_state_dict({**lifb.state_dict(), **old})
    torch.testing.assert_close(learned.burst_threshold, torch.tensor(1.25))
    fixed = neurons(face)[0]
    fixed.load_state_dict(learned.state_dict())
    torch.testing.assert_close(fixed.burst_threshold, torch.tensor(1.25))
    torch.testing.assert_close(fixed.burst_intensity, torch.tensor(5.0))


def test_a_constant_of_every_neuron_is_kept_and_may_be_missing(face):
    first = 0.5 if face.name == "snntorch" else 2.0
    lifb, _, mpr = (type(neuron) for neuron in neurons(face))
    for cls, name, path in (
        (lifb, "burst_intensity", "burst.fixed_intensity"),
        (mpr, "amplitude", "amplitude"),
    ):
        neuron = cls(first, **{name: torch.tensor(PER_NEURON)})
        assert neuron.state_dict()[path].tolist() == PER_NEURON
        twin = cls(first, **{name: torch.ones(3)})
        twin.load_state_dict(neuron.state_dict())
        assert getattr(twin, name).tolist() == PER_NEURON
        without = {key: value for key, value in neuron.state_dict().items() if key != path}
        twin = cls(first, **{name: torch.ones(3)})
        twin.load_state_dict(without)
        assert getattr(twin, name).tolist() == [1, 1, 1]


NAN, INF = float("nan"), float("inf")
BROKEN = {
    "burst.fixed_gap": [-1.0, 0.0, NAN],
    "burst.fixed_intensity": [0.5, NAN, INF],
    "burst.raw_gap": [NAN, INF],
    "burst.raw_intensity": [NAN, -INF],
    "amplitude": [0.0, -1.0, NAN, INF],
    "beta": [NAN],
    "threshold": [NAN],
    "graded_spikes_factor": [NAN],
    "tau": [0.5, NAN],
    "w": [NAN],
    "v_threshold": [NAN],
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("key", BROKEN)
@pytest.mark.parametrize("strict", [True, False])
def test_values_that_break_a_neuron_are_named_and_nothing_of_it_is_loaded(face, key, strict):
    options = LEARN if "raw" in key else {}
    if face.name == "spikingjelly":
        if key in ("beta", "threshold", "graded_spikes_factor"):
            pytest.skip("a key of snnTorch")
        learn = {"learn_tau": True, "learn_threshold": True} if key in ("w", "v_threshold") else {}
        options = {**options, **learn}
        options |= {"tau": {"tau": torch.tensor([2.0])}, "amplitude": {"amplitude": torch.tensor(0.5)}}.get(
            key, {}
        )
    elif key in ("tau", "w", "v_threshold"):
        pytest.skip("a key of SpikingJelly")
    lifb, _, mpr = (type(neuron) for neuron in neurons(face))
    first = {"beta": 0.5} if face.name == "snntorch" else {"tau": 2.0}
    neuron = (mpr if key == "amplitude" else lifb)(**{**first, **options})
    net = nn.Sequential(nn.Linear(2, 2), neuron)
    own = {**dict(neuron.named_parameters()), **dict(neuron.named_buffers())}
    own.pop("mem", None)
    before = {name: value.clone() for name, value in own.items()}
    for value in BROKEN[key]:
        checkpoint = {
            f"1.{name}": value + 0.25 for name, value in before.items() if value.is_floating_point()
        }
        checkpoint[f"1.{key}"] = torch.full_like(before[key], value)
        checkpoint |= {f"0.{name}": value.clone() for name, value in net[0].state_dict().items()}
        with pytest.raises(RuntimeError, match=rf"1\.{key}") as caught:
            net.load_state_dict(checkpoint, strict=strict)
        assert "Missing" not in str(caught.value)
        now = {**dict(neuron.named_parameters()), **dict(neuron.named_buffers())}
        assert all(torch.equal(now[name], value) for name, value in before.items())


def test_a_beta_beyond_its_range_loads_as_natively_where_it_is_clamped(face):
    if face.name != "snntorch":
        pytest.skip("SpikingJelly has no beta")
    neuron = face.ext.LIFB(0.5, learn_beta=True)
    neuron.load_state_dict(face.native(1.25, learn_beta=True).state_dict())
    assert neuron.beta == 1.25


def test_another_reset_in_the_checkpoint_is_said(face):
    if face.name != "snntorch":
        pytest.skip("SpikingJelly keeps no reset in its checkpoints")
    neuron = face.ext.LIFB(0.5)
    with pytest.warns(UserWarning, match="reset_mechanism='zero'; this one was made with 'subtract'"):
        neuron.load_state_dict(face.native(0.5, reset_mechanism="zero").state_dict())
    assert neuron.reset_mechanism == "subtract"
    assert neuron.reset_mechanism_val == 0


def test_a_constant_may_be_made_a_parameter(face):
    neuron = neurons(face)[2]
    del neuron.amplitude
    neuron.amplitude = nn.Parameter(torch.tensor(0.75))
    run(face, neuron.to(torch.float64), torch.rand(3, 2, 3, dtype=torch.float64)).sum().backward()
    assert neuron.amplitude.grad is not None


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("learn", [{}, LEARN])
def test_constants_survive_the_meta_device(face, assign, learn):
    x_seq = torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(0)) * 2
    for i, real in enumerate(neurons(face, **learn)):
        net = nn.Sequential(nn.Linear(3, 3), real)
        if face.name == "snntorch" or i == 2:  # snnTorch's own neurons cannot be built there
            empty = copy.deepcopy(net).to("meta")
        else:
            with torch.device("meta"):
                empty = nn.Sequential(nn.Linear(3, 3), neurons(face, **learn)[i])
        loaded = empty if assign else empty.to_empty(device="cpu")
        loaded.load_state_dict(net.state_dict(), assign=assign)
        held = [*loaded.parameters(), *(b for name, b in loaded.named_buffers() if not name.endswith("mem"))]
        assert not any(value.is_meta for value in held)
        assert torch.equal(run(face, loaded[1], x_seq), run(face, real, x_seq))
