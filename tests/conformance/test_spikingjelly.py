"""What SpikingJelly asks of its own neurons, asked of ours, in either generation."""

import copy
import importlib.util
import inspect
import pickle
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune

pytest.importorskip("spikingjelly", reason="SpikingJelly is not installed")

from spikingjelly.activation_based import base, functional, layer, monitor, neuron, surrogate
from spikingjelly.activation_based.model import spiking_vgg

import snn_ext.functional as F
from snn_ext.spikingjelly import LIFBNode, SoftResetMPRNode, VSNNode
from snn_ext.spikingjelly._compat import FUNCTIONAL, HAS_BACKEND, as_surrogate
from snn_ext.surrogate import MPR, ATan, Sigmoid, StraightThrough, Surrogate

functional_design = pytest.mark.skipif(
    not FUNCTIONAL, reason="this SpikingJelly has no functional transitions"
)
backend_design = pytest.mark.skipif(not HAS_BACKEND, reason="this SpikingJelly has no backend")

NEURONS = [VSNNode, LIFBNode, SoftResetMPRNode]

COMMON = [
    {},
    {"tau": 2.0, "decay_input": True},
    {"detach_reset": True},
    {"tau": 3.0, "learn_tau": True, "learn_threshold": True},
    {"tau": torch.tensor([1.0, 2.0, 4.0]), "v_threshold": torch.tensor([0.1, 0.2, 0.3])},
    {"surrogate_function": surrogate.SoftSign(), "learn_threshold": True},
]
OWN = {
    VSNNode: [{"activation": "gelu"}, {"decay_input": False}],
    LIFBNode: [
        {"decay_input": False, "v_reset": -0.3},
        {"v_reset": None, "burst_threshold": torch.linspace(0.5, 1.0, 3)},
        {"learn_burst_threshold": True, "learn_burst_intensity": True, "learn_threshold": True},
        {"burst_intensity": torch.tensor([1.0, 2.0, 3.0])},
    ],
    SoftResetMPRNode: [{"mpr": False, "v_reset": 0.0}, {"v_reset": 0.2}, {"amplitude": torch.rand(3) + 0.5}],
}
PICKLABLE = [(cls, options) for cls in NEURONS for options in (*COMMON, *OWN[cls])]
OPTIONS = [*PICKLABLE, (VSNNode, {"activation": torch.sin})]


@pytest.fixture(params=NEURONS, ids=lambda cls: cls.__name__)
def cls(request):
    return request.param


def node(cls, **options):
    return cls(**{"v_threshold": 0.3, **options})


# --- dynamics -------------------------------------------------------------------------------------


def test_a_learned_tau_may_be_parametrized_or_pruned(cls):
    x_seq = torch.rand(3, 2, 4)
    expected = node(cls, tau=3.0, learn_tau=True, step_mode="m")(x_seq)
    parametrized = node(cls, tau=3.0, learn_tau=True, step_mode="m")
    parametrize.register_parametrization(parametrized, "w", nn.Identity())
    pruned = node(cls, tau=3.0, learn_tau=True, step_mode="m")
    prune.identity(pruned, "w")
    for ours in (parametrized, pruned):
        assert torch.equal(ours(x_seq), expected)


def test_arguments_of_lifnode_come_first_and_in_order(cls):
    native = list(inspect.signature(neuron.LIFNode.__init__).parameters)[1:]
    defaults = {k: p.default for k, p in inspect.signature(neuron.LIFNode.__init__).parameters.items()}
    values = {
        **defaults,
        "tau": 3.0,
        "decay_input": False,
        "v_threshold": 0.5,
        "surrogate_function": surrogate.ATan(),
        "detach_reset": True,
        "step_mode": "m",
        "store_v_seq": True,
    }
    ours = cls(*(values[name] for name in native))
    for name in native:
        assert getattr(ours, name) == values[name]


@pytest.mark.parametrize(
    ("cls", "differing"),
    [
        (VSNNode, set()),
        (LIFBNode, set()),
        (SoftResetMPRNode, {"tau", "decay_input", "v_threshold", "v_reset"}),
    ],
)
def test_defaults_are_those_of_lifnode_but_for_what_the_method_fixes(cls, differing):
    ours, native = (inspect.signature(c.__init__).parameters for c in (cls, neuron.LIFNode))
    differing = differing | {"surrogate_function"}  # ours is made when it is needed
    assert {name for name, p in native.items() if ours[name].default != p.default} == differing


@pytest.mark.parametrize("decay_input", [True, False])
@pytest.mark.parametrize(
    ("cls", "own", "emitted"),
    [
        (VSNNode, {}, lambda spk, x: spk * x),
        (LIFBNode, {"burst_intensity": 1.0}, lambda spk, x: spk),
        (SoftResetMPRNode, {"v_reset": 0.0}, lambda spk, x: spk),
    ],
)
def test_potential_and_events_are_those_of_a_native_lif(cls, own, emitted, decay_input):
    x_seq = torch.randn(30, 4, 5)
    native = neuron.LIFNode(tau=2.0, decay_input=decay_input, v_threshold=0.4, step_mode="s")
    ours = cls(tau=2.0, decay_input=decay_input, v_threshold=0.4, **own)
    for x in x_seq:
        assert torch.equal(ours(x), emitted(native(x), x))
        torch.testing.assert_close(ours.v, native.v)


def outcome(node, x_seq):
    """Emissions, final potential, and the gradient of both to the input."""
    x_seq = x_seq.clone().requires_grad_()
    y_seq = node(x_seq)
    weights = torch.linspace(0, 1, y_seq.numel()).view_as(y_seq)
    (grad,) = torch.autograd.grad((y_seq * weights).sum() + (node.v**2).sum(), x_seq)
    return y_seq, node.v, grad


every_reset = pytest.mark.parametrize("v_reset", [0.0, -0.3, None])


@every_reset
@pytest.mark.parametrize("decay_input", [True, False])
@pytest.mark.parametrize("detach_reset", [True, False])
@pytest.mark.parametrize("tau", [2.0, 3.0])
def test_a_lifb_of_burst_intensity_one_is_a_lifnode(tau, decay_input, v_reset, detach_reset):
    settings = (tau, decay_input, 0.4, v_reset, surrogate.ATan(), detach_reset, "m")
    x_seq = torch.randn(30, 6, 5) * 2
    expected = outcome(neuron.LIFNode(*settings), x_seq)
    got = outcome(LIFBNode(*settings, burst_intensity=1.0), x_seq)
    assert torch.equal(got[0], expected[0])
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("decay_input", [True, False])
@pytest.mark.parametrize("v_reset", [0.0, None])
def test_soft_reset_mpr_without_rectifier_and_at_amplitude_threshold_is_a_lifnode(decay_input, v_reset):
    settings = (2.0, decay_input, 1.0, v_reset, surrogate.ATan(), False, "m")
    x_seq = torch.randn(30, 6, 5) * 3
    expected = outcome(neuron.LIFNode(*settings), x_seq)
    got = outcome(SoftResetMPRNode(*settings, mpr=False), x_seq)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("cls", "options"), OPTIONS)
def test_multi_step_equals_single_steps_in_values_and_gradients(cls, options):
    x_seq = torch.randn(7, 4, 3)
    outcomes = []
    for mode in "sm":
        torch.manual_seed(1)
        ours = node(cls, **options, step_mode=mode)
        x = x_seq.clone().requires_grad_()
        y = ours(x) if mode == "m" else torch.stack([ours(step) for step in x])
        grads = torch.autograd.grad(y.sum() + ours.v.sum(), (x, *ours.parameters()))
        outcomes.append((y.detach(), ours.v.detach(), grads))
    torch.testing.assert_close(*outcomes)


CORE = {
    VSNNode: ({}, lambda x, **p: F.vsn(x, surrogate=Sigmoid(4.0), **p)),
    LIFBNode: (
        {"burst_threshold": 0.75, "burst_intensity": 3.0, "v_reset": -0.25},
        lambda x, *, threshold, **p: F.lifb(
            x,
            threshold=threshold,
            burst_threshold=threshold + 0.5,
            burst_intensity=3.0,
            v_reset=-0.25,
            surrogate=Sigmoid(4.0),
            **p,
        ),
    ),
    SoftResetMPRNode: (
        {"decay_input": True, "amplitude": 0.75},
        lambda x, **p: F.soft_reset_mpr(x, amplitude=0.75, **p),
    ),
}
"""The same neuron in this framework (its own arguments) and in the core."""


def test_gradients_are_those_of_the_core(cls):
    own, core = CORE[cls]
    ours = cls(4.0, v_threshold=0.25, learn_tau=True, learn_threshold=True, step_mode="m", **own)
    x_seq = torch.randn(8, 3)
    v0 = torch.full((3,), float(ours.v))
    grads = torch.autograd.grad(ours(x_seq).sum() + ours.v.sum(), (ours.w, ours.v_threshold))
    w = ours.w.detach().clone().requires_grad_()
    threshold = torch.tensor(0.25, requires_grad=True)
    rate = 1 / (1 + torch.exp(-w))
    y_seq, v = core(x_seq, v0=v0, decay=1 - rate, gain=rate, threshold=threshold)
    expected = torch.autograd.grad(y_seq.sum() + v.sum(), (w, threshold))
    torch.testing.assert_close(grads, expected)


def test_a_learned_tau_is_parametrised_as_natively(cls):
    ours = node(cls, tau=3.0, learn_tau=True)
    assert ours.w.item() == pytest.approx(neuron.ParametricLIFNode(3.0).w.item())


@pytest.mark.parametrize(("cls", "fires"), [(VSNNode, 1), (LIFBNode, 1), (SoftResetMPRNode, 0)])
def test_only_soft_reset_mpr_needs_more_than_the_threshold(cls, fires):
    assert cls(decay_input=False, v_threshold=1.0)(torch.ones(1)).item() == fires
    assert cls(decay_input=False, v_threshold=1.0, surrogate_function=ATan())(torch.ones(1)).item() == 1


@pytest.mark.parametrize("size", [(3, 5, 5), (3, 1, 1)])
def test_parameters_per_neuron_and_per_channel(cls, size):
    tau, threshold = 1 + torch.rand(size), torch.rand(size)
    ours = cls(tau, v_threshold=threshold, learn_tau=True, learn_threshold=True, step_mode="m")
    ours(torch.randn(4, 2, 3, 5, 5)).sum().backward()
    assert ours.w.grad.shape == ours.v_threshold.grad.shape == size


# --- surrogates ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ATan", "Sigmoid", "PiecewiseQuadratic", "Rect"])
@pytest.mark.parametrize("alpha", [0.7, 2.0])
def test_a_recognised_surrogate_has_the_native_gradient(name, alpha):
    if not hasattr(surrogate, name):
        pytest.skip(f"this SpikingJelly has no {name}")
    native = getattr(surrogate, name)(alpha)
    fused = as_surrogate(native)
    assert isinstance(fused, Surrogate)
    u = torch.linspace(-3, 3, 300).requires_grad_()
    grads = [torch.autograd.grad(f(u).sum(), u)[0] for f in (native, fused)]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("cls", [VSNNode, SoftResetMPRNode])
def test_a_soft_surrogate_stays_soft(cls):
    soft = surrogate.ATan(spiking=False)
    assert as_surrogate(soft) is soft
    y = cls(decay_input=False, v_threshold=1.0, surrogate_function=soft)(torch.ones(1))
    assert y.item() == 0.5


@pytest.mark.parametrize("cls", [*NEURONS, neuron.LIFNode])
def test_our_surrogates_work_on_our_and_on_native_neurons(cls):
    x = torch.randn(20, requires_grad=True)
    grads = []
    for spike in (surrogate.ATan(3.0), ATan(3.0)):
        y = cls(surrogate_function=spike)(x)
        grads.append((y.detach(), torch.autograd.grad(y.sum(), x)[0]))
    torch.testing.assert_close(*grads)


def test_left_out_the_surrogate_is_spikingjellys_or_the_methods():
    for cls in (VSNNode, LIFBNode):
        assert type(cls().surrogate_function) is type(neuron.LIFNode().surrogate_function)
    assert SoftResetMPRNode().surrogate_function == StraightThrough(strict=True)


@pytest.mark.parametrize("own", [{}, {"v_reset": 0.0}, {"detach_reset": True}, {"amplitude": 0.5}])
def test_the_mpr_surrogate_trains_as_the_rectifier_does(own):
    x_seq = torch.randn(8, 4, 5, dtype=torch.float64)
    x_seq[0, 0, :3] = torch.tensor([0.0, 0.25, 0.5])
    outcomes = []
    for arm in ({}, {"mpr": False, "surrogate_function": MPR(strict=True)}):
        settings = {"learn_tau": True, "learn_threshold": True, "step_mode": "m"}
        ours = SoftResetMPRNode(4.0, v_threshold=0.25, **settings, **own, **arm).double()
        x = x_seq.clone().requires_grad_()
        y_seq = ours(x)
        loss = (y_seq * torch.linspace(0, 1, y_seq.numel()).view_as(y_seq)).sum() + ours.v.square().sum()
        outcomes.append((y_seq, ours.v, torch.autograd.grad(loss, (x, *ours.parameters()))))
    torch.testing.assert_close(*outcomes)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    "make",
    [
        lambda spike: neuron.LIFNode(2.0, False, 0.5, surrogate_function=spike),
        lambda spike: LIFBNode(2.0, False, 0.5, surrogate_function=spike, burst_threshold=9.0),
        lambda spike: SoftResetMPRNode(mpr=False, surrogate_function=spike),
    ],
)
def test_the_mpr_surrogate_is_the_gradient_of_the_rectifier_on_any_neuron(make, strict):
    x = torch.arange(-20, 53) / 32  # the ends of the rectifier and its middle included
    rectifying = SoftResetMPRNode(surrogate_function=StraightThrough(strict=strict))
    grads = []
    for ours in (rectifying, make(MPR(strict=strict))):
        leaf = x.clone().requires_grad_()
        spk = ours(leaf)
        grads.append((spk.detach(), torch.autograd.grad(spk.sum(), leaf)[0]))
    torch.testing.assert_close(*grads)


# --- state -----------------------------------------------------------------------------------------


def network(cls):
    return nn.Sequential(
        layer.Linear(4, 6),
        node(cls, tau=2.0, decay_input=False, learn_tau=True),
        layer.Linear(6, 3),
        neuron.LIFNode(),
    )


def test_reset_net_and_detach_net(cls):
    net = network(cls)
    functional.set_step_mode(net, "m")
    x_seq = torch.randn(5, 2, 4)
    first = net(x_seq)
    assert net[1].v.requires_grad
    value = net[1].v.detach().clone()
    functional.detach_net(net)
    assert not net[1].v.requires_grad
    assert torch.equal(net[1].v, value)
    functional.reset_net(net)
    assert net[1].v == 0.0
    assert torch.equal(net(x_seq), first)


def test_step_mode_can_be_switched_in_the_middle_of_a_sequence(cls):
    x_seq = torch.randn(6, 2, 3)
    whole = node(cls, step_mode="m")(x_seq)
    ours = node(cls, step_mode="m")
    parts = [ours(x_seq[:3])]
    functional.set_step_mode(ours, "s")
    parts.append(torch.stack([ours(x) for x in x_seq[3:]]))
    assert torch.equal(torch.cat(parts), whole)


def test_an_unknown_step_mode_is_refused_natively(cls):
    with pytest.raises(ValueError, match="step_mode can only be"):
        node(cls, step_mode="x")


def test_memories_are_native_and_stay_out_of_the_state_dict(cls):
    ours = node(cls, tau=2.0, learn_tau=True)
    ours(torch.randn(2, 3))
    assert next(iter(dict(ours.named_memories()))) == "v"
    assert set(ours.state_dict()) == {"w"}


@pytest.mark.parametrize("cls", [*NEURONS, neuron.LIFNode])
def test_a_number_put_into_the_memory_is_where_the_potential_starts(cls):
    start = cls(tau=2.0, decay_input=False, v_threshold=9.0)
    start.v = 4.0
    start(torch.ones(2))
    assert start.v.tolist() == [3.0, 3.0]


@pytest.mark.parametrize("cls", [LIFBNode, SoftResetMPRNode, neuron.LIFNode])
def test_the_potential_starts_and_restarts_at_v_reset_as_natively(cls):
    start = cls(tau=2.0, v_threshold=9.0, v_reset=-0.5)
    for _ in range(2):
        start(torch.zeros(2))
        assert start.v.tolist() == [-0.5, -0.5]
        functional.reset_net(start)
        assert start.v == -0.5


@pytest.mark.parametrize(
    ("cls", "own"),
    [
        (VSNNode, "activation='identity'"),
        (LIFBNode, "(burst): Burst(gap=tensor of shape (4,), intensity=2)"),
        (SoftResetMPRNode, "amplitude=1.0, mpr=True"),
    ],
)
def test_a_neuron_prints_its_settings(cls, own):
    text = repr(cls(tau=3.0, v_threshold=torch.rand(4), learn_tau=True))
    assert "tau=3" in text
    assert "v_threshold=tensor of shape (4,)" in text
    assert own in text
    assert "tensor of shape" in repr(cls(v_threshold=torch.tensor(0.5)).to("meta"))


@pytest.mark.parametrize("mode", ["m", "s"])
def test_store_v_seq_keeps_the_potential_after_the_reset(cls, mode):
    if mode == "s" and not FUNCTIONAL:
        pytest.skip("this SpikingJelly stores sequences in multi-step mode only")
    x_seq = torch.randn(6, 2, 3)
    own, core = CORE[cls]
    own = {**own, "decay_input": False, "v_threshold": 0.25}
    ours = cls(2.0, step_mode=mode, store_v_seq=True, **own)
    v0 = torch.full((2, 3), float(ours.v))
    _ = ours(x_seq) if mode == "m" else [ours(x) for x in x_seq]
    *_, v_seq = core(x_seq, v0=v0, decay=0.5, threshold=0.25, return_v_seq=True)
    assert torch.equal(ours.v_seq, v_seq)
    assert torch.equal(ours.v, v_seq[-1])
    functional.reset_net(ours)
    assert ours.v_seq is None


def test_monitors_see_outputs_and_potentials(cls):
    net = network(cls)
    functional.set_step_mode(net, "m")
    net[1].store_v_seq = True
    outputs = monitor.OutputMonitor(net, cls)
    potentials = monitor.AttributeMonitor("v_seq", False, net, cls)
    gradients = monitor.GradOutputMonitor(net, cls)
    net(torch.randn(5, 2, 4)).sum().backward()
    assert outputs.records[0].shape == potentials.records[0].shape == gradients.records[0].shape == (5, 2, 6)
    assert outputs.monitored_layers == ["1"]


def test_another_batch_shape_behaves_as_this_generation_does(cls):
    ours = node(cls, step_mode="m")
    ours(torch.randn(4, 2, 3))
    before = ours.v
    if FUNCTIONAL:
        assert ours(torch.randn(4, 5, 3)).shape == (4, 5, 3)
    else:
        with pytest.raises(
            ValueError, match=r"potential of shape \(2, 3\).*\(5, 3\); call functional\.reset_net"
        ):
            ours(torch.randn(4, 5, 3))
        assert ours.v is before


def test_truncated_backpropagation_in_chunks_equals_the_whole_forward(cls):
    x_seq = torch.randn(8, 2, 4)
    net = network(cls)
    functional.set_step_mode(net, "m")
    whole = net(x_seq)
    functional.reset_net(net)
    chunks = []
    for chunk in x_seq.split(3):
        y = net(chunk)
        y.sum().backward()
        functional.detach_net(net)
        chunks.append(y.detach())
    assert torch.equal(torch.cat(chunks), whole)


def test_training_goes_on_from_a_state_left_by_inference_mode(cls):
    ours = node(cls, tau=2.0, learn_tau=True)
    with torch.inference_mode():
        ours(torch.rand(2, 3))
    ours(torch.rand(2, 3)).sum().backward()
    assert ours.w.grad.isfinite()


def test_the_input_can_be_passed_by_name(cls):
    assert node(cls)(x=torch.ones(2)).shape == (2,)
    assert node(cls, step_mode="m")(x_seq=torch.ones(3, 2)).shape == (3, 2)


# --- the two designs -----------------------------------------------------------------------------------


@functional_design
@pytest.mark.parametrize("mode", ["s", "m"])
def test_functional_forward_is_pure_and_equals_the_regular_one(cls, mode):
    ours = node(cls, step_mode=mode)
    x = torch.randn(5, 2, 3) if mode == "m" else torch.randn(2, 3)
    state = torch.randn(2, 3)
    kept = state.clone()
    (y,), (v,) = base.to_functional_forward(ours)((x,), (state,))
    assert ours.v == 0.0
    assert torch.equal(state, kept)
    ours.v = state
    assert torch.equal(ours(x), y)
    assert torch.equal(ours.v, v)


@functional_design
def test_a_subclass_with_a_sequence_implementation_of_its_own_is_heard(cls):
    class Doubled(cls):
        def multi_step_functional_forward(self, inputs, states, **kwargs):
            (y,), states = super().multi_step_functional_forward(inputs, states, **kwargs)
            return (2 * y,), states

    x_seq = torch.randn(4, 3)
    assert torch.equal(Doubled(step_mode="m")(x_seq), 2 * cls(step_mode="m")(x_seq))


@functional_design
def test_functional_forward_of_a_network_matches(cls):
    net = network(cls)
    functional.set_step_mode(net, "m")
    x_seq = torch.randn(5, 2, 4)
    (y,), _states = base.to_functional_forward(net)((x_seq,), (0.0, 0.0))
    assert torch.equal(y, net(x_seq))


@functional_design
def test_materialised_states_are_float32_for_half_input(cls):
    x = torch.randn(2, 3).bfloat16()
    (v,) = node(cls).materialize_states((x,), (0.0,), "s")
    assert v.dtype == torch.float32
    assert v.shape == x.shape
    kept = torch.randn(2, 3)
    assert node(cls).materialize_states((x,), (kept,), "s")[0] is kept


@functional_design
def test_backend_is_refused_where_the_framework_has_none(cls):
    with pytest.raises(TypeError, match="backend"):
        cls(backend="torch")


@backend_design
def test_backend_stands_where_lifnode_has_it(cls):
    ours = cls(2.0, True, 1.0, 0.0, None, False, "m", "torch", True)
    assert (ours.backend, ours.store_v_seq, ours.step_mode) == ("torch", True, "m")
    assert ours.supported_backends == neuron.LIFNode(step_mode="m").supported_backends
    assert cls().supported_backends == ("torch",)


@backend_design
def test_a_backend_that_is_not_there_is_refused_in_the_native_words(cls):
    with pytest.raises(NotImplementedError, match=f"lava is not a supported backend of {cls.__name__}"):
        cls(step_mode="m", backend="lava")
    with pytest.raises(NotImplementedError, match=f"cupy is not a supported backend of {cls.__name__}"):
        cls(step_mode="s", backend="cupy")


@backend_design
def test_cupy_is_refused_in_the_native_words_where_it_is_not_installed(cls):
    if importlib.util.find_spec("cupy") is not None:
        pytest.skip("CuPy is installed")
    with pytest.raises(ImportError) as native:
        neuron.LIFNode(step_mode="m", backend="cupy")
    with pytest.raises(ImportError) as ours:
        cls(step_mode="m", backend="cupy")
    assert str(ours.value) == str(native.value)


@backend_design
def test_the_cupy_backend_runs_cupy_or_says_why_it_cannot(cls, monkeypatch):
    from spikingjelly.activation_based import base

    monkeypatch.setattr(base, "cupy", object())
    ours = cls(step_mode="m", backend="cupy")
    with pytest.raises(ValueError, match=r"backend='cupy' runs on a CUDA device, but the input is on cpu"):
        ours(torch.rand(3, 4))
    assert ours.v == 0.0


@backend_design
def test_eval_mode_runs_our_dynamics(cls):
    x_seq = torch.randn(6, 2, 3)
    ours = node(cls, step_mode="m")
    trained = ours(x_seq)
    functional.reset_net(ours)
    assert torch.equal(ours.eval()(x_seq), trained)


# --- persistence, devices, dtypes, compilation ----------------------------------------------------------


@pytest.mark.parametrize(("cls", "options"), OPTIONS)
def test_state_dict_round_trip(cls, options):
    ours, twin = node(cls, **copy.deepcopy(options)), node(cls, **copy.deepcopy(options))
    with torch.no_grad():
        for tensor in ours.state_dict().values():
            tensor.add_(0.1)
    twin.load_state_dict(ours.state_dict())
    x = torch.randn(4, 3)
    assert torch.equal(twin(x), ours(x))


@pytest.mark.parametrize(("cls", "options"), PICKLABLE)
def test_copies_and_pickles_with_a_live_graph(cls, options):
    ours = node(cls, **options, step_mode="m", store_v_seq=True)
    ours(torch.randn(5, 2, 3, requires_grad=True))
    assert ours.v.requires_grad
    for twin in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(twin.v, ours.v)
        assert not twin.v.requires_grad
        assert torch.equal(twin.v_seq, ours.v_seq)
        functional.reset_net(twin)
        x_seq = torch.randn(5, 2, 3)
        fresh = node(cls, **options, step_mode="m")
        assert torch.equal(twin(x_seq), fresh(x_seq))


RICH = {
    VSNNode: lambda: {"activation": nn.PReLU()},
    LIFBNode: lambda: {"learn_burst_threshold": True, "learn_burst_intensity": True},
    SoftResetMPRNode: lambda: {"amplitude": torch.tensor(0.75)},
}
"""Arguments beyond SpikingJelly's own, of each neuron."""


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rich", [False, True], ids=["plain", "rich"])
def test_moves_to_another_dtype(cls, dtype, rich):
    own = RICH[cls]() if rich else {}
    ours = node(cls, tau=2.0, learn_tau=True, step_mode="m", **own).to(dtype)
    y = ours(torch.randn(4, 2, 3, dtype=dtype))
    assert y.dtype == dtype
    assert ours.v.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    ours(torch.randn(4, 2, 3, dtype=dtype))


def test_moves_to_another_device(cls):
    ours = node(cls, tau=torch.rand(3) + 1, learn_threshold=True, step_mode="m", **RICH[cls]()).to("meta")
    assert ours(torch.randn(4, 2, 3, device="meta")).device.type == "meta"
    assert ours.v.device.type == "meta"


def test_autocast_trains(cls):
    net = network(cls)
    functional.set_step_mode(net, "m")
    with torch.autocast("cpu", torch.bfloat16):
        loss = net(torch.rand(3, 2, 4)).float().square().sum()
    loss.backward()
    assert net[1].v.dtype == torch.float32
    assert net[0].weight.grad.isfinite().all()


@pytest.mark.skipif(
    torch.__version__.startswith("2.6."),
    reason="torch 2.6 can compile neither LIFNode nor VSNNode in one graph",
)
@pytest.mark.parametrize(
    ("cls", "compile_backend"),
    [*((cls, "aot_eager") for cls in NEURONS), (LIFBNode, "inductor")],
    indirect=["compile_backend"],
)
@pytest.mark.parametrize("mode", ["s", "m"])
def test_compiles_to_one_graph_and_agrees(cls, mode, compile_backend):
    net = network(cls)
    functional.set_step_mode(net, mode)
    x = torch.randn(4, 2, 4) if mode == "m" else torch.randn(2, 4)
    compiled = torch.compile(net, fullgraph=True, backend=compile_backend)
    outcomes = []
    for run in (net, compiled):
        functional.reset_net(net)
        net.zero_grad()
        y = run(x)
        y.sum().backward()
        outcomes.append((y.detach(), net[1].v.detach(), [p.grad.clone() for p in net.parameters()]))
    torch.testing.assert_close(*outcomes)


def test_settings_that_differ_between_layers_do_not_break_the_graph(cls):
    net = nn.Sequential(*(cls(tau=2.0 + i, v_threshold=0.1 + 0.1 * i, step_mode="m") for i in range(4)))
    x_seq = torch.rand(4, 3)
    expected = net(x_seq)
    functional.reset_net(net)
    assert torch.equal(torch.compile(net, fullgraph=True, backend="aot_eager")(x_seq), expected)


# --- the model zoo, exchange -----------------------------------------------------------------------------


def test_a_network_of_the_model_zoo_trains_one_step(cls):
    net = spiking_vgg.spiking_vgg11_bn(
        spiking_neuron=cls,
        num_classes=10,
        surrogate_function=surrogate.ATan(),
        detach_reset=True,
        tau=2.0,
    )
    functional.set_step_mode(net, "m")
    assert sum(isinstance(m, cls) for m in net.modules()) >= 8
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    before = net.features[0].weight.detach().clone()
    y_seq = net(torch.rand(2, 2, 3, 32, 32))
    nn.functional.cross_entropy(y_seq.mean(0), torch.tensor([1, 2])).backward()
    optimizer.step()
    assert y_seq.shape == (2, 2, 10)
    assert not torch.equal(net.features[0].weight, before)
    functional.reset_net(net)


NOT_IN_NIR = {
    VSNNode: "graded spikes",
    LIFBNode: "two thresholds on one potential",
    SoftResetMPRNode: "a soft reset",
}


@pytest.mark.parametrize("mode", ["s", "m"])
def test_nir_export_refuses_with_a_clear_line(cls, mode):
    nir_exchange = pytest.importorskip(
        "spikingjelly.activation_based.nir_exchange", reason="this SpikingJelly has no NIR exchange"
    )
    net = network(cls)
    functional.set_step_mode(net, mode)
    x = torch.rand(5, 1, 4) if mode == "m" else torch.rand(1, 4)
    with pytest.raises(
        NotImplementedError,
        match=f"{cls.__name__} cannot be exported to NIR, which has no node for {NOT_IN_NIR[cls]}",
    ):
        nir_exchange.export_to_nir(net, x)


# --- what is learned stays in range ------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(), (3, 1, 1), (3, 5, 5)], ids=["layer", "channel", "neuron"])
@pytest.mark.parametrize("far", [-1e3, -100.0, 100.0, 1e3])
def test_no_optimiser_step_breaks_the_order_of_the_thresholds_or_weakens_a_burst(size, far):
    lifb = LIFBNode(
        v_threshold=torch.rand(size),
        learn_threshold=True,
        burst_threshold=torch.rand(size) + 1.5,
        burst_intensity=torch.rand(size) + 1.5,
        learn_burst_threshold=True,
        learn_burst_intensity=True,
        step_mode="m",
    )
    optimiser = torch.optim.SGD(lifb.parameters(), 1.0)
    for parameter in lifb.burst.parameters():
        assert parameter.shape == size
        parameter.grad = torch.full(size, -far)
    optimiser.step()
    assert (lifb.burst_threshold > lifb.v_threshold).all()
    assert (lifb.burst_intensity >= 1).all()
    y_seq = lifb(torch.randn(4, 2, 3, 5, 5) * 3)
    grads = torch.autograd.grad(y_seq.sum() + lifb.v.sum(), lifb.parameters())
    assert all(t.isfinite().all() for t in (y_seq, lifb.v, *grads))


def test_a_burst_threshold_follows_a_learned_threshold():
    lifb = LIFBNode(learn_threshold=True, burst_threshold=1.5)
    with torch.no_grad():
        lifb.v_threshold.add_(4)
    assert lifb.burst_threshold.item() == 5.5


@pytest.mark.parametrize("far", [-1e3, 1e3])
def test_a_learned_tau_stays_a_time_constant(cls, far):
    ours = cls(tau=2.0, learn_tau=True, step_mode="m")
    with torch.no_grad():
        ours.w.fill_(far)
    y_seq = ours(torch.randn(5, 3))
    (grad,) = torch.autograd.grad(y_seq.sum() + ours.v.sum(), ours.w)
    assert all(t.isfinite().all() for t in (y_seq, ours.v, grad))


# --- what a subclass overrides ------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["neuronal_charge", "neuronal_fire", "neuronal_reset"])
def test_a_subclass_with_its_own_part_of_a_step_is_refused_and_never_ignored(cls, part):
    def own(self, *args):
        raise AssertionError("natively called")

    if not FUNCTIONAL:  # in 2.0 LIFNode has no such parts, and ignores them
        with pytest.raises(AssertionError, match="natively called"):
            type("Native", (neuron.LIFNode,), {part: own})()(torch.rand(2, 3))
    with pytest.raises(TypeError, match=f"Sub overrides {part}, which no neuron of snn_ext calls.*LIFNode"):
        type("Sub", (cls,), {part: own})
    with pytest.raises(TypeError, match=f"Sub overrides {part}"):
        type("Sub", (type("Mixin", (), {part: own}), cls), {})
    type("Sub", (cls,), {part: own, "single_step_forward": lambda self, x: x})  # makes of it what it will


@pytest.mark.parametrize("store", [False, True])
def test_the_single_step_of_a_subclass_runs_in_multi_step_mode_too(cls, store):
    class Halved(cls):
        def single_step_forward(self, x):
            return super().single_step_forward(x / 2)

    x_seq = torch.rand(5, 2, 3) * 8
    found, expected = (c(2.0, step_mode="m", store_v_seq=store) for c in (Halved, cls))
    assert torch.equal(found(x_seq), expected(x_seq / 2))
    assert torch.equal(found.v, expected.v)
    if store:
        assert torch.equal(found.v_seq, expected.v_seq)


@functional_design
@pytest.mark.parametrize("store", [False, True])
def test_the_transition_of_a_subclass_runs_in_multi_step_mode_too(cls, store):
    class Halved(cls):
        def single_step_functional_forward(self, inputs, states, **kwargs):
            return super().single_step_functional_forward((inputs[0] / 2,), states, **kwargs)

    x_seq = torch.rand(5, 2, 3) * 8
    found, expected = (c(2.0, step_mode="m", store_v_seq=store) for c in (Halved, cls))
    assert torch.equal(found(x_seq), expected(x_seq / 2))
    if store:
        assert torch.equal(found.v_seq, expected.v_seq)
    (y_seq,), _ = Halved(2.0).multi_step_functional_forward((x_seq,), (torch.zeros(2, 3),))
    assert torch.equal(y_seq, expected.__class__(2.0, step_mode="m")(x_seq / 2))


# --- constructors as generous as the native one's -----------------------------------------------------------

GENEROUS = {
    "an array": np.full(3, 2.0, np.float32),
    "a list": [2.0] * 3,
    "a NumPy number": np.float32(2.0),
    "an array of no dimension": np.array(2.0),
    "a whole number": np.int64(2),
    "a tensor of no dimension": torch.tensor(2),
}


@pytest.mark.parametrize("kind", GENEROUS)
def test_tau_and_v_threshold_are_numbers_of_any_kind(cls, kind):
    x_seq, value = torch.rand(5, 2, 3) * 4, GENEROUS[kind]
    own = {"amplitude": value} if cls is SoftResetMPRNode else {}
    ours, expected = (
        cls(value, v_threshold=value, **own),
        cls(2.0, v_threshold=2.0, **{name: 2.0 for name in own}),
    )
    for node_ in (ours, expected):
        node_.step_mode = "m"
    assert torch.equal(ours(x_seq), expected(x_seq))
    assert torch.equal(ours.v, expected.v)
    learned = cls(value, v_threshold=value, learn_tau=True, learn_threshold=True)
    assert all(p.is_floating_point() for p in learned.parameters())


@pytest.mark.parametrize("v_reset", [0, np.float32(0), np.array(0.0), torch.tensor(0.0), Fraction(0)])
def test_v_reset_is_a_number_of_any_kind(cls, v_reset):
    assert type(cls(v_reset=v_reset).v_reset) is float


def test_whole_numbers_come_in_as_natively_and_truth_values_do_not(cls):
    spikes = torch.randint(2, (4, 2, 3))
    for mode in ("s", "m"):
        native, ours = neuron.LIFNode(step_mode=mode), cls(2.0, step_mode=mode)
        assert ours(spikes).dtype == ours.v.dtype == native(spikes).dtype == torch.float32
        expected = cls(2.0, step_mode=mode)
        assert torch.equal(ours(spikes), [expected(spikes.float()), expected(spikes.float())][1])
        with pytest.raises(NotImplementedError):
            neuron.LIFNode(step_mode=mode)(spikes.bool())
        with pytest.raises(TypeError, match="must be floating point, got torch.bool"):
            ours(spikes.bool())


@pytest.mark.parametrize("v_threshold", [0.0, -0.5, 1e-5, float("inf"), [1.0, -1.0, 0.0]])
@pytest.mark.parametrize("learn", [False, True])
def test_a_burst_threshold_left_out_fits_every_threshold(v_threshold, learn):
    x_seq = torch.randn(6, 2, 3)
    options = {"burst_intensity": 1.0, "learn_burst_threshold": learn, "step_mode": "m"}
    spikes = LIFBNode(2.0, v_threshold=v_threshold, **options)(x_seq)
    expected = SoftResetMPRNode(
        2.0,
        True,
        v_threshold,
        0.0,
        surrogate_function=surrogate.Sigmoid(),
        step_mode="m",
        amplitude=1.0,
    )(x_seq)
    assert torch.equal(spikes, expected)  # the vanilla neuron, which has one threshold
    assert LIFBNode(v_threshold=0.75).burst_threshold == 1.5


OWN_FLAGS = {
    VSNNode: (),
    LIFBNode: ("learn_burst_threshold", "learn_burst_intensity"),
    SoftResetMPRNode: ("mpr",),
}


def test_flags_are_true_or_false(cls):
    flags = ("decay_input", "detach_reset", "store_v_seq", "learn_tau", "learn_threshold", *OWN_FLAGS[cls])
    for name in flags:
        for wrong in (2, None, "yes", torch.tensor(True)):
            with pytest.raises(TypeError, match=f"{name} must be True or False"):
                cls(2.0, **{name: wrong})
        for good in (np.bool_(True), 1):
            cls(2.0, **{name: good})(torch.rand(2, 3))


def test_flags_set_afterwards_reach_no_kernel_as_another_number(cls):
    x_seq = torch.rand(4, 2, 3, requires_grad=True)
    for value, same in ((2, True), (None, False)):
        ours, expected = cls(2.0, step_mode="m"), cls(2.0, step_mode="m", detach_reset=same)
        ours.detach_reset = value
        grads = [torch.autograd.grad((n(x_seq).sum() + n.v.sum()), x_seq)[0] for n in (ours, expected)]
        assert torch.equal(*grads)
    if cls is SoftResetMPRNode:
        ours.mpr = 2
        with pytest.raises(TypeError, match="mpr must be True or False, got 2"):
            ours(x_seq)


def test_a_surrogate_that_has_yet_to_be_called_is_named(cls):
    for wrong in (surrogate.ATan, surrogate.Sigmoid, ATan):
        with pytest.raises(
            TypeError, match=f"surrogate_function must be an instance, got the class {wrong.__name__}"
        ):
            cls(surrogate_function=wrong)
    with pytest.raises(TypeError, match="surrogate_function must return spikes, but .* call it first"):
        cls(surrogate_function=lambda alpha=2.0: surrogate.ATan())
    with pytest.raises(TypeError, match="surrogate_function failed on torch.zeros"):
        cls(surrogate_function=surrogate.atan_backward)


# --- bad input --------------------------------------------------------------------------------------------

NAN, INF = float("nan"), float("inf")
BAD = [
    ({"tau": 0.5}, ValueError, r"tau=0\.5 is outside \[1, inf\]"),
    ({"tau": NAN}, ValueError, "tau is NaN"),
    ({"tau": "2"}, TypeError, "tau must be a number"),
    ({"tau": 1.0, "learn_tau": True}, ValueError, "tau=1 is outside .*strictly above 1"),
    ({"tau": INF, "learn_tau": True}, ValueError, "tau=inf is outside .*finite"),
    ({"tau": INF, "decay_input": True}, ValueError, "tau=inf with decay_input=True .*set decay_input=False"),
    ({"tau": torch.tensor([2.0, INF]), "decay_input": True}, ValueError, "tau=inf with decay_input=True"),
    ({"v_threshold": NAN}, ValueError, "v_threshold is NaN"),
    ({"v_threshold": torch.tensor([NAN])}, ValueError, "v_threshold contains NaN"),
    ({"surrogate_function": 3}, TypeError, "surrogate_function must be callable, got int"),
    ({"surrogate_function": surrogate.ATan}, TypeError, "surrogate_function must be an instance"),
    ({"tau": torch.empty(0)}, ValueError, "tau is empty"),
]
BAD_V_RESET = [
    ({"v_reset": NAN}, ValueError, "v_reset=nan must be finite, or None for a soft reset"),
    ({"v_reset": "0"}, TypeError, "v_reset must be a number or None, got str"),
    ({"v_reset": torch.zeros(3)}, TypeError, "v_reset must be a number or None, got Tensor"),
]
BAD_OWN = {
    VSNNode: [
        ({"v_reset": None}, ValueError, "v_reset=None: a VSN resets to zero"),
        ({"v_reset": -0.5}, ValueError, r"v_reset=-0\.5"),
        ({"activation": torch.cos}, ValueError, r"act\(0\)"),
    ],
    LIFBNode: [
        *BAD_V_RESET,
        ({"burst_threshold": 1.0}, ValueError, "burst_threshold=1 must be above v_threshold=1; raise it"),
        (
            {"v_threshold": torch.tensor([1.0, 2.0]), "burst_threshold": torch.tensor([1.5, 1.75])},
            ValueError,
            r"burst_threshold=1\.75 must be above v_threshold=2",
        ),
        (
            {"v_threshold": torch.ones(3), "burst_threshold": torch.ones(2) * 2},
            ValueError,
            r"burst_threshold of shape \(2,\) and v_threshold of shape \(3,\) do not broadcast",
        ),
        ({"burst_threshold": NAN}, ValueError, "burst_threshold is NaN"),
        ({"burst_intensity": 0.5}, ValueError, r"burst_intensity=0\.5 is outside \[1, inf\]; a burst is"),
        ({"burst_intensity": INF}, ValueError, "burst_intensity=inf"),
        ({"burst_intensity": "2"}, TypeError, "burst_intensity must be a number or a torch.Tensor, got str"),
        (
            {"burst_intensity": 1.0, "learn_burst_intensity": True},
            ValueError,
            "burst_intensity=1 must be above 1",
        ),
        (
            {"burst_threshold": 1.0005, "learn_burst_threshold": True},
            ValueError,
            r"burst_threshold=1\.0005 must be above v_threshold \+ 0\.000976562",
        ),
    ],
    SoftResetMPRNode: [
        *BAD_V_RESET,
        ({"decay_input": True}, ValueError, "tau=inf with decay_input=True would divide the input by inf"),
        ({"learn_tau": True}, ValueError, "tau=inf is outside .*finite"),
        ({"amplitude": 0.0}, ValueError, "amplitude=0 must be positive.*; a spike carries something"),
        ({"amplitude": torch.tensor([1.0, -2.0])}, ValueError, "amplitude=-2 must be positive"),
        ({"amplitude": INF}, ValueError, "amplitude=inf"),
        ({"amplitude": NAN}, ValueError, "amplitude is NaN"),
    ],
}


@pytest.mark.parametrize(
    ("cls", "arguments", "error", "message"),
    [(cls, *bad) for cls in NEURONS for bad in (*BAD, *BAD_OWN[cls])],
)
def test_a_bad_argument_is_named(cls, arguments, error, message):
    with pytest.raises(error, match=message):
        cls(**arguments)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(0, 2, 3), ValueError, "at least one time step"),
        (torch.zeros(4, 2, 3, dtype=torch.bool), TypeError, "floating point"),
        (3.0, TypeError, r"x_seq must be a torch\.Tensor, got float"),
    ],
)
def test_bad_input_leaves_the_state_alone(cls, x, error, message):
    ours = node(cls, step_mode="m")
    ours(torch.randn(4, 2, 3))
    before = ours.v
    with pytest.raises(error, match=message):
        ours(x)
    assert ours.v is before


def test_errors_of_the_dynamics_use_the_names_of_this_face(cls):
    with pytest.raises(ValueError, match=r"tau has shape \(3,\), which does not broadcast"):
        cls(torch.full((3,), 2.0))(torch.zeros(2, 5))
    with pytest.raises(ValueError, match="v_threshold is on meta but the input is on cpu"):
        cls(v_threshold=torch.ones(3, device="meta"))(torch.zeros(2, 3))


@backend_design
def test_backend_cannot_be_given_twice(cls):
    assert "backend" in inspect.signature(cls.__init__).parameters
    with pytest.raises(TypeError, match="multiple values for argument 'backend'"):
        cls(2.0, True, 1.0, 0.0, None, False, "m", "torch", backend="torch")


@pytest.mark.parametrize(
    ("cls", "name"),
    [(LIFBNode, "burst_threshold"), (LIFBNode, "burst_intensity"), (SoftResetMPRNode, "amplitude")],
)
def test_a_parameter_that_does_not_fit_the_input_is_named_and_leaves_the_state_alone(cls, name):
    ours = cls(**{name: torch.rand(3) + 1.5})
    before = ours.v
    with pytest.raises(ValueError, match=rf"{name} has shape \(3,\), which does not broadcast"):
        ours(torch.rand(2, 5))
    assert ours.v is before
