"""Penalties under autocast: counts and energies are those of float32, and their gradients too."""

import pytest
import torch
from torch import nn

from snn_ext.energy import (
    BalancedSpikePenalty,
    SpikingActivityLoss,
    SynapticPenalty,
    TotalSpikePenalty,
    penalties,
)

PLACES = {
    "nowhere": (False, False, False),
    "the forward": (True, False, False),
    "the loss": (False, True, False),
    "forward and loss": (True, True, False),
    "everywhere": (True, True, True),
}
"""Whether autocast is on in the forward, where the penalty is called, and in the backward."""


def small(face, kind):
    """Return neurons before weights, whose input needs no rounding: only what is summed could be rounded."""
    net = nn.Sequential(getattr(face, kind)(), nn.Linear(50, 3))
    if face.name == "spikingjelly":
        face.functional.set_step_mode(net, "s")
    return net


def taken(face, net, penalty, x, steps, place):
    """Return the penalty and its gradient, where autocast is on in that place."""
    face.ext.reset(net) if face.name == "snntorch" else face.functional.reset_net(net)
    x = x.clone().requires_grad_()
    forward, loss, backward = PLACES[place]
    with torch.autocast("cpu", torch.bfloat16, enabled=forward):
        for _ in range(steps):
            net(x)
    with torch.autocast("cpu", torch.bfloat16, enabled=loss):
        omega = penalty()
    with torch.autocast("cpu", torch.bfloat16, enabled=backward):
        omega.backward()
    return omega, x.grad


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("kind", ["lif", "lifb", "vsn"])
@pytest.mark.parametrize("make", [SynapticPenalty, TotalSpikePenalty, BalancedSpikePenalty])
def test_a_penalty_is_the_same_wherever_autocast_is_on(face, monkeypatch, make, kind, p, steps, large):
    monkeypatch.setattr(penalties, "_LARGE", 1 if large else 1 << 30)
    net = small(face, kind)
    x = 3 * torch.rand(333, 50)  # more spikes of a neuron than bfloat16 can count
    penalty = make(net, x[:1], p=p)
    expected, slope = taken(face, net, penalty, x, steps, "nowhere")
    assert expected > 0
    assert slope.any()
    for place in PLACES:
        omega, grad = taken(face, net, penalty, x, steps, place)
        assert omega.dtype == torch.float32
        assert torch.equal(omega, expected), place
        assert torch.equal(grad, slope), place


def test_the_activity_too(face):
    net, x = small(face, "lif"), 2 * torch.rand(333, 50)
    loss = SpikingActivityLoss(net)
    found = [taken(face, net, loss, x, 3, place) for place in PLACES]
    for omega, grad in found[1:]:
        assert torch.equal(omega, found[0][0])
        assert torch.equal(grad, found[0][1])
    assert 0 < found[0][0] < 1


@pytest.mark.parametrize("large", [False, True])
def test_it_is_the_number_of_spikes(face, monkeypatch, large):
    monkeypatch.setattr(penalties, "_LARGE", 1 if large else 1 << 30)
    neuron = face.lif()
    if face.name == "spikingjelly":
        face.functional.set_step_mode(neuron, "s")
    penalty, spikes = TotalSpikePenalty(neuron), 0.0
    with torch.autocast("cpu", torch.bfloat16):
        for x in 2 * torch.rand(3, 999, 11).requires_grad_():
            y = neuron(x)
            spikes += float((y[0] if isinstance(y, tuple) else y).detach().double().sum())
        assert penalty().item() == pytest.approx(spikes / 999, rel=1e-7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("grad", [False, True])
def test_spikes_in_half_precision_are_counted_in_full(dtype, grad):
    node = pytest.importorskip("spikingjelly.activation_based.neuron").LIFNode(2.0, False, 0.5, step_mode="m")
    penalty = TotalSpikePenalty(node)
    x = (torch.rand(700, 3, 5) + 1).to(dtype).requires_grad_()  # a neuron fires at every one of 700 steps
    with torch.set_grad_enabled(grad):
        y = node(x)
        assert penalty().item() == pytest.approx(float(y.detach().double().sum()) / 3, rel=1e-7)
    assert y.dtype == dtype
    assert float(y.detach().double().sum()) == 700 * 15


def test_graded_spikes_in_half_precision_are_raised_in_full():
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    node = neuron.LIFNode(2.0, False, 0.5, surrogate_function=torch.sigmoid, step_mode="m")
    penalty = TotalSpikePenalty(node, p=3)
    y = node(torch.rand(2, 3, 50, dtype=torch.bfloat16).requires_grad_())
    expected = float((y.detach().double() ** 3).sum()) / 9
    assert penalty().item() == pytest.approx(expected, rel=1e-6)
