"""What snnTorch asks of its own neurons, asked of ours: state, utilities, training, persistence."""

import copy
import gc
import inspect
import pickle
import warnings

import pytest
import torch
from torch import nn

snn = pytest.importorskip("snntorch", reason="snnTorch is not installed")

from snntorch import functional as SF  # noqa: E402
from snntorch import surrogate, utils  # noqa: E402
from snntorch.functional import quant  # noqa: E402

import snn_ext.functional as F  # noqa: E402
import snn_ext.snntorch as ext  # noqa: E402
from snn_ext.surrogate import ATan, FastSigmoid, Sigmoid  # noqa: E402

VSN = ext.VSN


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


def test_arguments_of_leaky_come_first_and_in_order():
    ours = list(inspect.signature(VSN.__init__).parameters)
    native = list(inspect.signature(snn.Leaky.__init__).parameters)
    assert ours[: len(native)] == native


@pytest.mark.parametrize("reset_delay", [True, False])
def test_potential_and_events_are_those_of_a_native_leaky_that_resets_to_zero(reset_delay):
    x_seq = torch.randn(40, 6, 5)
    native = snn.Leaky(0.8, 0.4, reset_mechanism="zero", reset_delay=reset_delay)
    ours = VSN(0.8, 0.4, reset_delay=reset_delay)
    mem, native_mem = ours.reset_mem(), native.reset_mem()
    for x in x_seq:
        y, mem = ours(x, mem)
        spk, native_mem = native(x, native_mem)
        assert torch.equal(y, spk * x)
        torch.testing.assert_close(mem, native_mem)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reset_delay": False},
        {"inhibition": True},
        {"activation": "gelu"},
        {"graded_spikes_factor": 0.3},
        {"activation": torch.sin},
        {"state_quant": quant.state_quant(num_bits=5, threshold=1.0)},
        {"spike_grad": surrogate.triangular()},
    ],
)
def test_multi_step_equals_the_loop(options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        vsn = VSN(torch.rand(7), 0.3, learn_beta=True, learn_threshold=True, **options)
    x_seq = torch.randn(9, 4, 7)
    loop, mem = stepped(vsn, x_seq, torch.zeros(4, 7))
    fused, mem_fused = vsn.multi_step(x_seq, torch.zeros(4, 7))
    torch.testing.assert_close(loop, fused)
    torch.testing.assert_close(mem, mem_fused)
    grads = [
        torch.autograd.grad(y.sum() + m.sum(), vsn.parameters()) for y, m in ((loop, mem), (fused, mem_fused))
    ]
    torch.testing.assert_close(*grads)


def test_gradients_are_those_of_the_core_with_a_detached_reset():
    vsn = VSN(0.7, 0.3, learn_beta=True, learn_threshold=True)
    x_seq = torch.randn(8, 3)
    y_seq, mem = vsn.multi_step(x_seq)
    ours = torch.autograd.grad(y_seq.sum() + mem.sum(), (vsn.beta, vsn.threshold))
    leaves = [torch.tensor(0.7, requires_grad=True), torch.tensor(0.3, requires_grad=True)]
    y_seq, mem = F.vsn(
        x_seq, decay=leaves[0], threshold=leaves[1], strict=True, detach_reset=True, reset_delay=True
    )
    expected = torch.autograd.grad(y_seq.sum() + mem.sum(), leaves)
    torch.testing.assert_close(ours, expected)


def test_firing_is_strictly_above_threshold():
    assert VSN(0.5, 1.0)(torch.ones(1, 1))[0].item() == 0
    assert VSN(0.5, 1.0, spike_grad=ATan())(torch.ones(1, 1))[0].item() == 0


def test_inhibition_lets_only_the_highest_potential_emit():
    with pytest.warns(UserWarning, match="Inhibition"):
        vsn = VSN(0.9, 0.0, inhibition=True)
    x = torch.tensor([[0.2, 0.9, 0.4], [0.7, 0.1, 0.3]])
    assert torch.equal(vsn(x)[0], torch.tensor([[0, 0.9, 0], [0.7, 0, 0]]))
    image = torch.rand(2, 3, 4, 4) + 0.1
    assert ((vsn(image)[0] != 0).sum(1) == 1).all()


def test_inhibition_keeps_the_dtype_of_the_input():
    with pytest.warns(UserWarning, match="Inhibition"):
        vsn = VSN(0.9, 0.0, inhibition=True)
    assert vsn(torch.rand(2, 3, dtype=torch.bfloat16))[0].dtype == torch.bfloat16


def test_state_quant_shapes_potential_and_gate():
    levels = quant.state_quant(num_bits=2, threshold=1.0)
    vsn = VSN(0.9, 0.5, state_quant=levels)
    x = torch.rand(5, 6) * 2
    y, mem = vsn(x)
    assert torch.equal(mem, levels(x))
    assert torch.equal(y, x * (levels(x) > 0.5))


def test_a_learned_graded_spike_factor_scales_and_learns():
    vsn = VSN(0.9, 0.1, graded_spikes_factor=2.0, learn_graded_spikes_factor=True)
    x = torch.rand(3, 4) + 0.2
    y, _ = vsn(x)
    assert torch.equal(y, 2 * x)
    y.sum().backward()
    torch.testing.assert_close(vsn.graded_spikes_factor.grad, x.sum())


def test_beta_is_clamped_in_the_forward_pass_as_natively():
    vsn = VSN(0.9, learn_beta=True)
    with torch.no_grad():
        vsn.beta.fill_(1.7)
    mem = vsn(torch.zeros(1, 1), torch.tensor([[0.5]]))[1]
    assert mem.item() == 0.5


@pytest.mark.parametrize("per", ["neuron", "channel"])
def test_parameters_per_neuron_and_per_channel(per):
    size = (3, 5, 5) if per == "neuron" else (3, 1, 1)
    beta, threshold = torch.rand(size), torch.rand(size)
    vsn = VSN(beta, threshold, learn_beta=True, learn_threshold=True)
    x_seq = torch.randn(4, 2, 3, 5, 5)
    y_seq, _ = vsn.multi_step(x_seq)
    expected, _ = F.vsn(x_seq, decay=beta, threshold=threshold, strict=True)
    assert torch.equal(y_seq, expected)
    y_seq.sum().backward()
    assert vsn.beta.grad.shape == vsn.threshold.grad.shape == size


# --- surrogates ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        (None, ATan()),
        (surrogate.atan(3.0), ATan(3.0)),
        (surrogate.fast_sigmoid(10), FastSigmoid(10.0)),
        (surrogate.sigmoid(5), Sigmoid(5.0)),
        (FastSigmoid(7.0), FastSigmoid(7.0)),
    ],
)
def test_known_surrogates_become_their_picklable_equal(given, stored):
    assert VSN(0.5, spike_grad=given).spike_grad == stored.with_strict(True)


@pytest.mark.parametrize("closure", [surrogate.atan(3.0), surrogate.fast_sigmoid(10), surrogate.sigmoid(5)])
def test_a_recognised_surrogate_has_the_gradient_of_its_closure(closure):
    x_seq = torch.randn(6, 4)
    grads = []
    for spike_grad in (closure, lambda u: closure(u)):  # the second is not recognised
        vsn = VSN(0.8, 0.3, spike_grad=spike_grad, learn_threshold=True)
        y_seq, _ = vsn.multi_step(x_seq)
        grads.append((y_seq.detach(), torch.autograd.grad(y_seq.sum(), vsn.threshold)[0]))
    assert torch.equal(grads[0][0], grads[1][0])
    torch.testing.assert_close(grads[0][1], grads[1][1])


def test_a_closure_assigned_later_is_used():
    vsn = VSN(0.8, 0.3, learn_threshold=True)
    vsn.spike_grad = surrogate.fast_sigmoid(2)
    (ours,) = torch.autograd.grad(vsn(torch.ones(1, 2))[0].sum(), vsn.threshold)
    torch.testing.assert_close(ours, torch.tensor(-2 / (1 + 2 * 0.7) ** 2))


def test_surrogate_disable_stops_the_gradient_through_the_gate():
    vsn = VSN(0.8, 0.3, surrogate_disable=True, learn_threshold=True)
    x = torch.rand(2, 3, requires_grad=True)
    y, _ = vsn(x)
    y.sum().backward()
    assert torch.equal(x.grad, (x > 0.3).float())
    assert vsn.threshold.grad is None or not vsn.threshold.grad.any()


def test_fire_and_mem_reset_agree_with_the_gate():
    vsn = VSN(0.5, 0.4)
    mem = torch.tensor([[0.3, 0.4, 0.5]])
    assert vsn.fire(mem).tolist() == [[0, 0, 1]]
    assert vsn.mem_reset(mem).tolist() == [[0, 0, 1]]


# --- state -----------------------------------------------------------------------------------------


def mixed():
    return nn.Sequential(
        nn.Linear(4, 6),
        VSN(0.9, 0.1, init_hidden=True, learn_beta=True),
        nn.Linear(6, 3),
        snn.Leaky(0.9, init_hidden=True, output=True),
    )


def test_sequential_with_hidden_state_returns_what_the_last_native_layer_returns():
    spk, mem = mixed()(torch.randn(2, 4))
    assert spk.shape == mem.shape == (2, 3)


@pytest.mark.parametrize(("output", "returned"), [(False, 1), (True, 2)])
def test_return_counts(output, returned):
    vsn = VSN(0.9, init_hidden=True, output=output)
    for out in (vsn(torch.rand(2, 3)), vsn.multi_step(torch.rand(4, 2, 3))):
        assert (len(out) if isinstance(out, tuple) else 1) == returned
    net = nn.Sequential(nn.Linear(3, 3), VSN(0.9, init_hidden=True, output=True))
    assert utils._final_layer_check(net) == 2


def test_mem_with_init_hidden_is_a_type_error_and_changes_nothing():
    vsn = VSN(0.9, init_hidden=True)
    vsn(torch.rand(2, 3))
    before = vsn.mem.clone()
    for call in (vsn, lambda x, mem: vsn.multi_step(x[None], mem)):
        with pytest.raises(TypeError, match="`mem` should not be passed .* `init_hidden=True`"):
            call(torch.rand(2, 3), torch.rand(2, 3))
    assert torch.equal(vsn.mem, before)


def test_utils_reset_clears_and_detaches_nested_neurons_too():
    net = nn.Sequential(
        nn.Sequential(nn.Linear(4, 4), VSN(0.9, init_hidden=True)), snn.Leaky(0.9, init_hidden=True)
    )
    net(torch.rand(2, 4))
    assert net[0][1].mem.requires_grad
    utils.reset(net)
    assert not net[0][1].mem.any()
    assert not net[0][1].mem.requires_grad


def test_reset_reaches_any_depth_and_no_other_network():
    nested = nn.Sequential(nn.Sequential(nn.Linear(4, 4), VSN(0.9, init_hidden=True)))
    other = nn.Sequential(nn.Linear(4, 4), VSN(0.9, init_hidden=True))
    nested(torch.rand(2, 4)), other(torch.rand(2, 4))
    kept = other[1].mem
    ext.reset(nested)
    assert not nested[0][1].mem.any()
    assert not nested[0][1].mem.requires_grad
    assert other[1].mem is kept


def test_class_wide_detach_and_reset():
    vsn = VSN(0.9, init_hidden=True, learn_beta=True)
    vsn(torch.rand(2, 3)), vsn(torch.rand(2, 3))
    value = vsn.mem.detach().clone()
    snn.Leaky.detach_hidden()
    assert not vsn.mem.requires_grad
    assert torch.equal(vsn.mem, value)
    snn.Leaky.reset_hidden()
    assert not vsn.mem.any()


def test_a_new_batch_size_starts_anew_as_natively():
    vsn = VSN(0.9, 9.0, init_hidden=True)
    vsn(torch.ones(4, 3))
    vsn(torch.ones(2, 3))
    assert torch.equal(vsn.mem, torch.ones(2, 3))


def test_a_copy_is_reset_by_snntorch_too():
    net = nn.Sequential(nn.Linear(3, 3), VSN(0.9, 9.0, init_hidden=True))
    copies = [copy.deepcopy(net), pickle.loads(pickle.dumps(net))]
    for twin in copies:
        twin(torch.ones(2, 3))
        utils.reset(twin)
        assert not twin[1].mem.any()


def test_copies_are_freed_with_their_network():
    net = nn.Sequential(nn.Linear(3, 3), VSN(0.9, init_hidden=True))
    snapshots = [copy.deepcopy(net) for _ in range(3)]
    assert len(snn.SpikingNeuron.instances) == 4
    del snapshots
    gc.collect()
    assert len(snn.SpikingNeuron.instances) == 1
    utils.reset(net)


def test_training_goes_on_from_a_state_left_by_inference_mode():
    vsn = VSN(0.9, 0.1, init_hidden=True, learn_beta=True)
    with torch.inference_mode():
        vsn(torch.rand(2, 3))
    vsn(torch.rand(2, 3)).sum().backward()
    assert vsn.beta.grad.isfinite()


# --- training --------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", ["BPTT", "TBPTT"])
def test_truncated_backpropagation_through_time_trains(loop):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from snntorch import backprop
    net = nn.Sequential(
        nn.Flatten(),
        nn.Linear(8, 10),
        VSN(0.9, 0.1, init_hidden=True, learn_beta=True),
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


def test_membrane_loss_on_recorded_potentials_trains_what_comes_before():
    layer, vsn = nn.Linear(4, 3), VSN(0.9, 0.2)
    mems, mem = [], vsn.reset_mem()
    for x in torch.rand(5, 2, 4):
        _, mem = vsn(layer(x), mem)
        mems.append(mem)
    SF.ce_max_membrane_loss()(torch.stack(mems), torch.tensor([0, 2])).backward()
    assert layer.weight.grad.abs().sum() > 0


# --- persistence, devices, dtypes, compilation -------------------------------------------------------


def test_state_dict_round_trip_has_native_keys_and_no_state():
    vsn = VSN(torch.rand(5), torch.rand(5), learn_beta=True, learn_threshold=True)
    vsn(torch.rand(2, 5))
    native = snn.Leaky(
        torch.rand(5), torch.rand(5), learn_beta=True, learn_threshold=True, reset_mechanism="zero"
    )
    assert set(vsn.state_dict()) == set(native.state_dict())
    twin = VSN(torch.rand(5), torch.rand(5), learn_beta=True, learn_threshold=True)
    twin.load_state_dict(vsn.state_dict())
    x_seq = torch.randn(4, 2, 5)
    assert torch.equal(twin.multi_step(x_seq)[0], vsn.multi_step(x_seq, torch.zeros(0))[0])


@pytest.mark.parametrize("spike_grad", [None, surrogate.fast_sigmoid(), FastSigmoid()])
def test_copies_and_pickles_with_a_live_graph(spike_grad):
    vsn = VSN(0.9, 0.1, spike_grad=spike_grad, init_hidden=True, learn_beta=True, activation=nn.PReLU())
    vsn(torch.rand(2, 3))
    assert vsn.mem.requires_grad
    for twin in (copy.deepcopy(vsn), pickle.loads(pickle.dumps(vsn))):
        assert torch.equal(twin.mem, vsn.mem)
        x = torch.rand(2, 3)
        state = vsn.mem.detach()
        assert torch.equal(twin(x), vsn(x))
        vsn.mem = state


def test_activation_modules_are_trained_with_the_neuron():
    vsn = VSN(0.9, 0.1, activation=nn.PReLU())
    assert "activation.weight" in dict(vsn.named_parameters())
    assert VSN(0.9, activation=nn.GELU()).activation == "gelu"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_moves_to_another_dtype(dtype):
    vsn = VSN(torch.rand(3), 0.2, learn_beta=True).to(dtype)
    y, mem = vsn(torch.rand(2, 3, dtype=dtype))
    assert y.dtype == dtype
    assert mem.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    vsn(torch.rand(2, 3, dtype=dtype), mem)


def test_moves_to_another_device():
    vsn = VSN(torch.rand(3), 0.2, learn_beta=True).to("meta")
    assert {t.device.type for t in (*vsn.parameters(), *vsn.buffers())} == {"meta"}
    assert vsn(torch.rand(2, 3, device="meta"))[0].device.type == "meta"


def test_autocast_trains():
    net = nn.Sequential(nn.Linear(4, 6), VSN(0.9, 0.1, init_hidden=True), nn.Linear(6, 2))
    with torch.autocast("cpu", torch.bfloat16):
        loss = sum(net(torch.rand(3, 4)).float().square().sum() for _ in range(3))
    loss.backward()
    assert net[1].mem.dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_compiles_to_one_graph_and_agrees(compile_backend):
    net = mixed()
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
def test_an_unrecognised_closure_compiles_to_one_graph_too():
    vsn = VSN(0.9, 0.1, spike_grad=surrogate.triangular(), learn_threshold=True)
    x = torch.rand(2, 5)
    compiled = torch.compile(vsn, fullgraph=True, backend="aot_eager")
    grads = [
        torch.autograd.grad(run(x, torch.zeros(2, 5))[0].sum(), vsn.threshold)[0] for run in (compiled, vsn)
    ]
    torch.testing.assert_close(*grads)


def test_multi_step_compiles_to_one_graph(compile_backend):
    vsn = VSN(torch.rand(5), 0.2, learn_beta=True)
    x_seq = torch.randn(4, 2, 5)
    compiled = torch.compile(vsn.multi_step, fullgraph=True, backend=compile_backend)
    torch.testing.assert_close(compiled(x_seq, torch.zeros(2, 5)), vsn.multi_step(x_seq, torch.zeros(2, 5)))


# --- exchange --------------------------------------------------------------------------------------


def test_nir_export_refuses_and_never_writes_a_lif():
    pytest.importorskip("nirtorch")
    from snntorch.export_nir import export_to_nir

    net = nn.Sequential(nn.Linear(4, 3), VSN(0.9, init_hidden=True))
    with pytest.raises(
        NotImplementedError, match="VSN cannot be exported to NIR: NIR has no node for graded"
    ):
        export_to_nir(net, torch.rand(1, 4), ignore_dims=[0])
    nested = nn.Sequential(nn.Linear(4, 3), nn.Sequential(VSN(0.9, init_hidden=True)))
    with pytest.raises(NotImplementedError, match="graded"):
        export_to_nir(nested, torch.rand(1, 4), ignore_dims=[0])


def test_symbolic_tracing_is_refused_with_a_clear_line():
    net = nn.Sequential(nn.Linear(4, 3), VSN(0.9, init_hidden=True))
    with pytest.raises(NotImplementedError, match=r"VSN cannot be exported to NIR.*torch\.fx"):
        torch.fx.symbolic_trace(net)


def test_nir_export_of_native_networks_still_works():
    nir = pytest.importorskip("nir")
    from snntorch.export_nir import export_to_nir

    net = nn.Sequential(nn.Linear(4, 3), snn.Leaky(torch.full((3,), 0.9), torch.ones(3), init_hidden=True))
    graph = export_to_nir(net, torch.rand(4))
    assert any(isinstance(node, nir.LIF) for node in graph.nodes.values())


# --- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"beta": 1.2}, ValueError, r"beta=1\.2 is outside \[0, 1\]"),
        ({"beta": torch.tensor([0.5, -0.1])}, ValueError, r"beta=-0\.1 is outside"),
        ({"beta": float("nan")}, ValueError, "beta is NaN"),
        ({"beta": "0.9"}, TypeError, "beta must be a number or a torch.Tensor, got str"),
        ({"beta": torch.ones(2, dtype=torch.int64)}, TypeError, "beta must be floating point"),
        ({"threshold": float("nan")}, ValueError, "threshold is NaN"),
        ({"threshold": torch.tensor([1.0, float("nan")])}, ValueError, "threshold contains NaN"),
        ({"reset_mechanism": "subtract"}, ValueError, "reset_mechanism='subtract': a VSN resets to zero"),
        ({"reset_mechanism": "none"}, ValueError, "reset_mechanism='none'"),
        ({"activation": torch.cos}, ValueError, r"act\(0\)"),
        ({"activation": "elu"}, ValueError, "activation='elu' is not known"),
        ({"spike_grad": 3}, TypeError, "spike_grad must be callable, got int"),
        ({"spike_grad": surrogate.ATan}, TypeError, "spike_grad must be an instance, got the class ATan"),
        ({"state_quant": 4}, TypeError, "state_quant must be callable, got int"),
        ({"beta": torch.empty(0)}, ValueError, "beta is empty"),
        ({"beta": [0.5]}, TypeError, r"beta must be a number .* got list; convert it with torch\.as_tensor"),
        ({"inhibition": True, "reset_delay": False}, ValueError, "inhibition=True needs reset_delay=True"),
    ],
)
def test_a_bad_argument_is_named_and_registers_nothing(arguments, error, message):
    with pytest.raises(error, match=message):
        VSN(**{"beta": 0.9, **arguments})
    assert snn.SpikingNeuron.instances == []


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(0, 2, 3), ValueError, "at least one time step"),
        (torch.zeros(4, 2, 3, dtype=torch.int64), TypeError, "floating point"),
        (torch.zeros(4, 2, 5), ValueError, r"beta has shape \(3,\), which does not broadcast"),
        (torch.zeros(4, 2, 3, device="meta"), ValueError, "beta is on cpu but the input is on meta"),
        (3.0, TypeError, r"x_seq must be a torch\.Tensor, got float"),
    ],
)
def test_bad_input_leaves_the_state_alone(x, error, message):
    vsn = VSN(torch.rand(3), init_hidden=True)
    vsn(torch.rand(2, 3))
    before = vsn.mem
    with pytest.raises(error, match=message):
        vsn.multi_step(x)
    assert vsn.mem is before


def test_a_bad_graded_spikes_factor_leaves_the_state_alone():
    vsn = VSN(0.9, graded_spikes_factor=torch.rand(3), init_hidden=True)
    vsn(torch.rand(2, 3))
    before = vsn.mem
    with pytest.raises(ValueError, match=r"graded_spikes_factor has shape \(3,\), which does not broadcast"):
        vsn(torch.rand(2, 5))
    assert vsn.mem is before


def test_bad_states_and_shapes_are_named():
    with pytest.raises(TypeError, match=r"mem must be a torch\.Tensor, got float"):
        VSN(0.9)(torch.rand(2, 3), 0.0)
    with pytest.warns(UserWarning, match="Inhibition"):
        vsn = VSN(0.9, inhibition=True)
    with pytest.raises(ValueError, match="needs a batch and a neuron dimension for inhibition"):
        vsn(torch.rand(3))


def test_the_reset_mechanism_cannot_be_changed_afterwards():
    vsn = VSN(0.9)
    assert vsn.reset_mechanism == "zero"
    with pytest.raises(ValueError, match="reset_mechanism='subtract'"):
        vsn.reset_mechanism = "subtract"
