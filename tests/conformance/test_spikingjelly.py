"""What SpikingJelly asks of its own neurons, asked of ours, in either generation."""

import copy
import inspect
import pickle

import pytest
import torch
from torch import nn

pytest.importorskip("spikingjelly", reason="SpikingJelly is not installed")

from spikingjelly.activation_based import base, functional, layer, monitor, neuron, surrogate
from spikingjelly.activation_based.model import spiking_vgg

import snn_ext.functional as F
from snn_ext import surrogate as ours
from snn_ext.spikingjelly import VSNNode
from snn_ext.spikingjelly._compat import FUNCTIONAL, HAS_BACKEND, as_surrogate

functional_design = pytest.mark.skipif(
    not FUNCTIONAL, reason="this SpikingJelly has no functional transitions"
)
backend_design = pytest.mark.skipif(not HAS_BACKEND, reason="this SpikingJelly has no backend")

OPTIONS = [
    {},
    {"decay_input": False},
    {"detach_reset": True, "activation": "gelu"},
    {"tau": 3.0, "learn_tau": True, "learn_threshold": True},
    {"tau": torch.tensor([1.0, 2.0, 4.0]), "v_threshold": torch.tensor([0.1, 0.2, 0.3])},
    {"surrogate_function": surrogate.SoftSign(), "learn_threshold": True},
    {"activation": torch.sin},
]


def node(**options):
    return VSNNode(**{"v_threshold": 0.3, **options})


# --- dynamics -------------------------------------------------------------------------------------


def test_arguments_of_lifnode_come_first_and_in_order():
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
    vsn = VSNNode(*(values[name] for name in native))
    for name in native:
        assert getattr(vsn, name) == values[name]


@pytest.mark.parametrize("decay_input", [True, False])
def test_potential_and_events_are_those_of_a_native_lif(decay_input):
    x_seq = torch.randn(30, 4, 5)
    native = neuron.LIFNode(tau=2.0, decay_input=decay_input, v_threshold=0.4, step_mode="s")
    vsn = VSNNode(tau=2.0, decay_input=decay_input, v_threshold=0.4)
    for x in x_seq:
        assert torch.equal(vsn(x), native(x) * x)
        torch.testing.assert_close(vsn.v, native.v)


@pytest.mark.parametrize("options", OPTIONS)
def test_multi_step_equals_single_steps_in_values_and_gradients(options):
    x_seq = torch.randn(7, 4, 3)
    outcomes = []
    for mode in "sm":
        torch.manual_seed(1)
        vsn = node(**options, step_mode=mode)
        x = x_seq.clone().requires_grad_()
        y = vsn(x) if mode == "m" else torch.stack([vsn(step) for step in x])
        grads = torch.autograd.grad(y.sum() + vsn.v.sum(), (x, *vsn.parameters()))
        outcomes.append((y.detach(), vsn.v.detach(), grads))
    torch.testing.assert_close(*outcomes)


def test_gradients_are_those_of_the_core():
    vsn = node(tau=4.0, learn_tau=True, learn_threshold=True, step_mode="m")
    x_seq = torch.randn(8, 3)
    ours_ = torch.autograd.grad(vsn(x_seq).sum() + vsn.v.sum(), (vsn.w, vsn.v_threshold))
    w = vsn.w.detach().clone().requires_grad_()
    threshold = torch.tensor(0.3, requires_grad=True)
    rate = 1 / (1 + torch.exp(-w))
    y_seq, v = F.vsn(x_seq, decay=1 - rate, gain=rate, threshold=threshold, surrogate=ours.Sigmoid(4.0))
    expected = torch.autograd.grad(y_seq.sum() + v.sum(), (w, threshold))
    torch.testing.assert_close(ours_, expected)


def test_a_learned_tau_is_parametrised_as_natively():
    assert node(tau=3.0, learn_tau=True).w.item() == pytest.approx(neuron.ParametricLIFNode(3.0).w.item())


def test_firing_is_at_or_above_threshold():
    assert VSNNode(decay_input=False)(torch.ones(1)).item() == 1


@pytest.mark.parametrize("size", [(3, 5, 5), (3, 1, 1)])
def test_parameters_per_neuron_and_per_channel(size):
    tau, threshold = 1 + torch.rand(size), torch.rand(size)
    vsn = VSNNode(tau, v_threshold=threshold, learn_tau=True, learn_threshold=True, step_mode="m")
    vsn(torch.randn(4, 2, 3, 5, 5)).sum().backward()
    assert vsn.w.grad.shape == vsn.v_threshold.grad.shape == size


# --- surrogates ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ATan", "Sigmoid", "PiecewiseQuadratic", "Rect"])
@pytest.mark.parametrize("alpha", [0.7, 2.0])
def test_a_recognised_surrogate_has_the_native_gradient(name, alpha):
    if not hasattr(surrogate, name):
        pytest.skip(f"this SpikingJelly has no {name}")
    native = getattr(surrogate, name)(alpha)
    fused = as_surrogate(native)
    assert isinstance(fused, ours.Surrogate)
    u = torch.linspace(-3, 3, 300).requires_grad_()
    grads = [torch.autograd.grad(f(u).sum(), u)[0] for f in (native, fused)]
    torch.testing.assert_close(*grads)


def test_a_soft_surrogate_stays_soft():
    soft = surrogate.ATan(spiking=False)
    assert as_surrogate(soft) is soft
    y = VSNNode(decay_input=False, surrogate_function=soft)(torch.ones(1))
    assert y.item() == 0.5


def test_our_surrogates_work_on_our_and_on_native_neurons():
    x = torch.randn(20, requires_grad=True)
    for cls in (VSNNode, neuron.LIFNode):
        grads = []
        for spike in (surrogate.ATan(3.0), ours.ATan(3.0)):
            y = cls(surrogate_function=spike)(x)
            grads.append((y.detach(), torch.autograd.grad(y.sum(), x)[0]))
        torch.testing.assert_close(*grads)


# --- state -----------------------------------------------------------------------------------------


def network():
    return nn.Sequential(
        layer.Linear(4, 6), node(decay_input=False, learn_tau=True), layer.Linear(6, 3), neuron.LIFNode()
    )


def test_reset_net_and_detach_net():
    net = network()
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


def test_step_mode_can_be_switched_in_the_middle_of_a_sequence():
    x_seq = torch.randn(6, 2, 3)
    whole = node(step_mode="m")(x_seq)
    vsn = node(step_mode="m")
    parts = [vsn(x_seq[:3])]
    functional.set_step_mode(vsn, "s")
    parts.append(torch.stack([vsn(x) for x in x_seq[3:]]))
    assert torch.equal(torch.cat(parts), whole)


def test_an_unknown_step_mode_is_refused_natively():
    with pytest.raises(ValueError, match="step_mode can only be"):
        node(step_mode="x")


def test_memories_are_native_and_stay_out_of_the_state_dict():
    vsn = node(learn_tau=True)
    vsn(torch.randn(2, 3))
    assert next(iter(dict(vsn.named_memories()))) == "v"
    assert set(vsn.state_dict()) == {"w"}


def test_a_number_put_into_the_memory_is_where_the_potential_starts():
    for cls in (VSNNode, neuron.LIFNode):
        start = cls(decay_input=False, v_threshold=9.0)
        start.v = 4.0
        start(torch.ones(2))
        assert start.v.tolist() == [3.0, 3.0]


def test_a_neuron_prints_its_settings():
    text = repr(VSNNode(tau=3.0, v_threshold=torch.rand(4), learn_tau=True))
    assert "tau=3" in text
    assert "v_threshold=tensor of shape (4,)" in text
    assert "activation='identity'" in text
    assert "tensor of shape" in repr(VSNNode(v_threshold=torch.tensor(0.5)).to("meta"))


@pytest.mark.parametrize("mode", ["m", "s"])
def test_store_v_seq_keeps_the_potential_after_the_reset(mode):
    if mode == "s" and not FUNCTIONAL:
        pytest.skip("this SpikingJelly stores sequences in multi-step mode only")
    x_seq = torch.randn(6, 2, 3)
    vsn = node(step_mode=mode, store_v_seq=True, decay_input=False)
    _ = vsn(x_seq) if mode == "m" else [vsn(x) for x in x_seq]
    *_, v_seq = F.vsn(x_seq, decay=0.5, threshold=0.3, return_v_seq=True)
    assert torch.equal(vsn.v_seq, v_seq)
    assert torch.equal(vsn.v, v_seq[-1])
    functional.reset_net(vsn)
    assert vsn.v_seq is None


def test_monitors_see_outputs_and_potentials():
    net = network()
    functional.set_step_mode(net, "m")
    net[1].store_v_seq = True
    outputs = monitor.OutputMonitor(net, VSNNode)
    potentials = monitor.AttributeMonitor("v_seq", False, net, VSNNode)
    gradients = monitor.GradOutputMonitor(net, VSNNode)
    net(torch.randn(5, 2, 4)).sum().backward()
    assert outputs.records[0].shape == potentials.records[0].shape == gradients.records[0].shape == (5, 2, 6)
    assert outputs.monitored_layers == ["1"]


def test_another_batch_shape_behaves_as_this_generation_does():
    vsn = node(step_mode="m")
    vsn(torch.randn(4, 2, 3))
    before = vsn.v
    if FUNCTIONAL:
        assert vsn(torch.randn(4, 5, 3)).shape == (4, 5, 3)
    else:
        with pytest.raises(
            ValueError, match=r"potential of shape \(2, 3\).*\(5, 3\); call functional\.reset_net"
        ):
            vsn(torch.randn(4, 5, 3))
        assert vsn.v is before


def test_truncated_backpropagation_in_chunks_equals_the_whole_forward():
    x_seq = torch.randn(8, 2, 4)
    net = network()
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


def test_training_goes_on_from_a_state_left_by_inference_mode():
    vsn = node(learn_tau=True)
    with torch.inference_mode():
        vsn(torch.rand(2, 3))
    vsn(torch.rand(2, 3)).sum().backward()
    assert vsn.w.grad.isfinite()


def test_the_input_can_be_passed_by_name():
    assert node()(x=torch.ones(2)).shape == (2,)
    assert node(step_mode="m")(x_seq=torch.ones(3, 2)).shape == (3, 2)


# --- the two designs -----------------------------------------------------------------------------------


@functional_design
@pytest.mark.parametrize("mode", ["s", "m"])
def test_functional_forward_is_pure_and_equals_the_regular_one(mode):
    vsn = node(step_mode=mode)
    x = torch.randn(5, 2, 3) if mode == "m" else torch.randn(2, 3)
    state = torch.randn(2, 3)
    kept = state.clone()
    (y,), (v,) = base.to_functional_forward(vsn)((x,), (state,))
    assert vsn.v == 0.0
    assert torch.equal(state, kept)
    vsn.v = state
    assert torch.equal(vsn(x), y)
    assert torch.equal(vsn.v, v)


@functional_design
def test_a_subclass_with_a_sequence_implementation_of_its_own_is_heard():
    class Doubled(VSNNode):
        def multi_step_functional_forward(self, inputs, states, **kwargs):
            (y,), states = super().multi_step_functional_forward(inputs, states, **kwargs)
            return (2 * y,), states

    x_seq = torch.randn(4, 3)
    assert torch.equal(Doubled(step_mode="m")(x_seq), 2 * VSNNode(step_mode="m")(x_seq))


@functional_design
def test_functional_forward_of_a_network_matches():
    net = network()
    functional.set_step_mode(net, "m")
    x_seq = torch.randn(5, 2, 4)
    (y,), _states = base.to_functional_forward(net)((x_seq,), (0.0, 0.0))
    assert torch.equal(y, net(x_seq))


@functional_design
def test_materialised_states_are_float32_for_half_input():
    x = torch.randn(2, 3).bfloat16()
    (v,) = node().materialize_states((x,), (0.0,), "s")
    assert v.dtype == torch.float32
    assert v.shape == x.shape
    kept = torch.randn(2, 3)
    assert node().materialize_states((x,), (kept,), "s")[0] is kept


@functional_design
def test_backend_is_refused_where_the_framework_has_none():
    with pytest.raises(TypeError, match="backend"):
        VSNNode(backend="torch")


@backend_design
def test_backend_stands_where_lifnode_has_it():
    vsn = VSNNode(2.0, True, 1.0, 0.0, None, False, "m", "torch", True)
    assert (vsn.backend, vsn.store_v_seq, vsn.step_mode) == ("torch", True, "m")
    assert vsn.supported_backends == ("torch",)


@backend_design
def test_a_backend_that_is_not_there_is_refused_in_the_native_words():
    with pytest.raises(NotImplementedError, match="cupy is not a supported backend of VSNNode"):
        VSNNode(step_mode="m", backend="cupy")


@backend_design
def test_eval_mode_runs_our_dynamics():
    x_seq = torch.randn(6, 2, 3)
    vsn = node(step_mode="m")
    trained = vsn(x_seq)
    functional.reset_net(vsn)
    assert torch.equal(vsn.eval()(x_seq), trained)


# --- persistence, devices, dtypes, compilation ----------------------------------------------------------


@pytest.mark.parametrize("options", OPTIONS)
def test_state_dict_round_trip(options):
    vsn, twin = node(**options), node(**options)
    with torch.no_grad():
        for parameter in vsn.parameters():
            parameter.add_(0.1)
    twin.load_state_dict(vsn.state_dict())
    x = torch.randn(4, 3)
    assert torch.equal(twin(x), vsn(x))


@pytest.mark.parametrize("options", [o for o in OPTIONS if o.get("activation") is not torch.sin])
def test_copies_and_pickles_with_a_live_graph(options):
    vsn = node(**options, step_mode="m", store_v_seq=True)
    vsn(torch.randn(5, 2, 3, requires_grad=True))
    assert vsn.v.requires_grad
    for twin in (copy.deepcopy(vsn), pickle.loads(pickle.dumps(vsn))):
        assert torch.equal(twin.v, vsn.v)
        assert not twin.v.requires_grad
        assert torch.equal(twin.v_seq, vsn.v_seq)
        functional.reset_net(twin)
        x_seq = torch.randn(5, 2, 3)
        fresh = node(**options, step_mode="m")
        assert torch.equal(twin(x_seq), fresh(x_seq))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_moves_to_another_dtype(dtype):
    vsn = node(learn_tau=True, step_mode="m").to(dtype)
    y = vsn(torch.randn(4, 2, 3, dtype=dtype))
    assert y.dtype == dtype
    assert vsn.v.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    vsn(torch.randn(4, 2, 3, dtype=dtype))


def test_moves_to_another_device():
    vsn = node(tau=torch.rand(3) + 1, learn_threshold=True, step_mode="m").to("meta")
    assert vsn(torch.randn(4, 2, 3, device="meta")).device.type == "meta"
    assert vsn.v.device.type == "meta"


def test_autocast_trains():
    net = network()
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
@pytest.mark.parametrize("mode", ["s", "m"])
def test_compiles_to_one_graph_and_agrees(mode, compile_backend):
    net = network()
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


def test_settings_that_differ_between_layers_do_not_break_the_graph():
    net = nn.Sequential(*(VSNNode(tau=2.0 + i, v_threshold=0.1 + 0.1 * i, step_mode="m") for i in range(4)))
    x_seq = torch.rand(4, 3)
    expected = net(x_seq)
    functional.reset_net(net)
    assert torch.equal(torch.compile(net, fullgraph=True, backend="aot_eager")(x_seq), expected)


# --- the model zoo, exchange -----------------------------------------------------------------------------


def test_a_network_of_the_model_zoo_trains_one_step():
    net = spiking_vgg.spiking_vgg11_bn(
        spiking_neuron=VSNNode,
        num_classes=10,
        surrogate_function=surrogate.ATan(),
        detach_reset=True,
        tau=2.0,
    )
    functional.set_step_mode(net, "m")
    assert sum(isinstance(m, VSNNode) for m in net.modules()) >= 8
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    before = net.features[0].weight.detach().clone()
    y_seq = net(torch.rand(2, 2, 3, 32, 32))
    nn.functional.cross_entropy(y_seq.mean(0), torch.tensor([1, 2])).backward()
    optimizer.step()
    assert y_seq.shape == (2, 2, 10)
    assert not torch.equal(net.features[0].weight, before)
    functional.reset_net(net)


@pytest.mark.parametrize("mode", ["s", "m"])
def test_nir_export_refuses_with_a_clear_line(mode):
    nir_exchange = pytest.importorskip(
        "spikingjelly.activation_based.nir_exchange", reason="this SpikingJelly has no NIR exchange"
    )
    net = network()
    functional.set_step_mode(net, mode)
    x = torch.rand(5, 1, 4) if mode == "m" else torch.rand(1, 4)
    with pytest.raises(
        NotImplementedError, match="VSNNode cannot be exported to NIR, which has no node for graded"
    ):
        nir_exchange.export_to_nir(net, x)


# --- bad input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"tau": 0.5}, ValueError, r"tau=0\.5 is outside \[1, inf\]"),
        ({"tau": float("nan")}, ValueError, "tau is NaN"),
        ({"tau": "2"}, TypeError, "tau must be a number"),
        ({"tau": 1.0, "learn_tau": True}, ValueError, "tau=1 is outside .*strictly above 1"),
        ({"v_threshold": float("nan")}, ValueError, "v_threshold is NaN"),
        ({"v_threshold": torch.tensor([float("nan")])}, ValueError, "v_threshold contains NaN"),
        ({"v_reset": None}, ValueError, "v_reset=None: a VSN resets to zero"),
        ({"v_reset": -0.5}, ValueError, r"v_reset=-0\.5"),
        ({"surrogate_function": 3}, TypeError, "surrogate_function must be callable, got int"),
        ({"surrogate_function": surrogate.ATan}, TypeError, "surrogate_function must be an instance"),
        ({"tau": torch.empty(0)}, ValueError, "tau is empty"),
        ({"activation": torch.cos}, ValueError, r"act\(0\)"),
    ],
)
def test_a_bad_argument_is_named(arguments, error, message):
    with pytest.raises(error, match=message):
        VSNNode(**arguments)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(0, 2, 3), ValueError, "at least one time step"),
        (torch.zeros(4, 2, 3, dtype=torch.int64), TypeError, "floating point"),
        (3.0, TypeError, r"x_seq must be a torch\.Tensor, got float"),
    ],
)
def test_bad_input_leaves_the_state_alone(x, error, message):
    vsn = node(step_mode="m")
    vsn(torch.randn(4, 2, 3))
    before = vsn.v
    with pytest.raises(error, match=message):
        vsn(x)
    assert vsn.v is before


def test_errors_of_the_dynamics_use_the_names_of_this_face():
    with pytest.raises(ValueError, match=r"tau has shape \(3,\), which does not broadcast"):
        VSNNode(torch.full((3,), 2.0))(torch.zeros(2, 5))
    with pytest.raises(ValueError, match="v_threshold is on meta but the input is on cpu"):
        VSNNode(v_threshold=torch.ones(3, device="meta"))(torch.zeros(2, 3))


@backend_design
def test_backend_cannot_be_given_twice():
    assert "backend" in inspect.signature(VSNNode.__init__).parameters
    with pytest.raises(TypeError, match="multiple values for argument 'backend'"):
        VSNNode(2.0, True, 1.0, 0.0, None, False, "m", "torch", backend="torch")
