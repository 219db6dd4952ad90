"""Every compiled kernel against the reference: variants, sizes, layouts, precisions, extreme values."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kernels import EQUATIONS, WHEN, Native, agree, both, every_equation, every_kernel, tensors
from specs import SCALES, layouts

from snn_ext.neurons.soft_reset_mpr import SoftResetMPR
from snn_ext.surrogate import from_name


@every_kernel
@every_equation
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_every_variant(kernels, equations, dtype):
    powers = itertools.cycle((0.0, 1.0, 2.0, 1.0, 3.0))
    for name, strict, spiking, *flags in itertools.product(SCALES, *[(False, True)] * 5):
        x_seq, v0, p = tensors(equations, (5, 2, 3), dtype, {"threshold": (3,), "decay": (2, 1)})
        surrogate = from_name(name, SCALES[name], spiking=spiking, strict=strict)
        when = dict(zip(WHEN, flags, strict=True))
        power = next(powers)
        power = power if spiking else min(power, 1.0)  # smooth events are raised by the reference alone
        results = both(kernels, equations, x_seq, v0, p, surrogate, when, power=power)
        agree(results, equations, spiking)


@every_kernel
@every_equation
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_usual_calls_have_loops_of_their_own(kernels, equations, dtype):
    flags = itertools.product(SCALES, *[(False, True)] * 5)
    sizes = itertools.cycle([(1, 5), (3, 300), (70, 33)])
    wishes = itertools.cycle([(), equations.parameters[::2], (), (), equations.parameters])
    powers = itertools.cycle((0.0, 1.0, 2.0, 1.0))
    every = 1 if kernels is Native else 3
    for name, strict, starts, *constant in itertools.islice(flags, 0, None, every):
        x_seq, v0, p = tensors(equations, next(sizes), dtype)
        when = dict(zip(WHEN, constant, strict=True))
        surrogate, wanted = from_name(name, SCALES[name], strict=strict), next(wishes)
        start = v0 if starts else None
        asked = {"potentials": False, "wanted": wanted, "power": next(powers)}
        results = both(kernels, equations, x_seq, start, p, surrogate, when, **asked)
        agree(results, equations)
        assert set(wanted) == results[1].keys() & p.keys()


@every_kernel
@given(st.data())
def test_random_cases(kernels, data):
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
        both(
            kernels,
            equations,
            x_seq,
            v0 if data.draw(st.booleans()) else None,
            p,
            surrogate,
            {flag: data.draw(st.booleans()) for flag in WHEN},
            potentials=data.draw(st.booleans()),
            wanted=data.draw(st.sets(st.sampled_from(equations.parameters))),
            power=data.draw(st.sampled_from((0.0, 1.0, 2.0))),
        ),
        equations,
    )


@every_kernel
@every_equation
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("reset_delay", [False, True])
def test_half_a_spike_is_within_half_a_spike(kernels, equations, dtype, reset_delay):
    """Where a neuron at rest is, with the defaults of SoftResetMPR."""
    values = torch.arange(-4, 5, dtype=dtype) / 4
    x_seq = torch.cartesian_prod(values, values).T.contiguous()
    p = {name: torch.tensor(1.0, dtype=dtype) for name in equations.parameters} | {
        "threshold": torch.tensor(0.5, dtype=dtype)
    }
    surrogate = from_name("straight_through", 1.0)
    when = dict.fromkeys(WHEN, False) | {"reset_delay": reset_delay}
    for v0 in (None, torch.zeros_like(x_seq[0])):
        agree(both(kernels, equations, x_seq, v0, p, surrogate, when, potentials=False), equations)


@every_kernel
@every_equation
@pytest.mark.parametrize("count", [1, 7, 15, 16, 17, 255, 256, 257, 1023, 1024, 1025, 2048])
def test_odd_sizes(kernels, equations, count):
    x_seq, v0, p = tensors(equations, (3, count), torch.float32, {"threshold": (count,)})
    agree(
        both(kernels, equations, x_seq, v0, p, from_name("atan", 2.0), dict.fromkeys(WHEN, False)), equations
    )


@every_kernel
@every_equation
@pytest.mark.parametrize("steps", [1, 31, 32, 33, 64, 65, 1000])
def test_long_sequences_are_recomputed_in_segments(kernels, equations, steps):
    x_seq, v0, p = tensors(equations, (steps, 37), torch.float64)
    agree(
        both(kernels, equations, x_seq, v0, p, from_name("atan", 2.0), dict.fromkeys(WHEN, True), power=2.0),
        equations,
    )


@every_kernel
@every_equation
@pytest.mark.parametrize("layout", ["channels_last", "batch_first", "sliced", "expanded"])
def test_layouts(kernels, equations, layout):
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
    agree(
        both(
            kernels, equations, x_seq, v0, p, from_name("sigmoid", 4.0), dict.fromkeys(WHEN, False), power=2.0
        ),
        equations,
    )


@every_kernel
@every_equation
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precisions_keep_a_float32_state(kernels, equations, dtype):
    x_seq, v0, p = tensors(equations, (6, 40), torch.float32)
    results = both(
        kernels,
        equations,
        x_seq.to(dtype),
        v0,
        p,
        from_name("atan", 2.0),
        dict.fromkeys(WHEN, False),
        power=1.0,
    )
    assert results[1]["v"].dtype == torch.float32
    agree(results, equations)


@every_kernel
@every_equation
@pytest.mark.parametrize(("name", "scale"), [*SCALES.items(), ("straight_through", 1.0)])
@pytest.mark.parametrize("potentials", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_nan_infinity_and_denormals_go_where_they_go_in_the_reference(
    kernels, equations, name, scale, dtype, potentials
):
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
        surrogate = from_name(name, scale)
        expected, found = both(kernels, equations, x_seq, v0, p, surrogate, when, potentials=potentials)
        for key in {"y_seq", "v", "v_seq", "gx", "gv0"} & expected.keys():
            assert torch.equal(found[key].isnan(), expected[key].isnan()), key
            finite = ~expected[key].isnan()
            assert torch.allclose(found[key][finite], expected[key][finite], rtol=1e-4, atol=1e-6), key


@every_kernel
@given(st.data())
def test_what_is_not_finite_at_random_steps_goes_where_it_goes_in_the_reference(kernels, data):
    """NaN and infinity at a few steps, smooth or not: the same gradients are NaN, and the others equal."""
    equations = data.draw(st.sampled_from(EQUATIONS))
    steps, count = data.draw(st.integers(2, 6)), data.draw(st.integers(1, 5))
    torch.manual_seed(data.draw(st.integers(0, 2**31)))
    dtype = data.draw(st.sampled_from([torch.float64, torch.float32]))
    x_seq, v0, p = tensors(equations, (steps, count), dtype, {"threshold": (count,)})
    spoiled = st.tuples(st.integers(0, steps - 1), st.integers(0, count - 1))
    values = (
        [torch.nan] if getattr(equations, "activation", "") == "gelu" else [torch.nan, torch.inf, -torch.inf]
    )
    for at in data.draw(st.lists(spoiled, min_size=1, max_size=3)):
        x_seq[at] = data.draw(st.sampled_from(values))
    name, spiking = data.draw(st.sampled_from(sorted(SCALES))), data.draw(st.booleans())
    surrogate = from_name(name, SCALES[name], spiking=spiking, strict=data.draw(st.booleans()))
    when = {flag: data.draw(st.booleans()) for flag in WHEN}
    power = data.draw(st.sampled_from((0.0, 1.0, 2.0) if spiking else (0.0, 1.0)))
    until = data.draw(st.integers(1, steps))  # the loss knows the steps before
    potentials = data.draw(st.booleans())
    expected, found = both(
        kernels, equations, x_seq, v0, p, surrogate, when, power=power, potentials=potentials, until=until
    )
    for key in expected:
        assert torch.equal(found[key].isnan(), expected[key].isnan()), key
        finite = ~expected[key].isnan()
        assert torch.allclose(found[key][finite], expected[key][finite], rtol=1e-3, atol=1e-4), key


@every_kernel
@pytest.mark.parametrize("mode", ["late", "again", "none"])
@pytest.mark.parametrize("mpr", [True, False])
def test_resets_that_no_face_asks_for(kernels, mpr, mode):
    equations = SoftResetMPR(mpr, mode, 0.0)
    x_seq, v0, p = tensors(equations, (5, 40), torch.float32)
    for flag, potentials in itertools.product((False, True), repeat=2):
        when = dict.fromkeys(WHEN, flag)
        agree(
            both(kernels, equations, x_seq, v0, p, from_name("atan", 2.0), when, potentials=potentials),
            equations,
        )


@every_kernel
@pytest.mark.parametrize(("step", "shape"), [((0, 5), ()), ((0, 5), (5,)), ((0,), (0,))])
def test_an_empty_batch(kernels, step, shape):
    x_seq, v0 = torch.zeros(3, *step), torch.zeros(step)
    p = {name: torch.full(shape, 0.5) for name in EQUATIONS[0].parameters}
    expected, found = both(
        kernels, EQUATIONS[0], x_seq, v0, p, from_name("atan", 2.0), dict.fromkeys(WHEN, False)
    )
    assert found["y_seq"].shape == (3, *step)
    assert torch.equal(found["decay"], expected["decay"])
