"""The functional neurons against the independent oracle: values, every gradient, every option; bad input."""

import math
from fractions import Fraction

import numpy as np
import oracle
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kernels import EQUATIONS, RANGES, every_equation
from specs import LIFB, SOFT_RESET_MPR, SPECS, VARIANTS, VSN, cases, evaluate, every_neuron, every_variant

import snn_ext.functional as F
from snn_ext.neurons.soft_reset_mpr import rectify
from snn_ext.surrogate import (
    MPR,
    ATan,
    FastSigmoid,
    Rectangular,
    Sigmoid,
    StraightThrough,
    Triangular,
)

either_way = pytest.mark.parametrize("spike", [ATan(), lambda u: ATan()(u)], ids=["operator", "callable"])


@every_neuron
@given(data=st.data())
def test_values_and_every_gradient_match_the_oracle(neuron, data):
    (outputs, grads, _), (expected, expected_grads, _) = evaluate(neuron, data.draw(cases(neuron)))
    for ours, theirs in zip((*outputs, *grads), (*expected, *expected_grads), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@every_neuron
@given(data=st.data())
def test_float32_agrees_unless_a_potential_stands_at_a_threshold(neuron, data):
    (outputs, _, _), (expected, _, (distances,)) = evaluate(neuron, data.draw(cases(neuron)), torch.float32)
    if distances.abs().min() > 1e-5:
        for ours, theirs in zip(outputs, expected, strict=True):
            torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)


@every_neuron
@given(data=st.data(), cut=st.integers(1, 6))
def test_a_sequence_in_chunks_equals_the_whole(neuron, data, cut):
    case = data.draw(cases(neuron))
    x_seq = torch.randn(case["steps"] + 1, *case["shape"], dtype=torch.float64)
    cut = min(cut, case["steps"])
    options = {**case["own"], **case["when"]}
    whole, v = neuron(x_seq, **options)
    first, between = neuron(x_seq[:cut], **options)
    second, last = neuron(x_seq[cut:], between, **options)
    assert torch.equal(torch.cat([first, second]), whole)
    assert torch.equal(last, v)


@every_variant
@pytest.mark.parametrize("reset_delay", [False, True])
def test_left_out_the_potential_starts_from_rest_where_no_reset_is_due(neuron, options, reset_delay):
    x_seq = torch.randn(5, 7, dtype=torch.float64)
    outcomes = []
    for v0, delay in ((None, reset_delay), (torch.zeros(7), False)):
        values = {name: torch.full((7,), value, dtype=torch.float64) for name, value in neuron.usual.items()}
        leaves = {name: value.requires_grad_() for name, value in {"x_seq": x_seq.clone(), **values}.items()}
        y_seq, _ = neuron(v0=v0, **leaves, **options, surrogate=ATan(), reset_delay=delay)
        outcomes.append((y_seq, torch.autograd.grad(y_seq.sum(), list(leaves.values()))))
    torch.testing.assert_close(*outcomes)


SOFT = [
    *(cls(spiking=False) for cls in (ATan, Sigmoid, Triangular, StraightThrough, MPR)),
    FastSigmoid(3.0, spiking=False),
    Rectangular(0.8, spiking=False),
]


@pytest.mark.parametrize("reset_delay", [False, True])
@pytest.mark.parametrize("soft", SOFT, ids=lambda soft: soft.name)
@pytest.mark.parametrize(
    ("neuron", "options"),
    [(n, options) for n, options in VARIANTS if options != {"activation": "relu"}],  # which has a kink
    ids=str,
)
def test_gradcheck_with_a_smooth_step(neuron, options, soft, reset_delay):
    sizes = [(3,), (), (2, 1), (2, 3), (1,)]
    leaves = [torch.randn(4, 2, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)]
    for size, (low, high) in zip(sizes, neuron.parameters.values(), strict=False):
        leaves.append(torch.rand(size, dtype=torch.float64) * (high - low) + low)

    def run(x_seq, v0, *parameters):
        named = dict(zip(neuron.parameters, parameters, strict=True))
        return neuron(
            x_seq, v0, **named, **options, surrogate=soft, reset_delay=reset_delay, return_v_seq=True
        )

    assert torch.autograd.gradcheck(run, [leaf.requires_grad_() for leaf in leaves], fast_mode=True)


# --- spikes sent -------------------------------------------------------------------------------------


def sent(equations, power, surrogate, x_seq, v0, values, **options):
    p = dict(zip(equations.parameters, values, strict=True))
    return F.run(equations, x_seq, v0, p, surrogate=surrogate, power=power, **options)


def leaves_of(equations):
    torch.manual_seed(0)
    sizes = [(3,), (), (2, 1), (2, 3), (1,)]
    leaves = [torch.randn(4, 2, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)]
    for size, name in zip(sizes, equations.parameters, strict=False):
        low, high = RANGES[name]
        leaves.append(torch.rand(size, dtype=torch.float64) * (high - low) + low)
    return [leaf.requires_grad_() for leaf in leaves]


SMOOTH = [  # without kinks, and without resets that are detached
    equations
    for equations in EQUATIONS
    if getattr(equations, "activation", "") != "relu" and equations.reset_mode not in ("late", "again")
]


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("reset_delay", [False, True])
@pytest.mark.parametrize("equations", SMOOTH, ids=str)
def test_spikes_sent_have_the_gradients_of_a_smooth_count(equations, reset_delay, power):
    def run(x_seq, v0, *values):
        soft = Sigmoid(spiking=False)
        return sent(equations, power, soft, x_seq, v0, values, reset_delay=reset_delay)

    assert torch.autograd.gradcheck(run, leaves_of(equations), fast_mode=True)


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
@every_equation
def test_spikes_sent_are_counted_alike_by_the_operators_and_by_autograd(equations, power):
    outcomes = []
    for surrogate in (ATan(), lambda u: ATan()(u)):
        leaves = leaves_of(equations)
        *_, count = sent(equations, power, surrogate, *leaves[:2], leaves[2:])
        assert count.shape == leaves[1].shape
        wanted = torch.arange(6.0, dtype=torch.float64).view(2, 3)
        outcomes.append((count.detach(), *torch.autograd.grad(count, leaves, wanted, allow_unused=True)))
    for fused, plain in zip(*outcomes, strict=True):
        torch.testing.assert_close(fused, torch.zeros_like(fused) if plain is None else plain)
    assert (outcomes[0][0] > 0).any()


# --- what each neuron is -----------------------------------------------------------------------------


def test_one_step_of_a_vsn_from_rest_is_a_gate_with_a_learnable_threshold():
    x = torch.randn(1, 50)
    decay = torch.tensor(0.5, requires_grad=True)
    y, _ = F.vsn(x, decay=decay, threshold=0.3, activation="tanh")
    torch.testing.assert_close(y, torch.tanh(x * (x >= 0.3)), rtol=1e-6, atol=0)
    y.sum().backward()
    assert decay.grad == 0


def test_a_lifb_rests_spikes_and_bursts():
    y_seq, _ = LIFB(torch.randn(50, 20) * 2)
    assert y_seq.unique().tolist() == [0, 1, 2.5]


def test_a_burst_of_intensity_one_is_a_spike():
    x_seq = torch.randn(50, 20) * 2
    plain, v = LIFB(x_seq, burst_intensity=1.0)
    bursting, v_bursting = LIFB(x_seq)
    assert torch.equal(plain, (bursting > 0).float())
    assert torch.equal(v, v_bursting)


@pytest.mark.parametrize("surrogate", [ATan(), MPR(0.1), StraightThrough(3.0)], ids=repr)
def test_the_gradient_to_the_burst_intensity_is_the_number_of_bursts(surrogate):
    kappa = torch.full((4,), 2.5, requires_grad=True)
    y_seq, _ = LIFB(torch.randn(40, 3, 4) * 2, burst_intensity=kappa, surrogate=surrogate)
    (grad,) = torch.autograd.grad(y_seq.sum(), kappa)
    assert torch.equal(grad, (y_seq == 2.5).sum((0, 1)).float())
    assert (grad > 0).all()


def test_the_potential_of_a_lifb_leaks_and_resets_to_v_reset():
    _, v = LIFB(torch.zeros(200, 3), torch.tensor([-1.0, 0.1, 5.0]), v_reset=-0.25)
    torch.testing.assert_close(v, torch.full((3,), -0.25))
    _, v = LIFB(torch.ones(1, 3) * 5, v_reset=-0.25)
    assert torch.equal(v, torch.full((3,), -0.25))


def test_soft_reset_is_rounding_that_carries_its_error_on():
    x_seq = torch.rand(64, 10, dtype=torch.float64)
    y_seq, v, v_seq = F.soft_reset_mpr(x_seq, return_v_seq=True)
    torch.testing.assert_close(y_seq.sum(0) + v, x_seq.sum(0))
    assert torch.equal(y_seq, (torch.cat([torch.zeros(1, 10), v_seq[:-1]]) + x_seq > 0.5).double())


AT = [0.0, 0.5, 1.0, 0.25, -0.5, 1.5, -1e30, 1e30, 1e-30]


def test_the_defaults_of_soft_reset_mpr_are_the_authors_release():
    x_seq = torch.randn(6, len(AT) + 40, dtype=torch.float64)
    x_seq[0, : len(AT)] = torch.tensor(AT, dtype=torch.float64)  # where the potential then stands exactly
    outcomes = []
    for run in (F.soft_reset_mpr, oracle.soft_reset_mpr_release):
        leaf = x_seq.clone().requires_grad_()
        y_seq, v = run(leaf)
        weights = torch.linspace(-1, 1.3, y_seq.numel()).view(y_seq.shape)
        (grad,) = torch.autograd.grad((y_seq * weights).sum() + 0.37 * v.sum(), leaf)
        outcomes.append((y_seq, v, grad))
    torch.testing.assert_close(*outcomes, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [1, 3, 8, 19])  # through the vector units and past their end
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("own", [{"mpr": True}, {"mpr": False, "surrogate": MPR(strict=True)}], ids=str)
@pytest.mark.parametrize("at", [0.0, 1.0])
def test_the_ends_of_the_rectifier_belong_to_its_support(at, own, dtype, size):
    x = torch.full((1, size), at, dtype=dtype, requires_grad=True)
    y, _ = F.soft_reset_mpr(x, **own)
    (grad,) = torch.autograd.grad(y.sum(), x)
    slope = 1.5 * (1 - math.tanh(1.5) ** 2) / math.tanh(1.5)
    torch.testing.assert_close(grad, torch.full_like(grad, slope))


@pytest.mark.parametrize("surrogate", [None, MPR(), ATan(), FastSigmoid(), Sigmoid(), lambda u: ATan()(u)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@every_variant
def test_no_gradient_is_nan_or_infinite_whatever_the_potential(neuron, options, dtype, surrogate):
    at = [0.0, -0.0, 0.4, 0.5, 0.8, 0.9, 1.0, 1e30, -1e30, 1e-30, -1e-30]
    x_seq = torch.tensor(at, dtype=dtype).repeat(2, 1).requires_grad_()
    v0 = torch.zeros_like(x_seq[0]).requires_grad_()
    parameters = {name: torch.full_like(v0, value) for name, value in neuron.usual.items()}
    leaves = [x_seq, v0, *(tensor.requires_grad_() for tensor in parameters.values())]
    y_seq, v = neuron(x_seq, v0, **parameters, **options, surrogate=surrogate)
    for grad in torch.autograd.grad(y_seq.sum() + v.sum(), leaves):
        assert grad.isfinite().all()


def test_no_gradient_of_soft_reset_mpr_overflows_with_the_distance_in_spikes():
    x = torch.tensor([[3e38, -3e38]], requires_grad=True)
    amplitude = torch.tensor(0.5, requires_grad=True)
    y_seq, _ = F.soft_reset_mpr(x, amplitude=amplitude)
    for grad in torch.autograd.grad(y_seq.sum(), (x, amplitude)):
        assert grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_rectifier_is_odd_increasing_and_keeps_the_sign(dtype):
    half = torch.tensor(0.5, dtype=dtype)
    up, down = (torch.nextafter(half, half.new_tensor(to)) for to in (1.0, 0.0))
    z = torch.cat([torch.logspace(-38, 38, 4001, dtype=dtype), torch.stack([half, up, down])]).sort().values
    assert torch.equal(rectify(-z), -rectify(z))
    assert (rectify(z) > 0).all()
    assert (rectify(z).diff() >= 0).all()
    assert rectify(torch.zeros(1)).item() == 0


@given(data=st.data())
def test_the_rectifier_never_changes_a_spike(data):
    case = data.draw(cases(SOFT_RESET_MPR))
    case["own"].pop("mpr")
    x_seq = torch.randn(case["steps"], *case["shape"]) * 10.0 ** data.draw(st.integers(-30, 30))
    with_mpr, without = (SOFT_RESET_MPR(x_seq, **case["own"], **case["when"], mpr=m) for m in (True, False))
    assert torch.equal(with_mpr[0], without[0])
    assert torch.equal(with_mpr[1], without[1])


@pytest.mark.parametrize("options", [{}, {"v_reset": 0.0}, {"detach_reset": True}, {"reset_delay": True}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_mpr_surrogate_is_the_gradient_of_the_rectifier(options, dtype):
    x_seq = torch.randn(8, 60, dtype=dtype)
    x_seq[0, :3] = torch.tensor([0.0, 0.4, 0.8])  # rest, firing level, a whole spike
    outcomes = []
    for own in ({"mpr": True}, {"mpr": False, "surrogate": MPR(strict=True)}):
        values = {"decay": 0.75, "gain": 1.0, "threshold": 0.4, "amplitude": 0.8}
        leaves = {name: torch.full((60,), value, dtype=dtype) for name, value in values.items()}
        leaves["x_seq"] = x_seq.clone()
        outputs = F.soft_reset_mpr(**{k: t.requires_grad_() for k, t in leaves.items()}, **own, **options)
        outcomes.append(
            (*outputs, *torch.autograd.grad(sum(o.sum() for o in outputs), list(leaves.values())))
        )
    torch.testing.assert_close(*outcomes)


# --- when and where they fire --------------------------------------------------------------------------


@every_variant
def test_both_reset_conventions_emit_the_same(neuron, options):
    x_seq = torch.randn(30, 8)
    after, v = neuron(x_seq, **options)
    before, h = neuron(x_seq, **options, reset_delay=True)
    assert torch.equal(after, before)
    fired = h > neuron.usual["threshold"]
    assert torch.equal(v[~fired], h[~fired])
    v_reset = options.get("v_reset", 0.0)
    subtracted = neuron.usual.get("amplitude", neuron.usual["threshold"])
    assert torch.equal(
        v[fired], h[fired] - subtracted if v_reset is None else torch.full_like(h[fired], v_reset)
    )


@every_neuron
def test_strict_firing_differs_exactly_at_the_threshold(neuron):
    x = torch.full((1, 1), 0.5)
    settings = {"decay": 0.0, "threshold": 0.5, "surrogate": ATan()}
    assert neuron(x, **settings)[0].item() > 0
    assert neuron(x, **settings, strict=True)[0].item() == 0.0
    assert neuron(x, **{**settings, "surrogate": ATan(strict=True)})[0].item() == 0.0


def test_by_default_only_soft_reset_mpr_fires_strictly():
    x = torch.full((1, 1), 0.5)
    assert F.vsn(x, decay=0.0, threshold=0.5)[0].item() == 0.5
    assert LIFB(x, threshold=0.5)[0].item() == 1.0
    assert F.soft_reset_mpr(x)[0].item() == 0.0


def test_bursts_begin_at_the_burst_threshold_or_above_it_if_strict():
    x = torch.full((1, 1), 0.75)
    assert LIFB(x, burst_threshold=0.75)[0].item() == 2.5
    assert LIFB(x, burst_threshold=0.75, strict=True)[0].item() == 1.0


@every_neuron
def test_a_long_sequence_is_as_exact_as_a_short_one(neuron):
    x_seq = torch.randn(1000, 3, dtype=torch.float64)
    y_seq, v = neuron(x_seq, decay=0.95)
    expected, v_expected, *_ = neuron.oracle(x_seq, decay=0.95)
    torch.testing.assert_close(y_seq, expected)
    torch.testing.assert_close(v, v_expected)


# --- layouts, dtypes, values -----------------------------------------------------------------------------


@every_neuron
@pytest.mark.parametrize("layout", ["channels_last", "transposed", "strided", "expanded"])
def test_any_memory_layout_gives_the_same_answer(neuron, layout):
    x = torch.randn(6, 2, 4, 5, 5)
    laid = {
        "channels_last": lambda: x.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, (6, 2)),
        "transposed": lambda: x.transpose(0, 1).contiguous().transpose(0, 1),
        "strided": lambda: x.repeat_interleave(2, 1)[:, ::2],
        "expanded": lambda: x,
    }[layout]()
    if layout == "expanded":
        x, laid = x[:1].repeat(6, 1, 1, 1, 1), x[:1].expand(6, -1, -1, -1, -1)
    grads = []
    for input_ in (x, laid):
        leaf = input_.detach().requires_grad_()
        threshold = torch.rand(4, 1, 1, generator=torch.manual_seed(1)) * 0.9
        y_seq, _ = neuron(leaf, threshold=threshold, surrogate=ATan())
        y_seq.square().sum().backward()
        grads.append((y_seq.detach(), leaf.grad))
    assert torch.equal(grads[0][0], grads[1][0])
    torch.testing.assert_close(grads[0][1], grads[1][1])


@every_variant
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precisions_keep_a_float32_state(neuron, options, dtype):
    x_seq = torch.randn(20, 16).to(dtype).requires_grad_()
    y_seq, v, v_seq = neuron(x_seq, **options, return_v_seq=True)
    reference, v_reference = neuron(x_seq.detach().float(), **options)
    assert (y_seq.dtype, v.dtype, v_seq.dtype) == (dtype, torch.float32, torch.float32)
    assert torch.equal(y_seq, reference.to(dtype))
    assert torch.equal(v, v_reference)
    y_seq.float().sum().backward()
    assert x_seq.grad.dtype == dtype
    assert x_seq.grad.isfinite().all()


@every_neuron
def test_under_autocast_the_state_stays_float32(neuron):
    layer = torch.nn.Linear(4, 6)
    with torch.autocast("cpu", torch.bfloat16):
        y_seq, v = neuron(layer(torch.randn(5, 3, 4)), threshold=0.2)
    assert (y_seq.dtype, v.dtype) == (torch.bfloat16, torch.float32)
    (y_seq.float().sum() + v.sum()).backward()
    assert layer.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("neuron", "options"),
    [(n, options) for n, options in VARIANTS if options.get("activation", "identity") == "identity"],
    ids=str,
)
def test_nan_and_infinite_input_reach_the_output_as_the_equations_say(neuron, options):
    x_seq = torch.tensor([[math.nan, math.inf, -math.inf, 1.0]] * 2)
    y_seq, v = neuron(x_seq, **options)
    expected, v_expected, *_ = neuron.oracle(x_seq, **options)
    torch.testing.assert_close(y_seq.double(), expected, equal_nan=True)
    torch.testing.assert_close(v.double(), v_expected, equal_nan=True)


# --- transforms and compilation --------------------------------------------------------------------------


@every_neuron
@either_way
def test_transforms_are_right(neuron, spike):
    x_seq = torch.randn(3, 4, 5, dtype=torch.float64)
    decay = torch.tensor(0.6, dtype=torch.float64)

    def loss(decay, x_seq):
        return torch.tanh(neuron(x_seq, decay=decay, surrogate=spike)[0]).sum()

    per_sample = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(decay, x_seq)
    for sample, grad in zip(x_seq, per_sample, strict=True):
        leaf = decay.clone().requires_grad_()
        (expected,) = torch.autograd.grad(loss(leaf, sample), leaf)
        torch.testing.assert_close(grad, expected)
    tangent = torch.randn_like(x_seq[0])
    _, jvp = torch.func.jvp(lambda x: loss(decay, x), (x_seq[0],), (tangent,))
    torch.testing.assert_close(jvp, (torch.func.grad(loss, argnums=1)(decay, x_seq[0]) * tangent).sum())
    hessian = torch.func.hessian(lambda x: loss(decay, x))(x_seq[0, :, :1])
    torch.testing.assert_close(hessian, hessian.permute(2, 3, 0, 1))
    assert hessian.abs().sum() > 0


@every_neuron
def test_forward_mode_outside_torch_func_is_right_too(neuron):
    x_seq, tangent = torch.randn(2, 4, 3, dtype=torch.float64)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x_seq, tangent)
        ours = torch.autograd.forward_ad.unpack_dual(neuron(dual)[0]).tangent
    _, expected = torch.func.jvp(lambda x: neuron(x)[0], (x_seq,), (tangent,))
    torch.testing.assert_close(ours, expected)
    assert ours.abs().sum() > 0


def compiles_to_one_graph(neuron, options, backend):
    def run(x_seq, decay):
        return neuron(x_seq, decay=decay, **options, return_v_seq=True)

    x_seq = torch.randn(4, 3, requires_grad=True)
    decay = torch.tensor(0.5, requires_grad=True)
    compiled = torch.compile(run, fullgraph=True, backend=backend)
    for ours, eager in zip(compiled(x_seq, decay), run(x_seq, decay), strict=True):
        torch.testing.assert_close(ours, eager)
    grads = [torch.autograd.grad(f(x_seq, decay)[0].sum(), (x_seq, decay)) for f in (compiled, run)]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize(
    ("neuron", "compile_backend"),
    [*((neuron, "aot_eager") for neuron in SPECS), (VSN, "inductor"), (SOFT_RESET_MPR, "inductor")],
    indirect=["compile_backend"],
    ids=str,
)
@either_way
def test_compiles_to_one_graph(neuron, spike, compile_backend):
    compiles_to_one_graph(neuron, {"surrogate": spike}, compile_backend)


@pytest.mark.parametrize(
    ("neuron", "options"),
    [(LIFB, {"v_reset": None}), (LIFB, {"v_reset": 0.25}), (SOFT_RESET_MPR, {"mpr": False, "v_reset": 0.0})],
    ids=str,
)
def test_options_compile_to_one_graph_too(neuron, options):
    compiles_to_one_graph(neuron, options, "aot_eager")


@every_neuron
def test_forward_mode_is_right_inside_a_compiled_graph(neuron):
    x_seq, tangent = (torch.randn(4, 3, dtype=torch.float64) for _ in range(2))

    def run(x_seq, tangent):
        return torch.func.jvp(lambda x: neuron(x)[0], (x_seq,), (tangent,))[1]

    ours = torch.compile(run, backend="aot_eager")(x_seq, tangent)
    torch.testing.assert_close(ours, run(x_seq, tangent))
    assert ours.abs().sum() > 0


@pytest.mark.skipif(
    torch.__version__.startswith("2.6."), reason="torch 2.6 cannot build a surrogate inside a graph"
)
@every_neuron
def test_numbers_that_change_do_not_break_the_graph(neuron):
    def run(x_seq, threshold):
        return neuron(x_seq, threshold=threshold, surrogate=ATan(threshold))[0]

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    x_seq = torch.randn(4, 3)
    for threshold in (0.2, 0.3, 0.4, 0.5):
        assert torch.equal(compiled(x_seq, threshold), run(x_seq, threshold))


@pytest.mark.parametrize(("neuron", "slopes"), [(VSN, 1), (LIFB, 1 + 1), (SOFT_RESET_MPR, 1)], ids=str)
def test_a_surrogate_of_ones_own_is_used_as_it_is(neuron, slopes):
    class Steep(ATan):
        def gradient(self, u):
            return torch.full_like(u, 7.0)

    own = {VSN: {}, LIFB: {"burst_intensity": 2.0}, SOFT_RESET_MPR: {"mpr": False, "amplitude": 1.0}}
    x = torch.ones(1, 1, requires_grad=True)
    y_seq, _ = neuron(x, **own[neuron], surrogate=Steep())
    (grad,) = torch.autograd.grad(y_seq.sum(), x)
    assert grad == 7 * slopes + (neuron is VSN)


@every_neuron
def test_a_state_from_inference_mode_can_start_a_training_step(neuron):
    with torch.inference_mode():
        _, v = neuron(torch.randn(3, 4))
    x_seq = torch.randn(3, 4, requires_grad=True)
    neuron(x_seq, v)[0].sum().backward()
    assert x_seq.grad.isfinite().all()


# --- numbers of any kind -----------------------------------------------------------------------------------

KINDS = {
    "NumPy numbers": lambda value: np.float32(value),
    "arrays of no dimension": lambda value: np.array(value),
    "fractions": lambda value: Fraction(value),
    "arrays": lambda value: np.full(5, value),
    "lists": lambda value: [value] * 5,
    "a batch dimension too many": lambda value: torch.full((1, 5), value),
}


@every_neuron
@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_numbers_of_any_kind(neuron, kind):
    x_seq = torch.randn(6, 5)
    exact = {name: round(value * 8) / 8 for name, value in neuron.usual.items()}
    given = {name: KINDS[kind](value) for name, value in exact.items()}
    for found, expected in zip(neuron(x_seq, **given), neuron(x_seq, **exact), strict=True):
        assert torch.equal(found, expected)  # and so the shapes


def test_whole_numbers_are_cast_as_natively():
    spikes = torch.randint(2, (6, 5))
    y_seq, v = F.vsn(spikes, decay=torch.tensor(1), threshold=np.int64(1))
    expected, final = F.vsn(spikes.float(), decay=1.0, threshold=1.0)
    assert y_seq.dtype == v.dtype == torch.float32
    assert torch.equal(y_seq, expected)
    assert torch.equal(v, final)


@pytest.mark.parametrize("v_reset", [np.float32(0.25), np.array(0.25), torch.tensor(0.25), Fraction(1, 4)])
def test_a_reset_is_a_number_of_any_kind(v_reset):
    x_seq = torch.randn(6, 5)
    for neuron in (LIFB, SOFT_RESET_MPR):
        assert torch.equal(neuron(x_seq, v_reset=v_reset)[1], neuron(x_seq, v_reset=0.25)[1])


@every_neuron
@pytest.mark.parametrize("wrong", [2, None, "yes", torch.tensor(True), 0.5])
def test_flags_are_checked_and_never_reach_a_kernel_as_another_number(neuron, wrong):
    x_seq = torch.randn(6, 5)
    flags = ["detach_reset", "strict", "reset_delay", "return_v_seq"]
    for name in flags + ["mpr"] * (neuron.name == "soft_reset_mpr"):
        if name == "strict" and wrong is None:
            continue
        with pytest.raises(TypeError, match=f"{name} must be True or False"):
            neuron(x_seq, **{name: wrong})
        for yes in (np.bool_(True), 1):
            for found, expected in zip(
                neuron(x_seq, **{name: yes}), neuron(x_seq, **{name: True}), strict=True
            ):
                assert torch.equal(found, expected)


@every_neuron
def test_a_surrogate_that_has_yet_to_be_called_is_named(neuron):
    def fast_sigmoid(slope=25):
        return lambda u: (u > 0).to(u)

    with pytest.raises(TypeError, match="surrogate must return spikes, but fast_sigmoid returned a function"):
        neuron(torch.randn(6, 5), surrogate=fast_sigmoid)
    with pytest.raises(ValueError, match="surrogate must be elementwise"):
        neuron(torch.randn(6, 5), surrogate=torch.sum)
    with pytest.raises(TypeError, match="surrogate failed on torch.zeros"):
        neuron(torch.randn(6, 5), surrogate=lambda u, slope: u)


# --- bad input -------------------------------------------------------------------------------------------

BAD = [
    ({"x_seq": torch.zeros(0, 4)}, ValueError, "x_seq has shape .*at least one time step"),
    ({"x_seq": torch.zeros(())}, ValueError, "at least one time step"),
    (
        {"x_seq": torch.zeros(3, 4, dtype=torch.bool)},
        TypeError,
        r"x_seq must be floating point.*x_seq\.float\(\)",
    ),
    ({"x_seq": [[1.0]]}, TypeError, r"x_seq must be a torch\.Tensor, got list"),
    ({"decay": 1.5}, ValueError, r"decay=1\.5 must lie in \[0, 1\]"),
    ({"decay": -0.1}, ValueError, "decay=-0.1"),
    ({"decay": math.nan}, ValueError, "decay=nan"),
    ({"decay": "0.5"}, TypeError, "decay must be a number or a torch.Tensor, got str"),
    ({"gain": math.nan}, ValueError, "gain is NaN"),
    ({"threshold": math.nan}, ValueError, "threshold is NaN|threshold=nan"),
    (
        {"threshold": torch.ones(4)},
        ValueError,
        r"threshold has shape \(4,\), which does not broadcast .*\(4, 5\)",
    ),
    ({"threshold": torch.ones(1, 1, 5, 1)}, ValueError, "does not broadcast"),
    ({"decay": torch.ones(3, 1, 1)}, ValueError, "decay has shape"),
    ({"threshold": torch.ones(5, dtype=torch.bool)}, TypeError, "threshold must be floating point"),
    (
        {"threshold": torch.ones(5, device="meta")},
        ValueError,
        r"threshold is on meta but the input is on cpu.*\.to",
    ),
    ({"v0": torch.zeros(3, 5)}, ValueError, "v0 has shape"),
    ({"v0": torch.zeros(4, 5, device="meta")}, ValueError, "v0 is on meta"),
    ({"v0": 0.0}, TypeError, "v0 must be a torch.Tensor or None"),
    ({"x_seq": torch.zeros(3, 4).to_sparse()}, TypeError, "x_seq must be a dense tensor"),
    ({"threshold": torch.ones(5).to_sparse()}, TypeError, "threshold must be a dense tensor"),
    ({"threshold": [[0.5], [0.5, 0.5]]}, TypeError, "threshold must hold numbers"),
    ({"threshold": np.array(["a"])}, TypeError, "threshold must hold numbers"),
    ({"threshold": 10**400}, ValueError, "threshold is too large"),
    ({"state_quant": 3}, TypeError, "state_quant must be callable or None, got int"),
    ({"v0": torch.zeros(4, 5, dtype=torch.complex64)}, TypeError, "v0 must be floating point"),
    ({"surrogate": 3}, TypeError, "surrogate must be callable, got int"),
    ({"surrogate": ATan}, TypeError, "surrogate must be an instance, got the class ATan"),
    ({"surrogate": torch.sigmoid, "strict": True}, ValueError, "strict=True has no effect on a callable"),
]
BAD_V_RESET = [
    ({"v_reset": math.nan}, ValueError, "v_reset=nan must be finite, or None for a soft reset"),
    ({"v_reset": -math.inf}, ValueError, "v_reset=-inf must be finite"),
    ({"v_reset": "0"}, TypeError, "v_reset must be a number or None, got str"),
    ({"v_reset": True}, TypeError, "v_reset must be a number or None, got bool"),
    ({"v_reset": torch.zeros(5)}, TypeError, "v_reset must be a number or None, got Tensor"),
]
BAD_OWN = {
    VSN.name: [({"activation": torch.cos}, ValueError, r"act\(0\)")],
    LIFB.name: [
        *BAD_V_RESET,
        ({"burst_threshold": 0.4}, ValueError, r"burst_threshold=0\.4 must be above threshold=0\.4"),
        ({"burst_threshold": math.nan}, ValueError, "burst_threshold"),
        ({"burst_threshold": "1"}, TypeError, "burst_threshold must be a number or a torch.Tensor, got str"),
        ({"burst_threshold": torch.ones(4)}, ValueError, r"burst_threshold has shape \(4,\), which does not"),
        ({"burst_intensity": 0.5}, ValueError, r"burst_intensity=0\.5 must be at least 1"),
        ({"burst_intensity": math.nan}, ValueError, "burst_intensity=nan must be at least 1"),
        ({"burst_intensity": math.inf}, ValueError, "burst_intensity=inf"),
        ({"burst_intensity": torch.ones(3, 1, 1)}, ValueError, "burst_intensity has shape"),
        ({"burst_intensity": torch.ones(5).bool()}, TypeError, "burst_intensity must be floating point"),
    ],
    SOFT_RESET_MPR.name: [
        *BAD_V_RESET,
        ({"amplitude": 0}, ValueError, "amplitude=0.0 must be positive"),
        ({"amplitude": -1.0}, ValueError, r"amplitude=-1\.0 must be positive"),
        ({"amplitude": math.nan}, ValueError, "amplitude=nan must be positive"),
        ({"amplitude": math.inf}, ValueError, "amplitude=inf"),
        ({"amplitude": "1"}, TypeError, "amplitude must be a number or a torch.Tensor, got str"),
        ({"amplitude": torch.ones(4)}, ValueError, "amplitude has shape"),
    ],
}


@pytest.mark.parametrize(
    ("neuron", "wrong", "error", "message"),
    [(neuron, *bad) for neuron in SPECS for bad in (*BAD, *BAD_OWN[neuron.name])],
)
def test_bad_input_gets_one_clear_error(neuron, wrong, error, message):
    with pytest.raises(error, match=message):
        neuron(**{"x_seq": torch.zeros(3, 4, 5), **wrong})


@pytest.mark.parametrize("quant", [len, lambda h: None, lambda h: h[0]])
def test_a_quantised_state_keeps_its_shape(quant):
    with pytest.raises(TypeError, match=r"state_quant must return a potential of the shape .*\(4, 3\)"):
        F.lifb(
            torch.rand(2, 4, 3), decay=0.5, threshold=1.0, burst_threshold=2.0, burst_intensity=2.0,
            state_quant=quant,
        )  # fmt: skip
