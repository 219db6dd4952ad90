"""What snnTorch asks of its own neurons, asked of ours: state, utilities, training, persistence."""

import copy
import gc
import inspect
import pickle
import warnings
import weakref

import numpy as np
import pytest
import torch
from torch import nn

snn = pytest.importorskip("snntorch", reason="snnTorch is not installed")

from snntorch import functional as SF  # noqa: E402
from snntorch import surrogate, utils  # noqa: E402
from snntorch.functional import quant  # noqa: E402

import snn_ext.functional as F  # noqa: E402
import snn_ext.snntorch as ext  # noqa: E402
from snn_ext.energy import TotalSpikePenalty  # noqa: E402
from snn_ext.surrogate import MPR, ATan, FastSigmoid, Sigmoid, StraightThrough  # noqa: E402

VSN, LIFB, SoftResetMPR = ext.VSN, ext.LIFB, ext.SoftResetMPR
NEURONS = [VSN, LIFB, SoftResetMPR]

RICH = {
    VSN: lambda: {"activation": nn.PReLU()},
    LIFB: lambda: {"learn_burst_threshold": True, "learn_burst_intensity": True},
    SoftResetMPR: lambda: {"amplitude": torch.tensor(0.75), "detach_reset": True},
}
"""Arguments beyond snnTorch's own, of each neuron."""

EMITS = {
    VSN: lambda x, h, threshold: x * (h > threshold),
    LIFB: lambda x, h, threshold: (h > threshold).float() + (h > 2 * threshold),
    SoftResetMPR: lambda x, h, threshold: (h > threshold).float(),
}
"""What each neuron emits by default, from its input and the potential before the reset."""


@pytest.fixture(params=NEURONS, ids=lambda cls: cls.__name__)
def cls(request):
    return request.param


every_compiled = pytest.mark.parametrize(
    ("cls", "compile_backend"),
    [*((cls, "aot_eager") for cls in NEURONS), (LIFB, "inductor")],
    indirect=["compile_backend"],
)


@pytest.fixture(autouse=True)
def _own_instances(monkeypatch):
    """snnTorch keeps every neuron ever built in one list; give each test its own."""
    monkeypatch.setattr(snn.SpikingNeuron, "instances", [])


def stepped(neuron, x_seq, mem=None):
    ys = []
    for x in x_seq:
        y, mem = neuron(x, mem)
        ys.append(y)
    return torch.stack(ys), mem


# --- dynamics -------------------------------------------------------------------------------------


def test_arguments_of_leaky_come_first_and_in_order(cls):
    ours = list(inspect.signature(cls.__init__).parameters)
    native = list(inspect.signature(snn.Leaky.__init__).parameters)
    assert ours[: len(native)] == native


@pytest.mark.parametrize(
    ("cls", "differing"),
    [(VSN, {"reset_mechanism"}), (LIFB, set()), (SoftResetMPR, {"beta", "threshold"})],
)
def test_defaults_are_those_of_leaky_but_for_what_the_method_fixes(cls, differing):
    ours, native = (inspect.signature(c.__init__).parameters for c in (cls, snn.Leaky))
    assert {name for name, p in native.items() if ours[name].default != p.default} == differing


@pytest.mark.parametrize("reset_delay", [True, False])
@pytest.mark.parametrize(
    ("cls", "own", "emitted"),
    [
        (VSN, {}, lambda spk, x: spk * x),
        (LIFB, {"reset_mechanism": "zero", "burst_intensity": 1.0}, lambda spk, x: spk),
        (SoftResetMPR, {"reset_mechanism": "zero"}, lambda spk, x: spk),
    ],
)
def test_potential_and_events_are_those_of_a_native_leaky_that_resets_to_zero(cls, own, emitted, reset_delay):
    x_seq = torch.randn(40, 6, 5)
    native = snn.Leaky(0.8, 0.4, reset_mechanism="zero", reset_delay=reset_delay)
    ours = cls(0.8, 0.4, **own, reset_delay=reset_delay)
    mem, native_mem = ours.reset_mem(), native.reset_mem()
    for x in x_seq:
        y, mem = ours(x, mem)
        spk, native_mem = native(x, native_mem)
        assert torch.equal(y, emitted(spk, x))
        torch.testing.assert_close(mem, native_mem)


def outcome(neuron, x_seq, parameters):
    """Emissions, potentials, and the gradients of both to the input and to `parameters`."""
    x_seq = x_seq.clone().requires_grad_()
    mem, ys, mems = torch.zeros_like(x_seq[0]), [], []
    for x in x_seq:
        y, mem = neuron(x, mem)
        ys.append(y)
        mems.append(mem)
    y_seq, mem_seq = torch.stack(ys), torch.stack(mems)
    weights = torch.linspace(0, 1, y_seq.numel()).view_as(y_seq)
    return y_seq, mem_seq, torch.autograd.grad((y_seq * weights + mem_seq**2).sum(), [x_seq, *parameters])


every_reset = pytest.mark.parametrize("reset_mechanism", ["zero", "subtract", "none"])


@every_reset
@pytest.mark.parametrize("reset_delay", [True, False])
@pytest.mark.parametrize("spike_grad", [None, surrogate.fast_sigmoid(10)])
def test_a_lifb_of_burst_intensity_one_is_a_leaky(reset_mechanism, reset_delay, spike_grad):
    x_seq = torch.randn(30, 6, 5) * 2
    settings = {"reset_mechanism": reset_mechanism, "reset_delay": reset_delay, "spike_grad": spike_grad}
    settings |= {"learn_beta": True, "learn_threshold": True}
    native, ours = snn.Leaky(0.8, 0.4, **settings), LIFB(0.8, 0.4, **settings, burst_intensity=1.0)
    spk, mem, grads = outcome(native, x_seq, [native.beta, native.threshold])
    y, mem_ours, grads_ours = outcome(ours, x_seq, [ours.beta, ours.threshold])
    assert torch.equal(y, spk)
    assert torch.equal(mem_ours, mem)
    for grad_ours, grad in zip(grads_ours, grads, strict=True):
        torch.testing.assert_close(grad_ours, grad, rtol=1e-4, atol=1e-5 * grad.abs().max().item())


@every_reset
@pytest.mark.parametrize("reset_delay", [True, False])
def test_a_lifb_is_a_leaky_with_bursts_on_top(reset_mechanism, reset_delay):
    class Bursting(snn.Leaky):
        """Emits bursts from the potential that ``snn.Leaky`` fires at."""

        def fire(self, mem):
            self.charged = mem
            return super().fire(mem)

        def forward(self, x, mem):
            spk, mem = super().forward(x, mem)
            return spk + (kappa - 1) * self.spike_grad(self.charged - self.threshold - gap), mem

    x_seq = torch.randn(30, 6, 5).double() * 2
    kappa, gap = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (3.0, 0.5))
    settings = {"reset_mechanism": reset_mechanism, "reset_delay": reset_delay}
    settings |= {"learn_beta": True, "learn_threshold": True, "spike_grad": ATan(strict=True)}
    native = Bursting(0.75, 0.5, **settings).double()
    ours = LIFB(0.75, 0.5, **settings, burst_threshold=1.0, burst_intensity=3.0).double()
    ours.burst.fixed_gap.requires_grad_()
    ours.burst.fixed_intensity.requires_grad_()
    expected = outcome(native, x_seq, [native.beta, native.threshold, gap, kappa])
    burst = ours.burst
    got = outcome(ours, x_seq, [ours.beta, ours.threshold, burst.fixed_gap, burst.fixed_intensity])
    torch.testing.assert_close(got, expected)
    assert set(got[0].unique().tolist()) == {0, 1, 3}


@pytest.mark.parametrize("reset_delay", [True, False])
def test_the_vanilla_arm_of_soft_reset_mpr_is_a_leaky(reset_delay):
    x_seq = torch.randn(30, 6, 5, dtype=torch.float64)
    settings = {"reset_mechanism": "zero", "reset_delay": reset_delay, "learn_beta": True}
    settings |= {"learn_threshold": True, "spike_grad": ATan(strict=True)}
    native = snn.Leaky(0.8, 0.5, **settings).double()
    ours = SoftResetMPR(0.8, 0.5, **settings, mpr=False, detach_reset=reset_delay).double()
    expected = outcome(native, x_seq, [native.beta, native.threshold])
    torch.testing.assert_close(outcome(ours, x_seq, [ours.beta, ours.threshold]), expected)


def test_without_a_leak_soft_reset_mpr_fires_as_a_leaky_that_subtracts():
    x_seq = torch.randint(-8, 16, (30, 6, 5)) / 16
    native, ours = snn.Leaky(1.0, 0.5), SoftResetMPR(1.0, 0.5, amplitude=0.5)
    spk, mem = stepped(native, x_seq, torch.zeros(6, 5))
    y_seq, mem_ours = stepped(ours, x_seq, torch.zeros(6, 5))
    assert torch.equal(y_seq, 0.5 * spk)
    assert torch.equal(mem_ours, mem)


STEPS = [
    *(
        (cls, options)
        for cls in NEURONS
        for options in (
            {},
            {"reset_delay": False},
            {"inhibition": True},
            {"graded_spikes_factor": 0.3},
            {"state_quant": quant.state_quant(num_bits=5, threshold=1.0)},
            {"spike_grad": surrogate.triangular()},
        )
    ),
    (VSN, {"activation": "gelu"}),
    (VSN, {"activation": torch.sin}),
    *(
        (LIFB, {"reset_mechanism": mode, "reset_delay": delay})
        for mode in ("zero", "none")
        for delay in (0, 1)
    ),
    (LIFB, {"learn_burst_threshold": True, "learn_burst_intensity": True, "burst_threshold": 0.5}),
    (LIFB, {"burst_threshold": torch.linspace(0.4, 0.8, 7), "burst_intensity": torch.linspace(1, 3, 7)}),
    (SoftResetMPR, {"reset_mechanism": "zero", "reset_delay": False}),
    (SoftResetMPR, {"mpr": False, "detach_reset": True}),
    (SoftResetMPR, {"amplitude": torch.linspace(0.4, 0.8, 7)}),
]


@pytest.mark.parametrize(("cls", "options"), STEPS)
def test_multi_step_equals_the_loop(cls, options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        neuron = cls(torch.rand(7), 0.3, learn_beta=True, learn_threshold=True, **options)
    x_seq = torch.randn(9, 4, 7)
    loop, mem = stepped(neuron, x_seq, torch.zeros(4, 7))
    fused, mem_fused = neuron.multi_step(x_seq, torch.zeros(4, 7))
    torch.testing.assert_close(loop, fused)
    torch.testing.assert_close(mem, mem_fused)
    grads = [
        torch.autograd.grad(y.sum() + m.sum(), neuron.parameters())
        for y, m in ((loop, mem), (fused, mem_fused))
    ]
    torch.testing.assert_close(*grads)


CORE = {
    VSN: ({}, lambda x, d, th: F.vsn(x, decay=d, threshold=th, detach_reset=True, **SNNTORCH)),
    LIFB: (
        {"reset_mechanism": "zero", "burst_threshold": 0.75, "burst_intensity": 3.0},
        lambda x, d, th: F.lifb(
            x,
            decay=d,
            threshold=th,
            burst_threshold=th + 0.5,
            burst_intensity=3.0,
            detach_reset=True,
            **SNNTORCH,
        ),
    ),
    SoftResetMPR: (
        {"amplitude": 0.75},
        lambda x, d, th: F.soft_reset_mpr(x, decay=d, threshold=th, amplitude=0.75, **SNNTORCH),
    ),
}
"""The same neuron in this framework (its own arguments) and in the core (of decay and threshold)."""
SNNTORCH = {"strict": True, "reset_delay": True}


def test_gradients_are_those_of_the_core_which_only_soft_reset_mpr_lets_through_the_reset(cls):
    own, core = CORE[cls]
    neuron = cls(0.7, 0.25, learn_beta=True, learn_threshold=True, **own)
    x_seq = torch.randn(8, 3)
    y_seq, mem = neuron.multi_step(x_seq)
    ours = torch.autograd.grad(y_seq.sum() + mem.sum(), (neuron.beta, neuron.threshold))
    leaves = [torch.tensor(0.7, requires_grad=True), torch.tensor(0.25, requires_grad=True)]
    y_seq, mem = core(x_seq, *leaves)
    expected = torch.autograd.grad(y_seq.sum() + mem.sum(), leaves)
    torch.testing.assert_close(ours, expected)


def test_firing_is_strictly_above_threshold(cls):
    assert cls(0.5, 1.0)(torch.ones(1, 1))[0].item() == 0
    assert cls(0.5, 1.0, spike_grad=ATan())(torch.ones(1, 1))[0].item() == 0


def test_bursts_are_strictly_above_the_burst_threshold():
    lifb = LIFB(0.5, 0.5, burst_threshold=1.0, burst_intensity=3.0)
    assert lifb(torch.ones(1, 1))[0].item() == 1
    assert lifb(torch.full((1, 1), 1.25))[0].item() == 3


def inhibited(cls):
    with pytest.warns(UserWarning, match="Inhibition"):
        return cls(0.9, 0.05, inhibition=True)


def test_inhibition_lets_only_the_highest_potential_emit(cls):
    neuron = inhibited(cls)
    x = torch.tensor([[0.2, 0.9, 0.4], [0.7, 0.1, 0.3]])
    winners = torch.tensor([[0, 1, 0], [1, 0, 0]])
    assert torch.equal(neuron(x)[0], EMITS[cls](x, x, 0.05) * winners)
    image = torch.rand(2, 3, 4, 4) + 0.1
    assert ((neuron(image)[0] != 0).sum(1) == 1).all()


def test_inhibition_keeps_the_dtype_of_the_input(cls):
    assert inhibited(cls)(torch.rand(2, 3, dtype=torch.bfloat16))[0].dtype == torch.bfloat16


def test_state_quant_shapes_potential_and_events(cls):
    levels = quant.state_quant(num_bits=2, threshold=1.0)
    neuron = cls(0.9, 0.5, state_quant=levels)
    x = torch.rand(5, 6) * 2
    y, mem = neuron(x)
    assert torch.equal(mem, levels(x))
    assert torch.equal(y, EMITS[cls](x, levels(x), 0.5))


def test_a_learned_graded_spike_factor_scales_and_learns(cls):
    neuron = cls(0.9, 0.1, graded_spikes_factor=2.0, learn_graded_spikes_factor=True)
    x = torch.rand(3, 4) + 0.2
    plain = EMITS[cls](x, x, 0.1)
    y, _ = neuron(x)
    assert torch.equal(y, 2 * plain)
    y.sum().backward()
    torch.testing.assert_close(neuron.graded_spikes_factor.grad, plain.sum())


def test_beta_is_clamped_in_the_forward_pass_as_natively(cls):
    neuron = cls(0.9, learn_beta=True)
    with torch.no_grad():
        neuron.beta.fill_(1.7)
    mem = neuron(torch.zeros(1, 1), torch.tensor([[0.5]]))[1]
    assert mem.item() == 0.5


@pytest.mark.parametrize("per", ["neuron", "channel"])
def test_parameters_per_neuron_and_per_channel(cls, per):
    size = (3, 5, 5) if per == "neuron" else (3, 1, 1)
    beta, threshold = torch.rand(size), torch.randint(0, 8, size) / 8
    own, core = CORE[cls]
    if cls is LIFB:
        own = {**own, "burst_threshold": threshold + 0.5}
    neuron = cls(beta, threshold, learn_beta=True, learn_threshold=True, **own)
    x_seq = torch.randn(4, 2, 3, 5, 5)
    y_seq, _ = neuron.multi_step(x_seq)
    assert torch.equal(y_seq, core(x_seq, beta, threshold)[0])
    y_seq.sum().backward()
    assert neuron.beta.grad.shape == neuron.threshold.grad.shape == size


# --- surrogates ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        (surrogate.atan(3.0), ATan(3.0)),
        (surrogate.fast_sigmoid(10), FastSigmoid(10.0)),
        (surrogate.sigmoid(5), Sigmoid(5.0)),
        (FastSigmoid(7.0), FastSigmoid(7.0)),
        (MPR(0.5), MPR(0.5)),
    ],
)
def test_known_surrogates_become_their_picklable_equal(cls, given, stored):
    assert cls(0.5, spike_grad=given).spike_grad == stored.with_strict(True)


def test_left_out_the_surrogate_is_snntorchs_or_the_methods():
    assert VSN(0.5).spike_grad == LIFB(0.5).spike_grad == ATan(strict=True)
    assert SoftResetMPR().spike_grad == StraightThrough(strict=True)


@pytest.mark.parametrize("closure", [surrogate.atan(3.0), surrogate.fast_sigmoid(10), surrogate.sigmoid(5)])
def test_a_recognised_surrogate_has_the_gradient_of_its_closure(cls, closure):
    x_seq = torch.randn(6, 4)
    grads = []
    for spike_grad in (closure, lambda u: closure(u)):  # the second is not recognised
        vsn = VSN(0.8, 0.3, spike_grad=spike_grad, learn_threshold=True)
        y_seq, _ = vsn.multi_step(x_seq)
        grads.append((y_seq.detach(), torch.autograd.grad(y_seq.sum(), vsn.threshold)[0]))
    assert torch.equal(grads[0][0], grads[1][0])
    torch.testing.assert_close(grads[0][1], grads[1][1])


def g(u):
    """The slope of ``fast_sigmoid(2)``."""
    return 1 / (1 + 2 * u) ** 2


@pytest.mark.parametrize(
    ("cls", "own", "slope"),
    [
        (VSN, {}, g(0.7)),
        (LIFB, {"burst_intensity": 3.0}, g(0.7) + 2 * g(0.4)),
        (SoftResetMPR, {"mpr": False, "detach_reset": True}, g(0.7)),
    ],
)
def test_a_closure_assigned_later_is_used(cls, own, slope):
    neuron = cls(0.8, 0.3, learn_threshold=True, **own)
    neuron.spike_grad = surrogate.fast_sigmoid(2)
    (ours,) = torch.autograd.grad(neuron(torch.ones(1, 2))[0].sum(), neuron.threshold)
    torch.testing.assert_close(ours, torch.tensor(-2 * slope))


def test_surrogate_disable_stops_the_gradient_through_the_events(cls):
    neuron = cls(0.8, 0.3, surrogate_disable=True, learn_threshold=True)
    x = torch.rand(2, 3, requires_grad=True)
    y, _ = neuron(x)
    (y.sum() + 0 * x.sum()).backward()
    assert torch.equal(x.grad, (x > 0.3).float() if cls is VSN else torch.zeros_like(x))
    assert neuron.threshold.grad is None or not neuron.threshold.grad.any()


def test_fire_and_mem_reset_agree_with_the_events(cls):
    neuron = cls(0.5, 0.4)
    mem = torch.tensor([[0.3, 0.4, 0.5]])
    assert neuron.fire(mem).tolist() == [[0, 0, 1]]
    assert neuron.mem_reset(mem).tolist() == [[0, 0, 1]]


@pytest.mark.parametrize("own", [{}, {"reset_mechanism": "zero"}, {"detach_reset": True}, {"amplitude": 0.5}])
@pytest.mark.parametrize("reset_delay", [True, False])
def test_the_mpr_surrogate_trains_as_the_rectifier_does(own, reset_delay):
    x_seq = torch.randn(8, 4, 5, dtype=torch.float64)
    x_seq[0, 0, :3] = torch.tensor([0.0, 0.25, 0.5])
    outcomes = []
    for arm in ({}, {"mpr": False, "spike_grad": MPR()}):
        settings = {"learn_beta": True, "learn_threshold": True, "reset_delay": reset_delay}
        neuron = SoftResetMPR(0.75, 0.25, **settings, **own, **arm).double()
        outcomes.append(outcome(neuron, x_seq, [neuron.beta, neuron.threshold]))
    torch.testing.assert_close(*outcomes)


@pytest.mark.parametrize(
    "make",
    [
        lambda: snn.Leaky(0.9, 0.5, spike_grad=MPR(strict=True)),
        lambda: LIFB(0.9, 0.5, spike_grad=MPR(), burst_threshold=9.0),
        lambda: SoftResetMPR(0.9, mpr=False, spike_grad=MPR()),
    ],
)
def test_the_mpr_surrogate_is_the_gradient_of_the_rectifier_on_any_neuron(make):
    x = torch.arange(-20, 53) / 32  # the ends of the rectifier included
    grads = []
    for neuron in (SoftResetMPR(), make()):
        leaf = x.clone().requires_grad_()
        spk, _ = neuron(leaf, torch.zeros_like(x))
        grads.append((spk.detach(), torch.autograd.grad(spk.sum(), leaf)[0]))
    torch.testing.assert_close(*grads)


# --- state -----------------------------------------------------------------------------------------


def mixed(cls):
    return nn.Sequential(
        nn.Linear(4, 6),
        cls(0.9, 0.1, init_hidden=True, learn_beta=True),
        nn.Linear(6, 3),
        snn.Leaky(0.9, init_hidden=True, output=True),
    )


def test_sequential_with_hidden_state_returns_what_the_last_native_layer_returns(cls):
    spk, mem = mixed(cls)(torch.randn(2, 4))
    assert spk.shape == mem.shape == (2, 3)


@pytest.mark.parametrize(("output", "returned"), [(False, 1), (True, 2)])
def test_return_counts(cls, output, returned):
    neuron = cls(0.9, init_hidden=True, output=output)
    for out in (neuron(torch.rand(2, 3)), neuron.multi_step(torch.rand(4, 2, 3))):
        assert (len(out) if isinstance(out, tuple) else 1) == returned
    net = nn.Sequential(nn.Linear(3, 3), cls(0.9, init_hidden=True, output=True))
    assert utils._final_layer_check(net) == 2


def test_mem_with_init_hidden_is_a_type_error_and_changes_nothing(cls):
    neuron = cls(0.9, init_hidden=True)
    neuron(torch.rand(2, 3))
    before = neuron.mem.clone()
    for call in (neuron, lambda x, mem: neuron.multi_step(x[None], mem)):
        with pytest.raises(TypeError, match="`mem` should not be passed .* `init_hidden=True`"):
            call(torch.rand(2, 3), torch.rand(2, 3))
    assert torch.equal(neuron.mem, before)


def test_utils_reset_clears_and_detaches_nested_neurons_too(cls):
    net = nn.Sequential(
        nn.Sequential(nn.Linear(4, 4), cls(0.9, init_hidden=True)), snn.Leaky(0.9, init_hidden=True)
    )
    net(torch.rand(2, 4))
    assert net[0][1].mem.requires_grad
    utils.reset(net)
    assert not net[0][1].mem.any()
    assert not net[0][1].mem.requires_grad


def test_reset_reaches_any_depth_and_no_other_network(cls):
    nested = nn.Sequential(nn.Sequential(nn.Linear(4, 4), cls(0.9, init_hidden=True)))
    other = nn.Sequential(nn.Linear(4, 4), cls(0.9, init_hidden=True))
    nested(torch.rand(2, 4)), other(torch.rand(2, 4))
    kept = other[1].mem
    ext.reset(nested)
    assert not nested[0][1].mem.any()
    assert not nested[0][1].mem.requires_grad
    assert other[1].mem is kept


def test_class_wide_detach_and_reset(cls):
    neuron = cls(0.9, init_hidden=True, learn_beta=True)
    neuron(torch.rand(2, 3)), neuron(torch.rand(2, 3))
    value = neuron.mem.detach().clone()
    snn.Leaky.detach_hidden()
    assert not neuron.mem.requires_grad
    assert torch.equal(neuron.mem, value)
    snn.Leaky.reset_hidden()
    assert not neuron.mem.any()


def test_a_new_batch_size_starts_anew_as_natively(cls):
    neuron = cls(0.9, 9.0, init_hidden=True)
    neuron(torch.ones(4, 3))
    neuron(torch.ones(2, 3))
    assert torch.equal(neuron.mem, torch.ones(2, 3))


def test_a_copy_is_reset_by_snntorch_too(cls):
    net = nn.Sequential(nn.Linear(3, 3), cls(0.9, 9.0, init_hidden=True))
    copies = [copy.deepcopy(net), pickle.loads(pickle.dumps(net))]
    for twin in copies:
        twin(torch.ones(2, 3))
        utils.reset(twin)
        assert not twin[1].mem.any()


def test_copies_are_freed_with_their_network(cls):
    net = nn.Sequential(nn.Linear(3, 3), cls(0.9, init_hidden=True))
    snapshots = [copy.deepcopy(net) for _ in range(3)]
    assert len(snn.SpikingNeuron.instances) == 4
    del snapshots
    gc.collect()
    assert [isinstance(held, snn.SpikingNeuron) for held in snn.SpikingNeuron.instances].count(True) == 1
    copy.deepcopy(net)  # what is left of the others goes with the next copy
    assert len(snn.SpikingNeuron.instances) <= 2
    utils.reset(net)


def test_training_goes_on_from_a_state_left_by_inference_mode(cls):
    neuron = cls(0.9, 0.1, init_hidden=True, learn_beta=True)
    with torch.inference_mode():
        neuron(torch.rand(2, 3))
    neuron(torch.rand(2, 3)).sum().backward()
    assert neuron.beta.grad.isfinite()


# --- training --------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", ["BPTT", "TBPTT"])
def test_truncated_backpropagation_through_time_trains(cls, loop):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from snntorch import backprop
    net = nn.Sequential(
        nn.Flatten(),
        nn.Linear(8, 10),
        cls(0.9, 0.1, init_hidden=True, learn_beta=True),
        nn.Linear(10, 2),
        snn.Leaky(0.9, init_hidden=True, output=True),
    )
    before = copy.deepcopy(net.state_dict())
    data = [(torch.rand(4, 8), torch.randint(2, (4,))) for _ in range(2)]
    options = {"K": 3} if loop == "TBPTT" else {}
    loss = getattr(backprop, loop)(
        net,
        data,
        optimizer=torch.optim.Adam(net.parameters(), 1e-2),
        criterion=SF.ce_rate_loss(),
        num_steps=6,
        time_var=False,
        regularization=SF.l1_rate_sparsity(),
        device="cpu",
        **options,
    )
    assert torch.isfinite(torch.as_tensor(loss))
    assert not torch.equal(net.state_dict()["1.weight"], before["1.weight"])
    assert not torch.equal(net.state_dict()["2.beta"], before["2.beta"])


def test_membrane_loss_on_recorded_potentials_trains_what_comes_before(cls):
    layer, neuron = nn.Linear(4, 3), cls(0.9, 0.2)
    mems, mem = [], neuron.reset_mem()
    for x in torch.rand(5, 2, 4):
        _, mem = neuron(layer(x), mem)
        mems.append(mem)
    SF.ce_max_membrane_loss()(torch.stack(mems), torch.tensor([0, 2])).backward()
    assert layer.weight.grad.abs().sum() > 0


# --- persistence, devices, dtypes, compilation -------------------------------------------------------


OWN_KEYS = {
    VSN: {"activation.weight"},
    LIFB: {"burst.raw_gap", "burst.raw_intensity"},
    SoftResetMPR: set(),
}


def test_state_dict_round_trip_has_native_keys_and_its_own_but_no_state(cls):
    def make():
        return cls(torch.rand(5), torch.rand(5), learn_beta=True, learn_threshold=True, **RICH[cls]())

    neuron, twin = make(), make()
    with torch.no_grad():
        for tensor in neuron.state_dict().values():
            if tensor.is_floating_point():
                tensor.mul_(0.9)
    neuron(torch.rand(2, 5))
    native = snn.Leaky(
        torch.rand(5), torch.rand(5), learn_beta=True, learn_threshold=True, reset_mechanism="zero"
    )
    assert set(neuron.state_dict()) == set(native.state_dict()) | OWN_KEYS[cls]
    twin.load_state_dict(neuron.state_dict())
    x_seq = torch.randn(4, 2, 5)
    assert torch.equal(twin.multi_step(x_seq)[0], neuron.multi_step(x_seq, torch.zeros(0))[0])


@pytest.mark.parametrize("spike_grad", [None, surrogate.fast_sigmoid(), FastSigmoid()])
def test_copies_and_pickles_with_a_live_graph(cls, spike_grad):
    neuron = cls(0.9, 0.1, spike_grad=spike_grad, init_hidden=True, learn_beta=True, **RICH[cls]())
    neuron(torch.rand(2, 3))
    assert neuron.mem.requires_grad
    for twin in (copy.deepcopy(neuron), pickle.loads(pickle.dumps(neuron))):
        assert torch.equal(twin.mem, neuron.mem)
        x = torch.rand(2, 3)
        state = neuron.mem.detach()
        assert torch.equal(twin(x), neuron(x))
        neuron.mem = state


def test_activation_modules_are_trained_with_the_neuron():
    vsn = VSN(0.9, 0.1, activation=nn.PReLU())
    assert "activation.weight" in dict(vsn.named_parameters())
    assert VSN(0.9, activation=nn.GELU()).activation == "gelu"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rich", [False, True], ids=["plain", "rich"])
def test_moves_to_another_dtype(cls, dtype, rich):
    own = RICH[cls]() if rich else {}
    neuron = cls(torch.rand(3), 0.2, learn_beta=True, **own).to(dtype)
    y, mem = neuron(torch.rand(2, 3, dtype=dtype))
    assert y.dtype == dtype
    assert mem.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    neuron(torch.rand(2, 3, dtype=dtype), mem)


def test_moves_to_another_device(cls):
    neuron = cls(torch.rand(3), 0.2, learn_beta=True, **RICH[cls]()).to("meta")
    assert {t.device.type for t in (*neuron.parameters(), *neuron.buffers())} == {"meta"}
    assert neuron(torch.rand(2, 3, device="meta"))[0].device.type == "meta"


def test_autocast_trains(cls):
    net = nn.Sequential(nn.Linear(4, 6), cls(0.9, 0.1, init_hidden=True), nn.Linear(6, 2))
    with torch.autocast("cpu", torch.bfloat16):
        loss = sum(net(torch.rand(3, 4)).float().square().sum() for _ in range(3))
    loss.backward()
    assert net[1].mem.dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in net.parameters())


@every_compiled
def test_compiles_to_one_graph_and_agrees(cls, compile_backend):
    net = mixed(cls)
    compiled = torch.compile(net, fullgraph=True, backend=compile_backend)
    x_seq = torch.randn(4, 2, 4)
    outcomes = []
    for run in (net, compiled):
        ext.reset(net)
        net.zero_grad()
        outs = torch.stack([run(x)[1] for x in x_seq])
        outs.sum().backward()
        outcomes.append((outs.detach(), [p.grad.clone() for p in net.parameters()]))
    torch.testing.assert_close(*outcomes)


@pytest.mark.skipif(
    torch.__version__.startswith("2.6."), reason="torch 2.6 cannot trace snnTorch's triangular surrogate"
)
def test_an_unrecognised_closure_compiles_to_one_graph_too(cls):
    neuron = cls(0.9, 0.1, spike_grad=surrogate.triangular(), learn_threshold=True)
    x = torch.rand(2, 5)
    compiled = torch.compile(neuron, fullgraph=True, backend="aot_eager")
    grads = [
        torch.autograd.grad(run(x, torch.zeros(2, 5))[0].sum(), neuron.threshold)[0]
        for run in (compiled, neuron)
    ]
    torch.testing.assert_close(*grads)


@every_compiled
def test_multi_step_compiles_to_one_graph(cls, compile_backend):
    neuron = cls(torch.rand(5), 0.2, learn_beta=True, **RICH[cls]())
    x_seq = torch.randn(4, 2, 5)
    compiled = torch.compile(neuron.multi_step, fullgraph=True, backend=compile_backend)
    torch.testing.assert_close(
        compiled(x_seq, torch.zeros(2, 5)), neuron.multi_step(x_seq, torch.zeros(2, 5))
    )


# --- exchange --------------------------------------------------------------------------------------


NOT_IN_NIR = {VSN: "graded spikes", LIFB: "two thresholds on one potential", SoftResetMPR: "a soft reset"}


def test_nir_export_refuses_and_never_writes_a_lif(cls):
    pytest.importorskip("nirtorch")
    from snntorch.export_nir import export_to_nir

    net = nn.Sequential(nn.Linear(4, 3), cls(0.9, init_hidden=True))
    message = f"{cls.__name__} cannot be exported to NIR: NIR has no node for {NOT_IN_NIR[cls]}"
    with pytest.raises(NotImplementedError, match=message):
        export_to_nir(net, torch.rand(1, 4), ignore_dims=[0])
    nested = nn.Sequential(nn.Linear(4, 3), nn.Sequential(cls(0.9, init_hidden=True)))
    with pytest.raises(NotImplementedError, match=NOT_IN_NIR[cls]):
        export_to_nir(nested, torch.rand(1, 4), ignore_dims=[0])


def test_symbolic_tracing_is_refused_with_a_clear_line(cls):
    net = nn.Sequential(nn.Linear(4, 3), cls(0.9, init_hidden=True))
    with pytest.raises(NotImplementedError, match=rf"{cls.__name__} cannot be exported to NIR.*torch\.fx"):
        torch.fx.symbolic_trace(net)


def test_nir_export_of_native_networks_still_works():
    nir = pytest.importorskip("nir")
    from snntorch.export_nir import export_to_nir

    net = nn.Sequential(nn.Linear(4, 3), snn.Leaky(torch.full((3,), 0.9), torch.ones(3), init_hidden=True))
    graph = export_to_nir(net, torch.rand(4))
    assert any(isinstance(node, nir.LIF) for node in graph.nodes.values())


# --- what is learned stays in range --------------------------------------------------------------------


@pytest.mark.parametrize("size", [(), (3, 1, 1), (3, 5, 5)], ids=["layer", "channel", "neuron"])
@pytest.mark.parametrize("far", [-1e3, -100.0, 100.0, 1e3])
def test_no_optimiser_step_breaks_the_order_of_the_thresholds_or_weakens_a_burst(size, far):
    lifb = LIFB(
        0.9,
        torch.rand(size),
        learn_threshold=True,
        burst_threshold=torch.rand(size) + 1.5,
        burst_intensity=torch.rand(size) + 1.5,
        learn_burst_threshold=True,
        learn_burst_intensity=True,
    )
    optimiser = torch.optim.SGD(lifb.parameters(), 1.0)
    for parameter in lifb.burst.parameters():
        assert parameter.shape == size
        parameter.grad = torch.full(size, -far)
    optimiser.step()
    assert (lifb.burst_threshold > lifb.threshold).all()
    assert (lifb.burst_intensity >= 1).all()
    y_seq, mem = lifb.multi_step(torch.randn(4, 2, 3, 5, 5) * 3)
    grads = torch.autograd.grad(y_seq.sum() + mem.sum(), lifb.parameters())
    assert all(t.isfinite().all() for t in (y_seq, mem, *grads))


def test_a_burst_threshold_follows_a_learned_threshold():
    lifb = LIFB(0.9, 1.0, learn_threshold=True, burst_threshold=1.5)
    with torch.no_grad():
        lifb.threshold.add_(4)
    assert lifb.burst_threshold.item() == 5.5
    lifb(torch.tensor([[5.25, 5.75]]))[0].sum().backward()
    assert lifb.threshold.grad < 0


@pytest.mark.parametrize("learned", [True, False])
def test_bursts_start_where_they_were_asked_to(learned):
    thresholds, intensities = torch.tensor([1.25, 1.5, 3.0]), torch.tensor([1.5, 2.0, 4.0])
    lifb = LIFB(
        0.9,
        burst_threshold=thresholds,
        burst_intensity=intensities,
        learn_burst_threshold=learned,
        learn_burst_intensity=learned,
    )
    torch.testing.assert_close(lifb.burst_threshold.detach(), thresholds)
    torch.testing.assert_close(lifb.burst_intensity.detach(), intensities)


def test_left_out_the_burst_threshold_is_twice_the_threshold():
    assert LIFB(0.9, 0.75).burst_threshold.item() == 1.5


def test_training_moves_what_is_learned_about_bursts():
    lifb = LIFB(0.9, 0.5, learn_burst_threshold=True, learn_burst_intensity=True)
    before = lifb.burst_threshold.item(), lifb.burst_intensity.item()
    optimiser = torch.optim.Adam(lifb.parameters(), 0.1)
    lifb.multi_step(torch.rand(8, 4, 3))[0].sum().backward()
    optimiser.step()
    assert lifb.burst_threshold.item() > before[0]
    assert lifb.burst_intensity.item() < before[1]


def test_the_gradient_to_the_burst_intensity_is_the_number_of_bursts():
    lifb = LIFB(0.9, 0.5, burst_threshold=1.0, burst_intensity=3.0)
    lifb.burst.fixed_intensity.requires_grad_()
    y_seq, _ = lifb.multi_step(torch.randn(20, 4, 3) * 2)
    (grad,) = torch.autograd.grad(y_seq.sum(), lifb.burst.fixed_intensity)
    assert grad == (y_seq == 3).sum() > 0


# --- what a subclass overrides ------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["_base_state_function", "_base_sub", "_base_zero", "fire", "mem_reset"])
def test_a_subclass_with_its_own_part_of_a_step_is_refused_and_never_ignored(cls, part):
    def own(self, *args):
        raise AssertionError("natively called")

    class Native(snn.Leaky):
        locals()[part] = own

    reset = "zero" if part == "_base_zero" else "subtract"
    with pytest.raises(AssertionError, match="natively called"):
        Native(0.5, reset_mechanism=reset)(torch.rand(2, 3))
    with pytest.raises(TypeError, match=f"Sub overrides {part}, which no neuron of snn_ext calls.*forward"):
        type("Sub", (cls,), {part: own})
    with pytest.raises(TypeError, match=f"Sub overrides {part}"):
        type("Sub", (type("Mixin", (), {part: own}), cls), {})
    type("Sub", (cls,), {part: own, "forward": lambda self, x: self.fire(x)})  # makes of it what it will


@pytest.mark.parametrize("hidden", [False, True])
def test_the_forward_of_a_subclass_runs_in_multi_step_too(cls, hidden):
    class Halved(cls):
        def forward(self, input_, mem=None):
            return super().forward(input_ / 2, mem)

    x_seq = torch.rand(5, 2, 3) * 4
    given = () if hidden else (torch.rand(2, 3),)
    found = Halved(0.5, init_hidden=hidden).multi_step(x_seq, *given)
    expected = cls(0.5, init_hidden=hidden).multi_step(x_seq / 2, *given)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


# --- constructors as generous as the native one's -----------------------------------------------------------

GENEROUS = {
    "an array": np.full(3, 0.75, np.float32),
    "a list": [0.75] * 3,
    "a tuple": (0.75, 0.75, 0.75),
    "a NumPy number": np.float32(0.75),
    "an array of no dimension": np.array(0.75),
    "whole numbers": torch.ones(3, dtype=torch.int64),
    "a whole number": np.int64(1),
    "a tensor of no dimension": torch.tensor(1),
}


@pytest.mark.parametrize("kind", GENEROUS)
def test_beta_and_threshold_are_what_leaky_takes(cls, kind):
    value = GENEROUS[kind]
    x_seq = torch.rand(5, 2, 3)
    native = snn.Leaky(value, value, graded_spikes_factor=value)
    ours = cls(value, value, graded_spikes_factor=value)
    for name in ("beta", "threshold", "graded_spikes_factor"):
        assert torch.equal(getattr(ours, name).float(), getattr(native, name).float())
    plain = torch.as_tensor(value).float()
    expected = cls(plain, plain, graded_spikes_factor=plain)
    for found, wanted in zip(ours.multi_step(x_seq), expected.multi_step(x_seq), strict=True):
        assert torch.equal(found, wanted)
    learned = cls(value, value, learn_beta=True, learn_threshold=True)
    assert all(p.is_floating_point() for p in learned.parameters())


def test_an_array_is_copied(cls):
    beta = np.full(3, 0.5, np.float32)
    neuron = cls(beta, learn_beta=True)
    with torch.no_grad():
        neuron.beta.zero_()
    assert (beta == 0.5).all()


def test_whole_numbers_come_in_as_natively_and_truth_values_do_not(cls):
    spikes = torch.randint(2, (4, 3))
    native, ours = snn.Leaky(0.5), cls(0.5)
    (_, expected), (y, mem) = native(spikes), ours(spikes)
    assert y.dtype == mem.dtype == expected.dtype == torch.float32
    assert torch.equal(mem, expected)  # nothing has been reset yet
    with pytest.raises(NotImplementedError):
        snn.Leaky(0.5)(spikes.bool())
    with pytest.raises(TypeError, match="input_ must be floating point, got torch.bool"):
        ours(spikes.bool())


def test_without_a_batch_parameters_may_have_one(cls):
    x = torch.rand(3) * 2
    native, ours = snn.Leaky(torch.full((1, 3), 0.5)), cls(torch.full((1, 3), 0.5))
    (_, expected), (y, mem) = native(x), ours(x)
    assert y.shape == mem.shape == x.shape  # natively (1, 3)
    assert torch.equal(mem, expected[0])


def test_what_the_last_step_has_reset_can_be_read_as_natively(cls):
    native, ours = snn.Leaky(0.5, 0.5), cls(0.5, 0.5)
    for neuron in (native, ours):
        with pytest.raises(AttributeError, match="has no attribute 'reset'"):
            _ = neuron.reset
    mem = None
    for x in torch.rand(6, 4, 3, requires_grad=True) * 2:  # both from the same potential, at each step
        ours(x, mem)
        _, mem = native(x, mem)
        assert torch.equal(ours.reset, native.reset)
        assert not ours.reset.requires_grad
    assert ours.reset.sum() > 0
    assert not hasattr(copy.deepcopy(ours), "reset")
    ours.multi_step(x[None])
    assert not hasattr(ours, "reset")


class Twice(torch.autograd.Function):
    """A node of a graph that lives as long as the graph."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad


def test_what_the_last_step_has_reset_keeps_no_graph(cls):
    lif = cls(0.5, 0.5, init_hidden=True)
    x = Twice.apply(torch.rand(4, 3, requires_grad=True))
    lif(x)
    lif(x.detach())
    node = weakref.ref(x.grad_fn)
    lif.mem = lif.mem.detach()
    del x
    gc.collect()
    assert node() is None


def test_copies_may_be_freed_while_all_neurons_are_reset(cls):
    lif = cls(0.5, init_hidden=True)
    lif(torch.rand(4, 3))
    copies = [copy.deepcopy(lif) for _ in range(5)]
    before = len(snn.SpikingNeuron.instances)

    class Last(snn.Leaky):
        """Frees the copies in the middle of snnTorch's loop over the list of all neurons."""

        def __setattr__(self, name, value):
            if name == "mem":
                copies.clear()
                gc.collect()
            super().__setattr__(name, value)

    instances = snn.SpikingNeuron.instances
    instances.insert(0, last := Last(0.5))  # goes first
    utils.reset(nn.Sequential(lif))
    assert not lif.mem.any()
    instances[:] = [neuron for neuron in instances if neuron is not last]
    copy.deepcopy(lif)
    assert len(instances) <= before - 4


def test_what_a_compiled_step_has_reset_is_not_known(cls):
    lif = cls(0.5, 0.5, init_hidden=True)
    compiled = torch.compile(lif, backend="eager", fullgraph=True)
    lif(torch.zeros(1, 3))
    assert hasattr(lif, "reset")
    compiled(torch.full((1, 3), 1.5))
    assert not hasattr(lif, "reset")
    lif(torch.zeros(1, 3))
    assert lif.reset.tolist() == [[1.0, 1.0, 1.0]]


def test_steps_with_winners_fail_as_a_whole(cls):
    penalty = TotalSpikePenalty(lif := cls(0.5, 0.5, init_hidden=True, inhibition=True))
    lif.multi_step(torch.rand(2, 4, 3))
    before, calls = lif.mem, iter(range(10))

    def failing(u):
        if next(calls) > 4:
            raise RuntimeError("in the middle")
        return (u > 0).to(u.dtype)

    lif.spike_grad = failing
    with pytest.raises(RuntimeError, match="in the middle"):
        lif.multi_step(torch.rand(6, 4, 3))
    assert lif.mem is before
    penalty.remove()


@pytest.mark.parametrize("threshold", [0.0, -0.5, 1e-5, float("inf"), [1.0, -1.0, 0.0]])
@pytest.mark.parametrize("learn", [False, True])
def test_a_burst_threshold_left_out_fits_every_threshold(threshold, learn):
    x_seq = torch.randn(6, 2, 3)
    lifb = LIFB(0.5, threshold, burst_intensity=1.0, reset_mechanism="zero", learn_burst_threshold=learn)
    native = snn.Leaky(0.5, threshold, reset_mechanism="zero", init_hidden=True, output=True)
    y_seq, mem = lifb.multi_step(x_seq)
    expected = [native(x) for x in x_seq]
    assert torch.equal(y_seq, torch.stack([spikes for spikes, _ in expected]))
    assert torch.equal(mem, expected[-1][1])
    assert LIFB(0.5, 0.75).burst_threshold == 1.5


FLAGS = (
    "surrogate_disable",
    "init_hidden",
    "inhibition",
    "learn_beta",
    "learn_threshold",
    "output",
    "learn_graded_spikes_factor",
    "reset_delay",
)
OWN_FLAGS = {
    VSN: (),
    LIFB: ("learn_burst_threshold", "learn_burst_intensity"),
    SoftResetMPR: ("mpr", "detach_reset"),
}


@pytest.mark.filterwarnings("ignore:Inhibition")
def test_flags_are_true_or_false(cls):
    for name in (*FLAGS, *OWN_FLAGS[cls]):
        for wrong in (2, None, "yes", torch.tensor(True)):
            with pytest.raises(TypeError, match=f"{name} must be True or False"):
                cls(0.5, **{name: wrong})
        for good in (np.bool_(True), 1):
            cls(0.5, **{name: good})(torch.rand(2, 3))
    snn.SpikingNeuron.instances.clear()


def test_flags_set_afterwards_reach_no_kernel_as_another_number(cls):
    x_seq = torch.rand(4, 2, 3) * 2
    for value, same in ((2, True), (None, False)):
        neuron, expected = cls(0.5), cls(0.5, reset_delay=same)
        neuron.reset_delay = value
        assert torch.equal(neuron.multi_step(x_seq)[1], expected.multi_step(x_seq)[1])
    if cls is SoftResetMPR:
        neuron.mpr = 2
        with pytest.raises(TypeError, match="mpr must be True or False, got 2"):
            neuron.multi_step(x_seq)


@pytest.mark.parametrize("name", ["atan", "fast_sigmoid", "sigmoid", "straight_through_estimator"])
def test_a_surrogate_that_has_yet_to_be_called_is_named(cls, name):
    factory = getattr(snn.surrogate, name)
    with pytest.raises(TypeError, match=rf"snntorch\.surrogate\.{name} itself.*call it first, .*{name}\(\)"):
        cls(0.5, spike_grad=factory)
    with pytest.raises(TypeError, match=r"spike_grad must return spikes, but .* returned a function"):
        cls(0.5, spike_grad=lambda slope=25: factory())
    neuron = cls(0.5)
    neuron.spike_grad = factory
    with pytest.raises(TypeError, match="call it first"):
        neuron(torch.rand(2, 3))
    with pytest.raises(TypeError, match="call it first"):
        cls(0.5, spike_grad=surrogate.FastSigmoid)


# --- bad input -------------------------------------------------------------------------------------

NAN = float("nan")
BAD = [
    ({"beta": 1.2}, ValueError, r"beta=1\.2 is outside \[0, 1\]"),
    ({"beta": torch.tensor([0.5, -0.1])}, ValueError, r"beta=-0\.1 is outside"),
    ({"beta": NAN}, ValueError, "beta is NaN"),
    ({"beta": "0.9"}, TypeError, "beta must be a number or a torch.Tensor, got str"),
    ({"beta": torch.ones(2, dtype=torch.bool)}, TypeError, "beta must be floating point"),
    ({"threshold": NAN}, ValueError, "threshold is NaN"),
    ({"threshold": torch.tensor([1.0, NAN])}, ValueError, "threshold contains NaN"),
    ({"threshold": "1"}, TypeError, "threshold must be a number or a torch.Tensor, got str"),
    ({"reset_mechanism": "sub"}, ValueError, "reset_mechanism='sub'"),
    ({"spike_grad": 3}, TypeError, "spike_grad must be callable, got int"),
    ({"spike_grad": surrogate.ATan}, TypeError, "spike_grad must be an instance, got the class ATan"),
    ({"state_quant": 4}, TypeError, "state_quant must be callable, got int"),
    ({"beta": torch.empty(0)}, ValueError, "beta is empty"),
    ({"beta": ["a"]}, TypeError, "beta must hold numbers"),
    ({"beta": {0.5}}, TypeError, "beta must be a number .* got set; an array or a list of numbers will do"),
    ({"inhibition": True, "reset_delay": False}, ValueError, "inhibition=True needs reset_delay=True"),
    ({"graded_spikes_factor": NAN}, ValueError, "graded_spikes_factor is NaN"),
]
BAD_OWN = {
    VSN: [
        ({"reset_mechanism": "subtract"}, ValueError, "reset_mechanism='subtract': a VSN resets to zero"),
        ({"reset_mechanism": "none"}, ValueError, "reset_mechanism='none'"),
        ({"activation": torch.cos}, ValueError, r"act\(0\)"),
        ({"activation": "elu"}, ValueError, "activation='elu' is not known"),
    ],
    LIFB: [
        ({"reset_mechanism": None}, ValueError, "reset_mechanism=None: use one of 'subtract', 'zero'"),
        ({"burst_threshold": 1.0}, ValueError, "burst_threshold=1 must be above threshold=1; raise it"),
        (
            {"threshold": 2.0, "burst_threshold": 1.0},
            ValueError,
            "burst_threshold=1 must be above threshold=2",
        ),
        (
            {"threshold": torch.tensor([1.0, 2.0]), "burst_threshold": torch.tensor([1.5, 1.75])},
            ValueError,
            r"burst_threshold=1\.75 must be above threshold=2",
        ),
        (
            {"threshold": torch.ones(3), "burst_threshold": torch.ones(2) * 2},
            ValueError,
            r"burst_threshold of shape \(2,\) and threshold of shape \(3,\) do not broadcast",
        ),
        ({"burst_threshold": NAN}, ValueError, "burst_threshold is NaN"),
        ({"burst_threshold": "2"}, TypeError, "burst_threshold must be a number or a torch.Tensor, got str"),
        ({"burst_intensity": 0.5}, ValueError, r"burst_intensity=0\.5 is outside \[1, inf\]; a burst is"),
        ({"burst_intensity": torch.tensor([2.0, 0.9])}, ValueError, r"burst_intensity=0\.9 is outside"),
        ({"burst_intensity": float("inf")}, ValueError, "burst_intensity=inf"),
        ({"burst_intensity": NAN}, ValueError, "burst_intensity is NaN"),
        (
            {"burst_intensity": 1.0, "learn_burst_intensity": True},
            ValueError,
            "burst_intensity=1 must be above 1",
        ),
        (
            {"burst_threshold": 1.0005, "learn_burst_threshold": True},
            ValueError,
            r"burst_threshold=1\.0005 must be above threshold \+ 0\.000976562",
        ),
    ],
    SoftResetMPR: [
        (
            {"reset_mechanism": "none"},
            ValueError,
            "reset_mechanism='none': a SoftResetMPR resets by 'subtract'",
        ),
        ({"amplitude": 0.0}, ValueError, "amplitude=0 must be positive.*; a spike carries something"),
        ({"amplitude": torch.tensor([1.0, -2.0])}, ValueError, "amplitude=-2 must be positive"),
        ({"amplitude": float("inf")}, ValueError, "amplitude=inf"),
        ({"amplitude": NAN}, ValueError, "amplitude is NaN"),
        ({"amplitude": "1"}, TypeError, "amplitude must be a number or a torch.Tensor, got str"),
    ],
}


@pytest.mark.parametrize(
    ("cls", "arguments", "error", "message"),
    [(cls, *bad) for cls in NEURONS for bad in (*BAD, *BAD_OWN[cls])],
)
def test_a_bad_argument_is_named_and_registers_nothing(cls, arguments, error, message):
    with pytest.raises(error, match=message):
        cls(**{"beta": 0.9, **arguments})
    assert snn.SpikingNeuron.instances == []


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(0, 2, 3), ValueError, "at least one time step"),
        (torch.zeros(4, 2, 3, dtype=torch.bool), TypeError, "floating point"),
        (torch.zeros(4, 2, 5), ValueError, r"beta has shape \(3,\), which does not broadcast"),
        (torch.zeros(4, 2, 3, device="meta"), ValueError, "beta is on cpu but the input is on meta"),
        (3.0, TypeError, r"x_seq must be a torch\.Tensor, got float"),
    ],
)
def test_bad_input_leaves_the_state_alone(cls, x, error, message):
    neuron = cls(torch.rand(3), init_hidden=True)
    neuron(torch.rand(2, 3))
    before = neuron.mem
    with pytest.raises(error, match=message):
        neuron.multi_step(x)
    assert neuron.mem is before


@pytest.mark.parametrize(
    ("cls", "name"),
    [
        *((cls, "graded_spikes_factor") for cls in NEURONS),
        (LIFB, "burst_threshold"),
        (LIFB, "burst_intensity"),
        (SoftResetMPR, "amplitude"),
    ],
)
def test_a_parameter_that_does_not_fit_the_input_is_named_and_leaves_the_state_alone(cls, name):
    neuron = cls(0.9, **{name: torch.rand(3) + 1.5}, init_hidden=True)
    neuron(torch.rand(2, 3))
    before = neuron.mem
    with pytest.raises(ValueError, match=rf"{name} has shape \(3,\), which does not broadcast"):
        neuron(torch.rand(2, 5))
    assert neuron.mem is before


def test_bad_states_and_shapes_are_named(cls):
    with pytest.raises(TypeError, match=r"mem must be a torch\.Tensor, got float"):
        cls(0.9)(torch.rand(2, 3), 0.0)
    with pytest.raises(ValueError, match="needs a batch and a neuron dimension for inhibition"):
        inhibited(cls)(torch.rand(3))


@pytest.mark.parametrize(
    ("cls", "given", "refused"),
    [(VSN, "zero", "subtract"), (LIFB, "subtract", "sub"), (SoftResetMPR, "subtract", "none")],
)
def test_the_reset_mechanism_cannot_be_changed_to_one_that_is_not_the_neurons(cls, given, refused):
    neuron = cls(0.9)
    assert neuron.reset_mechanism == given
    with pytest.raises(ValueError, match=f"reset_mechanism='{refused}'"):
        neuron.reset_mechanism = refused
    assert neuron.reset_mechanism == given


@pytest.mark.parametrize("cls", [LIFB, SoftResetMPR])
def test_the_reset_mechanism_can_be_changed_to_another_of_the_neurons(cls):
    x_seq = torch.randn(9, 4) * 2
    changed = cls(0.9)
    changed.reset_mechanism = "zero"
    torch.testing.assert_close(changed.multi_step(x_seq), cls(0.9, reset_mechanism="zero").multi_step(x_seq))
