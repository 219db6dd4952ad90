"""Tensors changed in place: what a step emits may be, what went into it is needed for the backward pass."""

import copy

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

NEURONS = ("VSN", "LIFB", "SoftResetMPR")
every_neuron = pytest.mark.parametrize("name", NEURONS)


def make(face, name, **options):
    """Return a neuron that keeps its state and emits its spikes alone."""
    if face.name == "snntorch":
        return getattr(face.ext, name)(0.5, 0.5, init_hidden=True, **options)
    return getattr(face.ext, name + "Node")(2.0, False, 0.5, **options)


def all_steps(face, neuron, x_seq):
    if face.name == "snntorch":
        return neuron.multi_step(x_seq)
    neuron.step_mode = "m"
    return neuron(x_seq)


def state(face):
    return {"snntorch": "mem", "spikingjelly": "v"}[face.name]


def masked(s):
    s[:, :2] = 0
    return s


def scaled(s):
    s *= 0.5
    return s


CHANGES = {
    "dropout": (nn.Dropout(0.5, inplace=True), nn.Dropout(0.5)),
    "relu": (nn.ReLU(inplace=True), nn.ReLU()),
    "mask": (masked, lambda s: torch.cat([torch.zeros_like(s[:, :2]), s[:, 2:]], 1)),
    "scale": (scaled, lambda s: s * 0.5),
}
INPUTS = {
    "float32": torch.rand(4, 8) * 2,
    "bfloat16": (torch.rand(4, 8) * 2).bfloat16(),
    "channels last": (torch.rand(2, 8, 3, 3) * 2).to(memory_format=torch.channels_last),
}


class Watch(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


@every_neuron
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("several", [False, True], ids=["single", "multi"])
def test_spikes_changed_in_place_have_the_gradient_of_a_changed_copy(face, name, change, kind, several):
    def gradient(follow):
        torch.manual_seed(1)
        x = INPUTS[kind].clone().requires_grad_()
        neuron = make(face, name)
        s = all_steps(face, neuron, x[None])[0] if several else neuron(x)
        y = follow(s)
        (y * torch.linspace(0, 1, y.numel()).view_as(y)).sum().backward()
        return x.grad

    in_place, as_a_copy = CHANGES[change]
    assert torch.equal(gradient(in_place), gradient(as_a_copy))
    assert gradient(in_place).abs().sum() > 0


@every_neuron
@pytest.mark.parametrize("kind", INPUTS)
def test_the_state_can_be_changed_in_place_between_steps(face, name, kind):
    def gradient(halve):
        x, neuron = INPUTS[kind].clone().requires_grad_(), make(face, name)
        neuron(x * 0.2)
        halve(neuron)
        neuron(x)
        getattr(neuron, state(face)).float().sum().backward()
        return x.grad

    def in_place(neuron):
        held = getattr(neuron, state(face))
        held *= 0.5

    def as_a_copy(neuron):
        setattr(neuron, state(face), getattr(neuron, state(face)) * 0.5)

    assert torch.equal(gradient(in_place), gradient(as_a_copy))


@every_neuron
@pytest.mark.parametrize("kind", INPUTS)
def test_the_state_can_be_detached_in_place(face, name, kind):
    neuron = make(face, name)
    neuron(INPUTS[kind].clone().requires_grad_())
    getattr(neuron, state(face)).detach_()
    assert not getattr(neuron, state(face)).requires_grad


@every_neuron
@pytest.mark.parametrize("watched", [False, True])
def test_spikes_emitted_without_gradient_can_take_one_in_place(face, name, watched):
    neuron, factor = make(face, name), torch.full((), 2.0, requires_grad=True)
    with torch.no_grad():
        if watched:
            with Watch():
                s = neuron(INPUTS["float32"])
        else:
            s = neuron(INPUTS["float32"])
    total = s.sum()
    s *= factor
    s.sum().backward()
    assert factor.grad == total > 0


@every_neuron
def test_spikes_of_a_watched_or_compiled_step_can_be_changed_in_place(face, name):
    def gradient(run, follow):
        x = INPUTS["float32"].clone().requires_grad_()
        follow(run(x)).sum().backward()
        return x.grad

    def watched(x):
        with Watch():
            return make(face, name)(x)

    neuron = make(face, name)
    expected = gradient(copy.deepcopy(neuron), lambda s: s * 0.5)
    assert torch.equal(gradient(watched, scaled), expected)
    compiled = torch.compile(lambda x: scaled(neuron(x)), backend="aot_eager")
    assert torch.equal(gradient(compiled, lambda s: s), expected)


@every_neuron
@pytest.mark.parametrize("several", [False, True], ids=["single", "multi"])
@pytest.mark.parametrize("watched", [False, True])
def test_an_input_changed_in_place_is_named_with_the_remedy(face, name, several, watched):
    def current():
        return nn.functional.relu(torch.rand(4, 8, requires_grad=True))[None if several else slice(None)]

    def run(neuron, x):
        return all_steps(face, neuron, x) if several else neuron(x)

    x, neuron = current(), make(face, name)
    if watched:
        with Watch():
            s = run(neuron, x)
    else:
        s = run(neuron, x)
    x += s
    with pytest.raises(RuntimeError, match=rf"^{name}: .*changed in place.*; .*x = x \+ lif\(x\)") as raised:
        x.sum().backward()
    assert "\n" not in str(raised.value)

    x, neuron = current(), make(face, name)
    x = x + run(neuron, x)  # the remedy
    x.sum().backward()


@every_neuron
def test_weights_changed_in_place_are_named_too(face, name):
    neuron = make(face, name, learn_threshold=True)
    s = neuron(INPUTS["float32"])
    with torch.no_grad():
        (neuron.threshold if face.name == "snntorch" else neuron.v_threshold).add_(1)
    with pytest.raises(RuntimeError, match=rf"^{name}: .*changed in place.*call backward\(\) first"):
        s.sum().backward()


@every_neuron
def test_a_compiled_step_names_it_too(face, name):
    neuron = make(face, name)

    @torch.compile(backend="aot_eager")
    def residual(x):
        x = x * 2
        x += neuron(x)
        return x

    with pytest.raises(Exception, match=rf"{name}: .*changed in place.*; .*x = x \+ lif\(x\)"):
        residual(INPUTS["float32"].clone().requires_grad_())


@every_neuron
def test_with_a_surrogate_that_is_a_callable_the_input_can_be_changed_in_place(face, name):
    def gradient(residual):
        x = INPUTS["float32"].clone().requires_grad_()
        residual(make(face, name, **surrogate), x * 1).sum().backward()
        return x.grad

    def in_place(neuron, x):
        x += neuron(x)
        return x

    key = {"snntorch": "spike_grad", "spikingjelly": "surrogate_function"}[face.name]
    surrogate = {key: lambda u: torch.sigmoid(4 * u)}
    assert torch.equal(gradient(in_place), gradient(lambda neuron, x: x + neuron(x)))
