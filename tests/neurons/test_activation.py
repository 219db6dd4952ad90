"""Activations: names where the operators know them, checked callables otherwise."""

import pytest
import torch
from torch import nn

from snn_ext.neurons.activation import DERIVATIVES, FUNCTIONS, resolve


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("tanh", "tanh"),
        (torch.relu, "relu"),
        (nn.functional.relu, "relu"),
        (nn.ReLU(), "relu"),
        (nn.Tanh(), "tanh"),
        (nn.Identity(), "identity"),
        (nn.GELU(), "gelu"),
        (nn.functional.gelu, "gelu"),
    ],
)
def test_known_activations_reach_the_operator_by_name(given, name):
    assert resolve(given) == name


@pytest.mark.parametrize("given", [torch.sin, nn.PReLU(), nn.GELU(approximate="tanh"), lambda z: z**3])
def test_other_callables_stay_themselves(given):
    assert resolve(given) is given


@pytest.mark.parametrize("given", [torch.cos, torch.sigmoid, lambda z: z + 1, lambda z: "x"])
def test_an_activation_that_moves_zero_is_refused(given):
    with pytest.raises(ValueError, match=r"act\(0\)"):
        resolve(given)


def test_a_callable_that_cannot_be_evaluated_is_refused():
    with pytest.raises(ValueError, match="failed on torch.zeros"):
        resolve(nn.PReLU(num_parameters=16))


def test_unknown_names_and_types_are_refused():
    with pytest.raises(ValueError, match="'swish' is not known; use one of 'identity', 'relu'"):
        resolve("swish")
    with pytest.raises(TypeError, match="a name or a callable, got int"):
        resolve(3)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives_are_those_of_the_functions(name):
    z = torch.randn(40, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(FUNCTIONS[name](z).sum(), z)
    torch.testing.assert_close(DERIVATIVES[name](z), expected)


def test_a_callable_that_changes_the_shape_is_refused():
    with pytest.raises(ValueError, match="changes the shape"):
        resolve(lambda z: z.sum(-1))


def test_a_module_is_probed_on_its_own_dtype_and_only_where_it_has_values():
    assert resolve(nn.PReLU().double())
    assert resolve(nn.PReLU().to("meta"))
