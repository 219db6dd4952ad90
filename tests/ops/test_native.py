"""The compiled kernels against the reference: variants, sizes, layouts, extreme values, threads, forks."""

import concurrent.futures
import itertools
import math
import multiprocessing
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from specs import SCALES, SPECS, VSN, every_neuron, layouts

from snn_ext.neurons import lifb, vsn
from snn_ext.neurons.soft_reset_mpr import SoftResetMPR
from snn_ext.ops import dispatch, native, reference
from snn_ext.surrogate import from_name

compiled = pytest.mark.skipif(bool(native.why_not), reason=f"no compiled kernels: {native.why_not}")
pytestmark = compiled

RANGES = {name: limits for neuron in SPECS for name, limits in neuron.parameters.items()}
EQUATIONS = [
    *(vsn.VSN(activation) for activation in ("identity", "relu", "tanh", "gelu")),
    *(lifb.LIFB(mode) for mode in ("hard", "soft", "late", "again", "none")),
    lifb.LIFB("hard", -0.5),
    *(
        SoftResetMPR(mpr, mode, v_reset)
        for mpr in (True, False)
        for mode, v_reset in (("soft", 0.0), ("hard", 0.0), ("hard", 0.25))
    ),
]
WHEN = ("detach_reset", "reset_delay", "constant_start")
every_equation = pytest.mark.parametrize("equations", EQUATIONS, ids=str)


def tensors(equations, shape, dtype, shapes=None):
    """Return x_seq, v0 and the parameters, drawn from torch's generator."""
    x_seq, v0 = torch.rand(shape) * 3.5 - 1.5, torch.rand(shape[1:]) * 2 - 1
    p = {}
    for name in equations.parameters:
        low, high = RANGES[name]
        p[name] = (torch.rand((shapes or {}).get(name, ())) * (high - low) + low).to(dtype)
    return x_seq.to(dtype), v0.to(dtype), p


def both(equations, x_seq, v0, p, surrogate, when, *, threads=1, parameter_grads=True):
    """Run reference and native, forward and backward; return all outputs and gradients by name."""
    results = []
    torch.set_num_threads(threads)
    for run_by in (reference, native):
        outputs = run_by.forward(equations, x_seq, v0, p, surrogate, **when, return_v_seq=True)
        generator = torch.Generator().manual_seed(0)
        grads = [torch.randn(o.shape, generator=generator).to(o.dtype) for o in outputs]
        gx, gv0, gp = run_by.backward(
            equations, *grads, x_seq, v0, p, surrogate, **when, parameter_grads=parameter_grads
        )
        results.append(
            dict(zip(("y_seq", "v", "v_seq", "gx", "gv0"), (*outputs, gx, gv0), strict=True), **gp)
        )
    torch.set_num_threads(1)
    return results


def agree(results, equations, spiking=True):
    """The forward pass to the last bit (spikes, potentials), gradients to rounding."""
    expected, found = results
    exact = ("v", "v_seq") if spiking else ()
    if getattr(equations, "activation", "identity") in ("identity", "relu") and spiking:
        exact += ("y_seq",)
    for name, value in expected.items():
        other = found[name]
        assert other.shape == value.shape
        assert other.dtype == value.dtype
        assert other.stride() == value.stride()
        if name in exact:
            assert torch.equal(other, value), name
        else:
            scale = max(1.0, value.abs().max().item()) if value.isfinite().all() else 1.0
            tolerance = {torch.float64: 1e-12, torch.float32: 2e-5}.get(value.dtype, 2e-2)
            assert torch.allclose(other, value, rtol=tolerance, atol=tolerance * scale, equal_nan=True), name


@every_equation
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_every_variant(equations, dtype):
    for name, strict, spiking, *flags in itertools.product(SCALES, *[(False, True)] * 5):
        x_seq, v0, p = tensors(equations, (5, 2, 3), dtype, {"threshold": (3,), "decay": (2, 1)})
        surrogate = from_name(name, SCALES[name], spiking=spiking, strict=strict)
        agree(
            both(equations, x_seq, v0, p, surrogate, dict(zip(WHEN, flags, strict=True))), equations, spiking
        )


@given(st.data())
def test_random_cases(data):
    equations = data.draw(st.sampled_from(EQUATIONS))
    shape = tuple(data.draw(st.lists(st.integers(1, 5), min_size=0, max_size=4)))
    possible = st.sampled_from(sorted(set(layouts(shape))))
    shapes = {name: data.draw(possible) for name in equations.parameters}
    dtype = data.draw(st.sampled_from([torch.float64, torch.float32]))
    steps = data.draw(st.integers(1, 9))
    torch.manual_seed(data.draw(st.integers(0, 2**31)))
    x_seq, v0, p = tensors(equations, (steps, *shape), dtype, shapes)
    order = data.draw(st.permutations(range(len(shape) + 1)))
    x_seq = x_seq.permute(order).contiguous().permute(sorted(range(len(order)), key=order.__getitem__))
    name = data.draw(st.sampled_from(sorted(SCALES)))
    surrogate = from_name(name, SCALES[name], strict=data.draw(st.booleans()))
    agree(
        both(equations, x_seq, v0, p, surrogate, {flag: data.draw(st.booleans()) for flag in WHEN}), equations
    )


@every_equation
@pytest.mark.parametrize("count", [1, 7, 15, 16, 17, 1023, 1024, 1025, 2048])
def test_odd_sizes(equations, count):
    x_seq, v0, p = tensors(equations, (3, count), torch.float32, {"threshold": (count,)})
    agree(both(equations, x_seq, v0, p, from_name("atan", 2.0), dict.fromkeys(WHEN, False)), equations)


@every_equation
@pytest.mark.parametrize("steps", [1, 64, 65, 1000])
def test_long_sequences_are_recomputed_in_segments(equations, steps):
    x_seq, v0, p = tensors(equations, (steps, 37), torch.float64)
    agree(both(equations, x_seq, v0, p, from_name("atan", 2.0), dict.fromkeys(WHEN, True)), equations)


@pytest.mark.parametrize("steps", [1, 16, 64, 65, 1000, 10**4, 10**6, 10**8])
@pytest.mark.parametrize("size", [4, 8])
def test_scratch_memory_is_bounded(steps, size):
    block, segment = native.blocks("backward", steps, size)
    rows = 2 * segment + math.ceil(steps / segment)
    assert block >= 16
    assert block * rows * size <= max(native.SCRATCH, 16 * size * 3.1 * math.sqrt(steps))
    assert rows <= max(129, 3.1 * math.sqrt(steps))


@every_equation
@pytest.mark.parametrize("layout", ["channels_last", "batch_first", "sliced", "expanded"])
def test_layouts(equations, layout):
    shapes = {
        "threshold": (3, 1, 1),
        "decay": (3, 4, 5),
        "burst_intensity": (3, 1, 5),
        "amplitude": (2, 1, 1, 1),
    }
    x_seq, v0, p = tensors(equations, (4, 2, 3, 4, 5), torch.float64, shapes)
    if layout == "channels_last":
        x_seq = x_seq.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, (4, 2))
    elif layout == "batch_first":
        x_seq = x_seq.transpose(0, 1).contiguous().transpose(0, 1)
    elif layout == "sliced":
        x_seq = torch.cat((x_seq, x_seq), -1)[..., ::2]
    else:
        x_seq, v0 = x_seq[:, :, :, :1].expand(x_seq.shape), v0[:1].expand(v0.shape)
    agree(both(equations, x_seq, v0, p, from_name("sigmoid", 4.0), dict.fromkeys(WHEN, False)), equations)


@every_equation
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precisions_keep_a_float32_state(equations, dtype):
    x_seq, v0, p = tensors(equations, (6, 40), torch.float32)
    results = both(equations, x_seq.to(dtype), v0, p, from_name("atan", 2.0), dict.fromkeys(WHEN, False))
    assert results[1]["v"].dtype == torch.float32
    agree(results, equations)


@every_equation
@pytest.mark.parametrize("name", SCALES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_nan_infinity_and_denormals_go_where_they_go_in_the_reference(equations, name, dtype):
    tiny = torch.finfo(dtype).tiny
    values = [0.0, -0.0, tiny / 8, -tiny / 8, torch.nan, torch.inf, -torch.inf, 1e30, -1e30, 0.5, -0.5, 0.7]
    if (
        getattr(equations, "activation", "") == "gelu"
    ):  # torch's own float32 GELU of infinity is NaN on some machines
        values.remove(torch.inf)
    x_seq = torch.tensor(list(itertools.product(values, repeat=2)), dtype=dtype).T.contiguous()
    _, _, p = tensors(equations, (2, 1), dtype)
    v0 = torch.zeros(x_seq.shape[1], dtype=dtype)
    for flag in (False, True):
        when = {"detach_reset": flag, "reset_delay": flag, "constant_start": False}
        expected, found = both(equations, x_seq, v0, p, from_name(name, SCALES[name]), when)
        for key in ("y_seq", "v", "v_seq", "gx", "gv0"):
            assert torch.equal(found[key].isnan(), expected[key].isnan()), key
            finite = ~expected[key].isnan()
            assert torch.allclose(found[key][finite], expected[key][finite], rtol=1e-4, atol=1e-6), key


@pytest.fixture(params=["torch's threads", "a pool"])
def threads(request, monkeypatch):
    """Both ways of sharing a call, whatever its size."""
    monkeypatch.setattr(native, "GRAIN", 1)
    if request.param == "a pool":
        monkeypatch.setattr(native, "_share_by_openmp", None)
    elif native._share_by_openmp is None:
        pytest.skip("torch has no OpenMP that can be reached here")


@every_equation
def test_threads_change_nothing(equations, threads):
    shapes = {"threshold": (9000,), "decay": (9000,)}
    x_seq, v0, p = tensors(equations, (4, 9000), torch.float32, shapes)
    when, surrogate = dict.fromkeys(WHEN, False), from_name("atan", 2.0)
    alone = both(equations, x_seq, v0, p, surrogate, when)[1]
    shared = both(equations, x_seq, v0, p, surrogate, when, threads=4)[1]
    for name, value in alone.items():
        assert torch.equal(shared[name], value), name


def test_several_python_threads_at_once(threads):
    torch.set_num_threads(3)
    torch.manual_seed(3)
    x_seq, v0, p = tensors(EQUATIONS[4], (8, 5000), torch.float32)
    when = dict.fromkeys(WHEN, False)

    def once(_):
        return native.forward(EQUATIONS[4], x_seq, v0, p, from_name("atan", 2.0), **when, return_v_seq=False)[
            0
        ]

    expected = once(0)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(torch.equal(found, expected) for found in pool.map(once, range(64)))
    torch.set_num_threads(1)


def _send(queue, run):
    queue.put(run().tolist())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own(monkeypatch, threads):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)  # torch's own threads would not survive the fork
    x_seq, v0, p = tensors(EQUATIONS[0], (4, 5000), torch.float32)

    def run():
        surrogate, when = from_name("atan", 2.0), dict.fromkeys(WHEN, False)
        return native.forward(EQUATIONS[0], x_seq, v0, p, surrogate, **when, return_v_seq=False)[1]

    expected = run()  # starts threads in this process
    assert native._pool is not None or native._share_by_openmp is not None
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=_send, args=(queue, run))
    child.start()
    found = queue.get()
    child.join(60)
    assert child.exitcode == 0
    assert found == expected.tolist()


@every_neuron
def test_the_operator_runs_natively_on_the_cpu(neuron, monkeypatch):
    monkeypatch.delenv(dispatch.VARIABLE, raising=False)
    assert dispatch.implementation("cpu") == "native"
    assert dispatch.implementation("cuda") == "reference"
    called = []
    forward = native.forward
    monkeypatch.setattr(native, "forward", lambda *a, **k: called.append(1) or forward(*a, **k))
    neuron(torch.rand(3, 4))
    assert called


def test_native_cannot_be_forced_on_another_device(monkeypatch):
    monkeypatch.setenv(dispatch.VARIABLE, "native")
    with pytest.raises(RuntimeError, match=r"SNN_EXT_IMPL='native' runs on the CPU, not on cuda"):
        dispatch.implementation("cuda")


def test_without_compiled_kernels_the_reference_runs_and_says_so_once():
    code = """
import warnings, torch
from snn_ext.ops import dispatch, native
native.why_not = "it was not compiled at installation"
import snn_ext.functional as F
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    for _ in range(3):
        F.vsn(torch.rand(3, 4), decay=0.5, threshold=0.5)
assert dispatch.implementation() == "reference"
assert [str(w.message) for w in seen if "compiled" in str(w.message)] == [
    "snn_ext runs on its reference, several times slower than its compiled kernel: "
    "it was not compiled at installation"
], seen
"""
    environment = {name: value for name, value in os.environ.items() if name != dispatch.VARIABLE}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


@pytest.mark.parametrize(("step", "shape"), [((0, 5), ()), ((0, 5), (5,)), ((0,), (0,))])
def test_an_empty_batch(step, shape):
    x_seq, v0 = torch.zeros(3, *step), torch.zeros(step)
    p = {name: torch.full(shape, 0.5) for name in EQUATIONS[0].parameters}
    expected, found = both(EQUATIONS[0], x_seq, v0, p, from_name("atan", 2.0), dict.fromkeys(WHEN, False))
    assert found["y_seq"].shape == (3, *step)
    assert torch.equal(found["decay"], expected["decay"])


def test_the_usual_neuron_is_computed_alike():
    x_seq = torch.rand(4, 6, requires_grad=True)
    y_seq, _ = VSN(x_seq)
    assert torch.equal(y_seq, VSN.oracle(x_seq)[0].to(y_seq))
