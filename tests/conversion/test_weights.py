"""The L4 norm, its noise law, and the rules as functions of weights."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from torch import nn

from snn_ext.conversion import RULES, Options, l4_adjust, l4_norm, noise_std, poisson, simulate
from snn_ext.conversion.convert import prepare


@pytest.mark.parametrize("shape", [(5, 7), (4, 3, 5), (6, 2, 3, 3)])
def test_the_norm_is_the_fourth_root_of_the_sum_of_fourth_powers(shape):
    weight = torch.randn(shape, dtype=torch.float64)
    expected = (weight.numpy().reshape(shape[0], -1) ** 4).sum(1) ** 0.25
    np.testing.assert_allclose(l4_norm(weight), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("weight", "error", "match"),
    [
        ([1.0], TypeError, "torch.Tensor, got list"),
        (torch.ones(2, 2, dtype=torch.int64), TypeError, "int64"),
        (torch.ones(3), ValueError, r"\(3,\) has no dimension of inputs"),
    ],
)
def test_the_norm_refuses_what_has_none(weight, error, match):
    with pytest.raises(error, match=match):
        l4_norm(weight)


@pytest.mark.parametrize("coding", ["bernoulli", "poisson"])
@pytest.mark.parametrize("steps", [1, 50])
def test_the_potential_has_the_standard_deviation_that_the_law_says(coding, steps):
    samples, inputs = 20_000, 40
    weight, rate = torch.randn(6, inputs), torch.rand(inputs)
    counts = torch.zeros(samples, inputs)
    for _ in range(steps):
        counts += (torch.bernoulli if coding == "bernoulli" else torch.poisson)(rate.expand_as(counts))
    measured = (counts @ weight.T).std(0)
    torch.testing.assert_close(measured, noise_std(weight, rate, steps, coding=coding), rtol=0.03, atol=0)


def test_the_potential_of_a_converted_layer_follows_the_law_before_it_fires():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 3)).eval()
    options = Options(rule="none", fit_offsets=False, progress=False)
    spiking = prepare(net, torch.rand(64, 30).split(16), options)
    rate, inputs = torch.rand(30), []
    x_seq = poisson(rate.expand(5000, 30), 12, torch.Generator().manual_seed(1))
    simulate.Run(spiking, simulate.CORE, lambda name, z, y: inputs.append(z))(x_seq)
    measured = inputs[0].sum(0).std(0)
    torch.testing.assert_close(measured, noise_std(spiking.layer_0.weight, rate, 12), rtol=0.04, atol=0)


def test_factors_stay_in_bounds():
    weight = torch.ones(4, 3)
    weight[0], weight[1] = 1e-12, 1e6
    factors = l4_norm(l4_adjust(weight, "scale", 1.0).weights[0]) / l4_norm(weight)
    assert factors[0] == pytest.approx(4, rel=1e-5)
    assert factors[1] == pytest.approx(1 / 4, rel=1e-5)


def test_with_equal_rates_the_noise_is_the_l4_norm_times_the_angle():
    weight, rate = torch.randn(6, 40, dtype=torch.float64), torch.rand(40, dtype=torch.float64)
    cosine = nn.functional.cosine_similarity(weight**2, rate, dim=1)
    expected = l4_norm(weight) * (rate.norm() * cosine).sqrt()
    torch.testing.assert_close(noise_std(weight, rate, coding="poisson"), expected)


def test_noise_refuses_an_unknown_coding():
    with pytest.raises(ValueError, match="coding='rate'.*'bernoulli' or 'poisson'"):
        noise_std(torch.ones(1, 1), torch.ones(1), coding="rate")


@given(st.floats(-2, 2), st.integers(0, 2**31))
def test_equalize_leaves_the_relu_network_as_it_is(strength, seed):
    torch.manual_seed(seed)
    layers = [nn.Conv2d(2, 5, 3), nn.Conv2d(5, 4, 3), nn.Linear(4 * 4, 6), nn.Linear(6, 3)]
    layers = [layer.double() for layer in layers]
    x = torch.randn(4, 2, 6, 6, dtype=torch.float64)
    new = l4_adjust([layer.weight for layer in layers], "equalize", strength)

    def run(weights):
        a, b, c, d = weights
        y = nn.functional.conv2d(x, a).relu()
        y = nn.functional.conv2d(y, b).relu().flatten(1)
        return (y @ c.T).relu() @ d.T

    torch.testing.assert_close(
        run(new.weights), run([layer.weight for layer in layers]), rtol=1e-9, atol=1e-9
    )
    assert all((threshold == 1).all() for threshold in new.thresholds)
    assert not any(offset.any() for offset in new.offsets)


@pytest.mark.parametrize("rule", ["scale", "equalize"])
def test_full_strength_makes_the_norms_of_a_layer_equal(rule):
    weights = [torch.randn(5, 7), torch.randn(4, 5)]
    norm = l4_norm(l4_adjust(weights, rule, 1.0).weights[0])
    torch.testing.assert_close(norm, l4_norm(weights[0]).mean().expand(5))


def test_scale_adjusts_every_layer_and_equalize_not_the_outputs():
    weights = [torch.randn(5, 7), torch.randn(4, 5)]
    assert not torch.allclose(l4_adjust(weights, "scale", 1.0).weights[1], weights[1])
    before, after = l4_norm(weights[1].T), l4_norm(l4_adjust(weights, "equalize", 1.0).weights[1].T)
    torch.testing.assert_close(before / after, l4_norm(weights[0]).mean() / l4_norm(weights[0]))


def test_threshold_and_bias_follow_the_norm():
    weight = torch.randn(5, 7)
    norm = l4_norm(weight)
    torch.testing.assert_close(l4_adjust(weight, "threshold", 0.5).thresholds[0], 1 + 0.5 * norm)
    torch.testing.assert_close(l4_adjust(weight, "bias", 0.5).offsets[0], -0.5 * norm)


@pytest.mark.parametrize("rule", RULES)
def test_a_neuron_without_weights_stays_finite_and_nothing_is_changed_in_place(rule):
    weight = torch.randn(3, 4)
    weight[1] = 0
    before = weight.clone()
    new = l4_adjust([weight, torch.randn(2, 3)], rule, 0.5)
    assert all(torch.isfinite(t).all() for part in new for t in part)
    torch.testing.assert_close(weight, before)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ((torch.ones(2, 2), "l4"), ValueError, "rule='l4' is not known; use one of 'none', 'scale'"),
        ((torch.ones(2, 2), "scale", float("nan")), ValueError, "strength is NaN"),
        ((torch.ones(2, 2), "scale", float("inf")), ValueError, "strength=inf must be finite"),
        ((torch.ones(2, 2), "scale", torch.ones(2)), TypeError, "strength must be a number"),
        (([], "scale"), ValueError, "weights is empty"),
        (([torch.ones(3, 2), torch.ones(2, 4)], "equalize"), ValueError, r"weights\[1\] takes 4 inputs"),
        ((torch.ones(2, 2), "threshold", -5.0), ValueError, "use a strength above"),
    ],
)
def test_bad_adjustments_are_refused(arguments, error, match):
    with pytest.raises(error, match=match):
        l4_adjust(*arguments)
