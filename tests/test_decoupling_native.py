"""Decoupled pairs are native neurons to their user: attribute by attribute, in either framework."""

import copy
import inspect

import pytest
import torch
import torch.nn.utils.prune
from torch import nn

ELSEWHERE = {
    "snntorch": {
        "init": "clears the list of all neurons; inherited",
        "instances": "the list of all neurons; inherited",
    },
    "spikingjelly": {
        "functional_forward": "states are those of the two neurons; base.to_functional_forward runs pairs",
        "materialize_states": "the same",
        "single_step_functional_forward": "the same",
        "multi_step_functional_forward": "the same",
        "memories": "its own are none, those of the two neurons are found inside",
        "named_memories": "the same",
        "register_memory": "inherited",
        "apply_hard_reset": "a static helper of LIFNode",
        "apply_soft_reset": "the same",
        "lava_s_cale": "Lava exchange takes LIFNode alone; read it on pair.regular",
        "forward_kernel": "CuPy kernels, which need whole sequences; a pair is coupled after every step",
        "backward_kernel": "the same",
        "neuronal_charge": "the equations of one LIF neuron; call them on pair.regular",
        "neuronal_fire": "the same",
        "neuronal_reset": "the same",
        "v_float_to_tensor": "the same",
    },
}


def public(native):
    """What a native neuron has that a bare module has not."""
    names = set(dir(native)) - set(dir(nn.Module()))
    helpers = ("jit_", "neuronal_charge_")
    return sorted(name for name in names if not name.startswith(("_", *helpers)))


def native_and_pair(face, **options):
    """A native neuron after one step, and the pair of a LIFB with the same settings after the same."""
    native, pair = face.lif(0.5, 0.25, **face.soft), face.lifb(0.5, 0.25, **face.soft, **options).decouple()
    if face.name == "snntorch":
        assert native.output is pair.output is False
    x = torch.tensor([[0.1, 0.3, 0.7]])
    native(x), pair(x)
    return native, pair


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if inspect.isroutine(a):
        return inspect.isroutine(b)
    return type(a) is type(b) and (isinstance(a, nn.Module) or callable(a) or a == b)


def test_all_public_attributes_of_the_native_neuron_are_there(face):
    native, pair = native_and_pair(face)
    if face.name == "snntorch":
        native.spike_grad = pair.spike_grad  # ours can be pickled, snnTorch's closure cannot
    missing = [name for name in public(native) if not hasattr(pair, name)]
    assert [name for name in missing if name not in ELSEWHERE[face.name]] == []
    for name in public(native):
        if name not in ELSEWHERE[face.name]:
            assert same(getattr(native, name), getattr(pair, name)), name


class Later(nn.Module):
    """Fires later than at the threshold."""

    def forward(self, u):
        return (u > 0.125).to(u)


def written(face):
    """Values to set, and what they are to change."""
    if face.name == "snntorch":
        return {
            "beta": torch.tensor(0.25),
            "threshold": torch.tensor(0.5),
            "reset_mechanism": "zero",
            "mem": torch.tensor([[0.2, 0.3, 0.6]]),
            "spike_grad": lambda u: (u > 0.125).float(),
        }
    return {
        "tau": 4.0,
        "v_threshold": 0.5,
        "v_reset": 0.0,
        "decay_input": True,
        "v": torch.tensor([[0.2, 0.3, 0.6]]),
        "detach_reset": True,
        "surrogate_function": Later(),
    }


def test_what_is_set_on_a_pair_runs_as_on_the_native_neuron(face):
    x_seq = torch.randn(10, 1, 3).abs()
    for name, value in written(face).items():
        native, pair = native_and_pair(face, burst_intensity=1.0)
        if face.name == "snntorch" and name == "reset_mechanism":
            native = face.lif(0.5, 0.25, reset_mechanism=value)  # snnTorch's own goes on as before
            native(torch.tensor([[0.1, 0.3, 0.7]]))
            pair.mem = native.mem
        else:
            setattr(native, name, value)
        setattr(pair, name, value)
        with torch.no_grad():
            expected = torch.stack([native(x) for x in x_seq])
            assert torch.equal(torch.stack([pair(x) for x in x_seq]), expected), name


def test_a_new_threshold_takes_the_burst_threshold_along(face):
    lifb = face.lifb(0.5, 0.25, burst_threshold=0.75)
    pair = lifb.decouple()
    name = {"snntorch": "threshold", "spikingjelly": "v_threshold"}[face.name]
    for module in (lifb, pair):
        setattr(module, name, torch.tensor(0.5) if face.name == "snntorch" else 0.5)
    assert float(pair.burst_threshold) == float(lifb.burst_threshold) == 1.0
    x_seq = torch.randn(8, 2, 3)
    assert torch.equal(face.run(pair, x_seq), face.run(lifb, x_seq))


def test_what_was_folded_into_the_next_layer_cannot_be_set(face):
    net = face.ext.decouple(nn.Sequential(face.lifb(), face.linear(5, 3)))
    with pytest.raises(AttributeError, match=r"burst_intensity was folded .* set it before decouple\(net\)"):
        net[0].burst_intensity = torch.tensor(3.0)
    pair = face.lifb().decouple()
    pair.burst_intensity = torch.tensor(3.0)
    assert pair.burst_intensity == 3


def test_a_network_in_the_middle_of_training_is_decoupled_without_a_reset(face):
    net = nn.Sequential(face.linear(4, 5), face.lifb(0.5, 0.25), face.linear(5, 3), face.lif(0.5, 0.25))
    x = 2 * torch.rand(3, 2, 4)
    net.recorded = [net(x[0]), {"later": net(x[1])}]
    net.recorded[0].sum().backward(retain_graph=True)
    state = net[3].mem if face.name == "snntorch" else net[3].v
    pairs = face.ext.decouple(net)
    assert (net[3].mem if face.name == "snntorch" else net[3].v) is state
    assert state.grad_fn is not None
    assert net.recorded[1]["later"].grad_fn is not None
    assert pairs.recorded[1]["later"].grad_fn is None
    copied = pairs[3].mem if face.name == "snntorch" else pairs[3].v
    assert torch.equal(copied, state)
    assert copied.grad_fn is None
    torch.testing.assert_close(pairs(x[2]), net(x[2]), rtol=0, atol=1e-6)


REPARAMETRISED = {
    "pruned": lambda layer: nn.utils.prune.random_unstructured(layer, "weight", 0.5),
    "weight norm": lambda layer: nn.utils.parametrizations.weight_norm(layer),
}


@pytest.mark.parametrize("how", REPARAMETRISED)
def test_weights_that_are_computed_are_folded_and_the_original_keeps_computing(face, how):
    net = nn.Sequential(face.lifb(), face.linear(5, 3))
    REPARAMETRISED[how](net[1])
    pairs = face.ext.decouple(net)
    x_seq = torch.randn(4, 2, 5)
    expected = face.run(net, x_seq)
    torch.testing.assert_close(face.run(pairs, x_seq), expected, rtol=0, atol=1e-6)
    with torch.no_grad():
        next(net[1].parameters()).mul_(2)
        parameter = getattr(net[1], "weight_orig", None)
        if parameter is None:
            net[1].parametrizations.weight.original0.mul_(2)
        else:
            parameter.mul_(2)
    assert not torch.equal(face.run(net, x_seq), expected)


def test_copies_and_pickles_of_pairs_run_on_by_themselves(face, tmp_path):
    net = face.ext.decouple(nn.Sequential(face.linear(4, 5), face.lifb(), face.linear(5, 2)))
    x_seq = torch.randn(6, 3, 4)
    expected = face.run(net, x_seq)
    torch.save(net, tmp_path / "net.pt")
    for other in (copy.deepcopy(net), torch.load(tmp_path / "net.pt", weights_only=False)):
        state = other.state_dict()
        assert state.keys() == net.state_dict().keys()
        assert torch.equal(face.run(other, x_seq), expected)
