"""No state outlives a transform: ``torch.func``, fake tensors, tracing, an exception within a step."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jvp, vmap
from torch.fx.experimental.proxy_tensor import make_fx

NEURONS = ("VSN", "LIFB", "SoftResetMPR")
every_neuron = pytest.mark.parametrize("name", NEURONS)
pytestmark = pytest.mark.filterwarnings("ignore")


def network(face, name="LIFB", **options):
    if face.name == "snntorch":
        neuron = getattr(face.ext, name)(0.5, 0.5, init_hidden=True, **options)
    else:
        neuron = getattr(face.ext, name + "Node")(2.0, False, 0.5, **options)
    return nn.Sequential(nn.Linear(8, 8), neuron)


def weights(net):
    return {name: p.detach() for name, p in net.named_parameters()}


def held(face, net):
    return net[1].mem if face.name == "snntorch" else net[1].v


def loss(net, params, x, steps=2):
    return sum(functional_call(net, params, (x,)).sum() * (i + 1) for i in range(steps))


def per_sample(net, x):
    return vmap(grad(lambda p, x: loss(net, p, x[None])), (None, 0))(weights(net), x)


def whole_batch(net, x):
    return grad(lambda p: loss(net, p, x))(weights(net))


def forward_mode(net, x):
    return jvp(lambda x: loss(net, weights(net), x), (x,), (torch.ones_like(x),))


def nested(net, x):
    return vmap(lambda x: grad(lambda p: loss(net, p, x[None]))(weights(net)))(x)


def fake(net, x):
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        y = [net(mode.from_tensor(x)) for _ in range(2)]
    assert y[1].shape == x.shape


def fake_trace(net, x):
    make_fx(net, tracing_mode="fake", _allow_non_fake_inputs=True)(x)


def jit_trace(net, x):
    torch.jit.trace(net, (x,), check_trace=False)


def with_buffers(net, x):
    buffers = dict(net.named_buffers())
    vmap(lambda x: functional_call(net, (weights(net), buffers), (x[None],)).sum())(x)


def reset_inside(face):
    def run(net, x):
        def inner(p, x):
            fresh(face, net)
            first = loss(net, p, x[None])
            fresh(face, net)
            return first + 0 * loss(net, p, x[None])

        found = vmap(grad(inner), (None, 0))(weights(net), x)
        for name, value in per_sample(net, x).items():
            assert torch.equal(found[name], value)

    return run


def fresh(face, net):
    if face.name == "snntorch":
        import snntorch.utils

        snntorch.utils.reset(net)
    else:
        face.functional.reset_net(net)


TRANSFORMS = {
    "vmap of grad": per_sample,
    "grad": whole_batch,
    "jvp": forward_mode,
    "grad in vmap": nested,
    "fake tensors": fake,
    "make_fx": fake_trace,
    "torch.jit.trace": jit_trace,
    "buffers given": with_buffers,
}
every_transform = pytest.mark.parametrize("transform", TRANSFORMS)


def usable(face, net, x):
    """Do all that touches a state."""
    copy.deepcopy(net)
    pickle.loads(pickle.dumps(net[1]))
    str(held(face, net))
    net.double().float()
    net.state_dict()
    other = nn.Sequential(nn.Linear(8, 8), face.lif())
    other(x)
    fresh(face, other)
    fresh(face, net)
    net(x).sum().backward()
    fresh(face, net)
    assert isinstance(held(face, net), float) or not held(face, net).any()


@every_neuron
@every_transform
@pytest.mark.parametrize("warm", [False, True], ids=["reset", "midway"])
def test_after_a_transform_the_state_is_what_it_was(face, name, transform, warm):
    net, x = network(face, name), torch.rand(4, 8)
    if warm:  # a state of the shape that a step has within
        single = transform in ("vmap of grad", "grad in vmap", "buffers given")
        with torch.no_grad():
            net(x[:1] if single else x)
    before = held(face, net)
    TRANSFORMS[transform](net, x)
    assert held(face, net) is before or held(face, net) == before
    usable(face, net, x)


@pytest.mark.parametrize("transform", ["vmap of grad", "grad"])
def test_a_reset_within_a_transform_starts_anew_and_leaves_nothing(face, transform):
    net, x = network(face), torch.rand(4, 8)
    if transform == "grad":
        whole = whole_batch(net, x)

        def inner(p):
            fresh(face, net)
            loss(net, p, x)
            fresh(face, net)
            return loss(net, p, x)

        found = grad(inner)(weights(net))
        assert all(torch.equal(found[name], whole[name]) for name in whole)
    else:
        reset_inside(face)(net, x)
    usable(face, net, x)


@every_neuron
def test_steps_of_one_transform_see_each_others_state(face, name):
    net, x = network(face, name), torch.rand(4, 8)
    found = per_sample(net, x)
    for i in range(4):
        fresh(face, net)
        net.zero_grad()
        loss(net, dict(net.named_parameters()), x[i : i + 1]).backward()
        torch.testing.assert_close(found["0.weight"][i], net[0].weight.grad)
    fresh(face, net)
    again = per_sample(net, x)
    assert all(torch.equal(found[name], again[name]) for name in found)


def test_an_inner_transform_starts_from_the_outer_ones_state_and_leaves_it(face):
    net, x = network(face), torch.rand(4, 8)
    params = weights(net)

    def outer(x):
        first = functional_call(net, params, (x[None],))
        inner = grad(lambda x: functional_call(net, params, (x[None],)).sum())(x)
        return first, inner, functional_call(net, params, (x[None],))

    _, inner, second = vmap(outer)(x)
    with torch.no_grad():
        net(x)
        expected = net(x)
    torch.testing.assert_close(second[:, 0], expected)
    assert inner.shape == x.shape


def test_the_state_of_a_dual_level_is_an_ordinary_one_afterwards(face):
    net, x = network(face), torch.rand(4, 8)
    with torch.no_grad(), forward_ad.dual_level():
        net(forward_ad.make_dual(x, torch.ones_like(x)))
    usable(face, net, x)


def test_the_state_of_inference_mode_can_be_copied_reset_and_trained_from(face):
    net, x = network(face), torch.rand(4, 8)
    with torch.inference_mode():
        net(x)
    copy.deepcopy(net)(x).sum().backward()
    usable(face, net, x)


def test_a_step_that_fails_leaves_the_state_as_it_was(face):
    def failing(u):
        if fails:
            raise KeyboardInterrupt
        return torch.sigmoid(4 * u)

    key = {"snntorch": "spike_grad", "spikingjelly": "surrogate_function"}[face.name]
    fails = False
    net, x = network(face, **{key: failing}), torch.rand(4, 8)
    with torch.no_grad():
        net(x)
    before, fails = held(face, net), True
    for run in (lambda: net(x), lambda: whole_batch(net, x)):
        with pytest.raises(KeyboardInterrupt):
            run()
        assert held(face, net) is before


def test_a_watcher_that_fails_leaves_the_state_as_it_was(face):
    net, x = network(face), torch.rand(4, 8)
    with torch.no_grad():
        net(x)
    before = held(face, net)

    class Watcher:
        def begin(self, layer):
            pass

        def see(self, *found):
            raise KeyboardInterrupt

    from snn_ext.energy import layers

    watcher = Watcher()
    end = layers.watch(layers.spiking(net)[0], watcher)
    with pytest.raises(KeyboardInterrupt):
        net(x)
    end()
    assert held(face, net) is before
