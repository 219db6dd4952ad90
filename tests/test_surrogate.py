"""Surrogates: values that compare and pickle, a step forward, the right bump backward."""

import copy
import math
import pickle

import pytest
import torch
from oracle import STEP_PRIMITIVES

from snn_ext.neurons.soft_reset_mpr import rectify_and_slope
from snn_ext.surrogate import (
    MPR,
    ATan,
    FastSigmoid,
    Rectangular,
    Sigmoid,
    StraightThrough,
    Surrogate,
    Triangular,
    from_name,
)

ALL = [
    ATan(),
    ATan(3.0),
    FastSigmoid(),
    FastSigmoid(5.0),
    Sigmoid(),
    Triangular(),
    Triangular(0.5),
    Rectangular(),
    StraightThrough(),
    StraightThrough(0.6),
    MPR(),
    MPR(0.6),
]


@pytest.fixture(params=ALL, ids=repr)
def surrogate(request):
    return request.param


def test_pickles_copies_compares_and_hashes(surrogate):
    for twin in (pickle.loads(pickle.dumps(surrogate)), copy.deepcopy(surrogate)):
        assert twin == surrogate
        assert hash(twin) == hash(surrogate)


def test_different_parameters_or_kinds_differ():
    assert ATan(2.0) != ATan(3.0)
    assert Sigmoid(2.0) != ATan(2.0)
    assert ATan() != ATan(strict=True)


def test_step_is_heaviside_in_both_conventions(surrogate):
    u = torch.tensor([-1.0, -0.0, 0.0, 1e-30, 2.0])
    assert surrogate(u).tolist() == [0, 1, 1, 1, 1]
    assert surrogate.with_strict(True)(u).tolist() == [0, 0, 0, 1, 1]


def test_backward_is_the_stated_bump(surrogate):
    u = (torch.arange(-256, 257, dtype=torch.float64) / 128).requires_grad_()  # exact, ends included
    (grad,) = torch.autograd.grad(surrogate(u).sum(), u)
    (expected,) = torch.autograd.grad(STEP_PRIMITIVES[surrogate.name](u, surrogate.scale).sum(), u)
    torch.testing.assert_close(grad, expected)


def test_soft_form_is_the_integral_of_the_bump(surrogate):
    soft = type(surrogate)(surrogate.scale, spiking=False)
    u = (torch.rand(50, dtype=torch.float64) * 4 - 2).requires_grad_()
    assert torch.autograd.gradcheck(soft, (u,))
    assert soft(torch.zeros(1)).item() == 0.5


def test_sigmoid_is_finite_far_out():
    u = torch.tensor([-1e4, 1e4], requires_grad=True)
    Sigmoid(25.0)(u).sum().backward()
    assert u.grad.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_bump_is_nan_infinite_or_negative_anywhere(surrogate, dtype):
    u = torch.tensor([0.0, 1e-30, 0.3, 0.5, 1.0, 1e30], dtype=dtype)
    for side in (u, -u):
        bump = surrogate.gradient(side)
        assert bump.isfinite().all()
        assert (bump >= 0).all()


def test_only_the_ends_of_the_support_tell_straight_through_from_rectangular():
    u = torch.tensor([-0.5, -0.4, 0.0, 0.4, 0.5, 0.6])
    assert StraightThrough().gradient(u).tolist() == [1, 1, 1, 1, 1, 0]
    assert Rectangular().gradient(u).tolist() == [0, 1, 1, 1, 0, 0]


@pytest.mark.parametrize("width", [0.5, 1.0, 3.0])
def test_the_mpr_surrogate_is_the_slope_of_the_rectifier_and_has_area_one(width):
    u = torch.linspace(-2, 2, 400_001, dtype=torch.float64)
    bump = MPR(width).gradient(u)
    inside = u.abs() < width / 2
    torch.testing.assert_close(bump[inside], rectify_and_slope(u[inside] / width)[1] / width)
    assert not bump[u.abs() > width / 2].any()
    assert torch.trapezoid(bump, u).item() == pytest.approx(1, abs=1e-4)


def test_forward_mode_agrees_with_backward(surrogate):
    u = torch.randn(7, dtype=torch.float64)
    _, tangent = torch.func.jvp(surrogate, (u,), (torch.ones_like(u),))
    torch.testing.assert_close(tangent, surrogate.gradient(u))


def test_name_and_scale_rebuild_it(surrogate):
    assert from_name(surrogate.name, surrogate.scale) == surrogate


@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, "2"])
def test_a_bad_parameter_is_named(value):
    with pytest.raises(ValueError, match=r"ATan\(alpha=.*positive, finite"):
        ATan(value)


def test_every_named_surrogate_is_a_surrogate():
    assert all(isinstance(s, Surrogate) for s in ALL)


def test_the_base_class_is_not_a_surrogate():
    with pytest.raises(TypeError, match="Surrogate is the base class"):
        Surrogate()


@pytest.mark.parametrize("surrogate", list({type(s): s for s in ALL}.values()), ids=repr)  # one of each kind
@pytest.mark.parametrize("mode", ["jvp", "jacfwd"])
def test_forward_mode_is_right_inside_a_compiled_graph(mode, surrogate):
    u = torch.randn(5, dtype=torch.float64)

    def run(u):
        if mode == "jvp":
            return torch.func.jvp(surrogate, (u,), (torch.ones_like(u),))[1]
        return torch.func.jacfwd(surrogate)(u)

    torch.testing.assert_close(torch.compile(run, backend="aot_eager")(u), run(u))
