"""F.vsn against the independent oracle: values, every gradient, every option; and bad input."""

import itertools
import math

import oracle
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import snn_ext.functional as F
from snn_ext.surrogate import ATan, FastSigmoid, Rectangular, Sigmoid, Triangular, from_name

SCALES = {"atan": 2.0, "fast_sigmoid": 10.0, "sigmoid": 4.0, "triangular": 0.7, "rectangular": 0.9}


def layouts(shape):
    """Every parameter shape that broadcasts over the trailing dimensions of one time step."""
    for length in range(len(shape) + 1):
        tail = shape[len(shape) - length :]
        yield from itertools.product(*[{1, n} for n in tail])


@st.composite
def cases(draw):
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=0, max_size=3)))
    parameter = st.sampled_from(sorted(set(layouts(shape))))
    return {
        "steps": draw(st.integers(1, 7)),
        "shape": shape,
        "layouts": [draw(parameter) for _ in range(3)],
        "activation": draw(st.sampled_from(sorted(oracle.ACTIVATIONS))),
        "surrogate": draw(st.sampled_from(sorted(SCALES))),
        "strict": draw(st.booleans()),
        "detach_reset": draw(st.booleans()),
        "reset_delay": draw(st.booleans()),
        "initial": draw(st.booleans()),
        "seed": draw(st.integers(0, 2**31)),
        "callables": draw(st.booleans()),
    }


def inputs(case, dtype):
    """Return x_seq, v0, decay, gain and threshold of a case in float64, exact in `dtype`."""
    generator = torch.Generator().manual_seed(case["seed"])

    def values(*size, low=0.0, high=1.0):
        return (torch.rand(size, generator=generator) * (high - low) + low).to(dtype).double()

    shape = case["shape"]
    x_seq = values(case["steps"], *shape, low=-1.5, high=2)
    v0 = values(*shape, low=-1, high=1) if case["initial"] else torch.zeros(shape).double()
    return x_seq, v0, *(values(*size) for size in case["layouts"])


def evaluate(case, dtype=torch.float64):
    """Return outputs and gradients of F.vsn, those of the oracle, and the oracle's distances to threshold."""
    tensors = inputs(case, dtype)
    options = {k: case[k] for k in ("detach_reset", "reset_delay")}
    name = case["surrogate"]
    surrogate = from_name(name, SCALES[name], strict=case["strict"])
    activation = case["activation"]
    if case["callables"]:  # the differentiable reference instead of the operator
        named = surrogate
        surrogate, activation = (lambda u: named(u)), oracle.ACTIVATIONS[activation]

    def run(function, dtype):
        leaves = [t.to(dtype).requires_grad_() for t in tensors]
        if not case["initial"]:
            leaves[1].requires_grad_(False)
        y_seq, v, v_seq, *rest = function(*leaves)
        weights = [torch.linspace(-1, 1.3, max(o.numel(), 1)).view(o.shape).to(o) for o in (y_seq, v, v_seq)]
        loss = sum((o * w).sum() for o, w in zip((y_seq, v, v_seq), weights, strict=True))
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        return (y_seq, v, v_seq), torch.autograd.grad(loss, wanted), rest

    ours = run(
        lambda x, v, d, k, th: F.vsn(
            x,
            v if case["initial"] else None,
            decay=d,
            gain=k,
            threshold=th,
            activation=activation,
            surrogate=surrogate,
            return_v_seq=True,
            **options,
        ),
        dtype,
    )
    expected = run(
        lambda x, v, d, k, th: oracle.vsn(
            x,
            v,
            d,
            th,
            gain=k,
            activation=case["activation"],
            surrogate=name,
            scale=SCALES[name],
            strict=case["strict"],
            **options,
        ),
        torch.float64,
    )
    return ours, expected


@given(cases())
def test_values_and_every_gradient_match_the_oracle(case):
    (outputs, grads, _), (expected, expected_grads, _) = evaluate(case)
    for ours, theirs in zip((*outputs, *grads), (*expected, *expected_grads), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@given(cases())
def test_float32_agrees_unless_a_potential_stands_at_the_threshold(case):
    (outputs, _, _), (expected, _, (distances,)) = evaluate(case, torch.float32)
    if distances.abs().min() > 1e-5:
        for ours, theirs in zip(outputs, expected, strict=True):
            torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)


@given(cases(), st.integers(1, 6))
def test_a_sequence_in_chunks_equals_the_whole(case, cut):
    x_seq = torch.randn(case["steps"] + 1, *case["shape"], dtype=torch.float64)
    cut = min(cut, case["steps"])
    options = {"decay": 0.7, "threshold": 0.4, "reset_delay": case["reset_delay"]}
    whole, v = F.vsn(x_seq, **options)
    first, between = F.vsn(x_seq[:cut], **options)
    second, last = F.vsn(x_seq[cut:], between, **options)
    assert torch.equal(torch.cat([first, second]), whole)
    assert torch.equal(last, v)


@pytest.mark.parametrize(
    "soft", [ATan(), FastSigmoid(3.0), Sigmoid(), Triangular(), Rectangular(0.8)], ids=repr
)
@pytest.mark.parametrize("activation", ["identity", "tanh", "gelu"])
@pytest.mark.parametrize("reset_delay", [False, True])
def test_gradcheck_with_a_smooth_step(soft, activation, reset_delay):
    soft = type(soft)(soft.scale, spiking=False)
    leaves = [
        torch.randn(4, 2, 3, dtype=torch.float64),
        torch.randn(2, 3, dtype=torch.float64),
        torch.rand(3, dtype=torch.float64),
        torch.rand((), dtype=torch.float64),
        torch.rand(2, 1, dtype=torch.float64),
    ]

    def run(x, v, d, k, th):
        return F.vsn(
            x,
            v,
            decay=d,
            gain=k,
            threshold=th,
            surrogate=soft,
            activation=activation,
            reset_delay=reset_delay,
            return_v_seq=True,
        )

    assert torch.autograd.gradcheck(run, [leaf.requires_grad_() for leaf in leaves])


def test_one_step_from_rest_is_a_gate_with_a_learnable_threshold():
    x = torch.randn(1, 50)
    decay = torch.tensor(0.5, requires_grad=True)
    y, _ = F.vsn(x, decay=decay, threshold=0.3, activation="tanh")
    assert torch.equal(y, torch.tanh(x * (x >= 0.3)))
    y.sum().backward()
    assert decay.grad == 0


def test_both_reset_conventions_emit_the_same():
    x_seq = torch.randn(30, 8)
    after, v = F.vsn(x_seq, decay=0.8, threshold=0.5)
    before, h = F.vsn(x_seq, decay=0.8, threshold=0.5, reset_delay=True)
    assert torch.equal(after, before)
    assert torch.equal(v, torch.where(h >= 0.5, torch.zeros(()), h))


def test_strict_firing_differs_exactly_at_the_threshold():
    x = torch.full((1, 1), 0.5)
    assert F.vsn(x, decay=0.0, threshold=0.5)[0].item() == 0.5
    assert F.vsn(x, decay=0.0, threshold=0.5, strict=True)[0].item() == 0.0
    assert F.vsn(x, decay=0.0, threshold=0.5, surrogate=ATan(strict=True))[0].item() == 0.0


def test_a_long_sequence_is_as_exact_as_a_short_one():
    x_seq = torch.randn(1000, 3, dtype=torch.float64)
    y_seq, v = F.vsn(x_seq, decay=0.95, threshold=1.0)
    expected, v_expected, *_ = oracle.vsn(x_seq, torch.zeros(3), 0.95, 1.0)
    torch.testing.assert_close(y_seq, expected)
    torch.testing.assert_close(v, v_expected)


@pytest.mark.parametrize("layout", ["channels_last", "transposed", "strided", "expanded"])
def test_any_memory_layout_gives_the_same_answer(layout):
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
        y_seq, _ = F.vsn(leaf, decay=0.6, threshold=torch.rand(4, 1, 1, generator=torch.manual_seed(1)))
        y_seq.square().sum().backward()
        grads.append((y_seq.detach(), leaf.grad))
    assert torch.equal(grads[0][0], grads[1][0])
    torch.testing.assert_close(grads[0][1], grads[1][1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precisions_keep_a_float32_state(dtype):
    x_seq = torch.randn(20, 16).to(dtype).requires_grad_()
    y_seq, v, v_seq = F.vsn(x_seq, decay=0.9, threshold=0.5, return_v_seq=True)
    reference, v_reference = F.vsn(x_seq.detach().float(), decay=0.9, threshold=0.5)
    assert (y_seq.dtype, v.dtype, v_seq.dtype) == (dtype, torch.float32, torch.float32)
    assert torch.equal(y_seq.float(), reference)
    assert torch.equal(v, v_reference)
    y_seq.float().sum().backward()
    assert x_seq.grad.dtype == dtype
    assert x_seq.grad.isfinite().all()


def test_under_autocast_the_state_stays_float32():
    layer = torch.nn.Linear(4, 6)
    with torch.autocast("cpu", torch.bfloat16):
        y_seq, v = F.vsn(layer(torch.randn(5, 3, 4)), decay=0.9, threshold=0.2)
    assert (y_seq.dtype, v.dtype) == (torch.bfloat16, torch.float32)
    (y_seq.float().sum() + v.sum()).backward()
    assert layer.weight.grad.abs().sum() > 0


def test_nan_and_infinite_input_reach_the_output_as_the_equations_say():
    x_seq = torch.tensor([[math.nan, math.inf, -math.inf, 1.0]] * 2)
    y_seq, v = F.vsn(x_seq, decay=0.5, threshold=0.5)
    expected, v_expected, *_ = oracle.vsn(x_seq, torch.zeros(4), 0.5, 0.5)
    torch.testing.assert_close(y_seq.double(), expected, equal_nan=True)
    torch.testing.assert_close(v.double(), v_expected, equal_nan=True)


@pytest.mark.parametrize("spike", [ATan(), lambda u: ATan()(u)], ids=["operator", "callable"])
def test_transforms_are_right(spike):
    x_seq = torch.randn(3, 4, 5, dtype=torch.float64)
    decay = torch.tensor(0.6, dtype=torch.float64)

    def loss(decay, x_seq):
        return F.vsn(x_seq, decay=decay, threshold=0.4, surrogate=spike, activation="tanh")[0].sum()

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


def test_forward_mode_outside_torch_func_is_right_too():
    x_seq, tangent = torch.randn(2, 4, 3, dtype=torch.float64)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x_seq, tangent)
        y_seq, _ = F.vsn(dual, decay=0.6, threshold=0.4)
        ours = torch.autograd.forward_ad.unpack_dual(y_seq).tangent
    _, expected = torch.func.jvp(lambda x: F.vsn(x, decay=0.6, threshold=0.4)[0], (x_seq,), (tangent,))
    torch.testing.assert_close(ours, expected)
    assert ours.abs().sum() > 0


@pytest.mark.parametrize("spike", [ATan(), lambda u: ATan()(u)], ids=["operator", "callable"])
def test_compiles_to_one_graph(spike, compile_backend):
    def run(x_seq, decay):
        return F.vsn(x_seq, decay=decay, threshold=0.4, surrogate=spike, return_v_seq=True)

    x_seq = torch.randn(4, 3, requires_grad=True)
    decay = torch.tensor(0.5, requires_grad=True)
    compiled = torch.compile(run, fullgraph=True, backend=compile_backend)
    for ours, eager in zip(compiled(x_seq, decay), run(x_seq, decay), strict=True):
        torch.testing.assert_close(ours, eager)
    grads = [torch.autograd.grad(f(x_seq, decay)[0].sum(), (x_seq, decay)) for f in (compiled, run)]
    torch.testing.assert_close(*grads)


def test_forward_mode_is_right_inside_a_compiled_graph():
    x_seq, tangent = (torch.randn(4, 3, dtype=torch.float64) for _ in range(2))

    def run(x_seq, tangent):
        return torch.func.jvp(lambda x: F.vsn(x, decay=0.6, threshold=0.4)[0], (x_seq,), (tangent,))[1]

    ours = torch.compile(run, backend="aot_eager")(x_seq, tangent)
    torch.testing.assert_close(ours, run(x_seq, tangent))
    assert ours.abs().sum() > 0


@pytest.mark.skipif(
    torch.__version__.startswith("2.6."), reason="torch 2.6 cannot build a surrogate inside a graph"
)
def test_numbers_that_change_do_not_break_the_graph():
    def run(x_seq, threshold):
        return F.vsn(x_seq, decay=0.5, threshold=threshold, surrogate=ATan(threshold))[0]

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    x_seq = torch.randn(4, 3)
    for threshold in (0.2, 0.3, 0.4, 0.5):
        assert torch.equal(compiled(x_seq, threshold), run(x_seq, threshold))


def test_a_surrogate_of_ones_own_is_used_as_it_is():
    class Steep(ATan):
        def gradient(self, u):
            return torch.full_like(u, 7.0)

    threshold = torch.tensor(0.4, requires_grad=True)
    y_seq, _ = F.vsn(torch.ones(1, 1), decay=0.5, threshold=threshold, surrogate=Steep())
    (grad,) = torch.autograd.grad(y_seq.sum(), threshold)
    assert grad == -7


def test_a_state_from_inference_mode_can_start_a_training_step():
    with torch.inference_mode():
        _, v = F.vsn(torch.randn(3, 4), decay=0.5, threshold=0.4)
    x_seq = torch.randn(3, 4, requires_grad=True)
    F.vsn(x_seq, v, decay=0.5, threshold=0.4)[0].sum().backward()
    assert x_seq.grad.isfinite().all()


X = torch.zeros(3, 4, 5)
BAD = [
    ({"x_seq": torch.zeros(0, 4)}, ValueError, "x_seq has shape .*at least one time step"),
    ({"x_seq": torch.zeros(())}, ValueError, "at least one time step"),
    (
        {"x_seq": torch.zeros(3, 4, dtype=torch.int64)},
        TypeError,
        r"x_seq must be floating point.*x_seq\.float\(\)",
    ),
    ({"x_seq": [[1.0]]}, TypeError, r"x_seq must be a torch\.Tensor, got list"),
    ({"decay": 1.5}, ValueError, r"decay=1\.5 must lie in \[0, 1\]"),
    ({"decay": -0.1}, ValueError, "decay=-0.1"),
    ({"decay": math.nan}, ValueError, "decay=nan"),
    ({"decay": "0.5"}, TypeError, "decay must be a number or a torch.Tensor, got str"),
    ({"threshold": math.nan}, ValueError, "threshold is NaN"),
    (
        {"threshold": torch.ones(4)},
        ValueError,
        r"threshold has shape \(4,\), which does not broadcast .*\(4, 5\)",
    ),
    ({"threshold": torch.ones(1, 1, 5, 1)}, ValueError, "does not broadcast"),
    ({"decay": torch.ones(3, 1, 1)}, ValueError, "decay has shape"),
    ({"threshold": torch.ones(5, dtype=torch.int32)}, TypeError, "threshold must be floating point"),
    (
        {"threshold": torch.ones(5, device="meta")},
        ValueError,
        r"threshold is on meta but the input is on cpu.*\.to",
    ),
    ({"v0": torch.zeros(3, 5)}, ValueError, "v0 has shape"),
    ({"v0": torch.zeros(4, 5, device="meta")}, ValueError, "v0 is on meta"),
    ({"v0": 0.0}, TypeError, "v0 must be a torch.Tensor or None"),
    ({"v0": torch.zeros(4, 5, dtype=torch.int64)}, TypeError, "v0 must be floating point"),
    ({"activation": torch.cos}, ValueError, r"act\(0\)"),
    ({"surrogate": 3}, TypeError, "surrogate must be callable, got int"),
    ({"surrogate": ATan}, TypeError, "surrogate must be an instance, got the class ATan"),
    ({"surrogate": torch.sigmoid, "strict": True}, ValueError, "strict=True has no effect on a callable"),
]


@pytest.mark.parametrize(("wrong", "error", "message"), BAD)
def test_bad_input_gets_one_clear_error(wrong, error, message):
    arguments = {"x_seq": X, "decay": 0.5, "threshold": 0.5, **wrong}
    with pytest.raises(error, match=message):
        F.vsn(arguments.pop("x_seq"), arguments.pop("v0", None), **arguments)
