"""Observing the frameworks' own neurons: firing rates of all spiking layers, in any network."""

import gc

import pytest
import torch
from torch import nn

from snn_ext.energy import TotalSpikePenalty, measure_energy
from snn_ext.observe import observe

X_SEQ = 2 * torch.rand(6, 5, 4, generator=torch.Generator().manual_seed(0))


def native(face):
    torch.manual_seed(0)
    return nn.Sequential(face.linear(4, 6), face.lif(), nn.Sequential(face.linear(6, 3), face.lif(0.5, 0.1)))


def emitted(face, net):
    """Run `net`, and return what its neurons emit by name."""
    seen = {}
    hooks = [
        net.get_submodule(name).register_forward_hook(
            lambda m, a, y, name=name: seen.setdefault(name, []).append(y)
        )
        for name in ("1", "2.1")
    ]
    face.run(net, X_SEQ)
    for hook in hooks:
        hook.remove()
    return {name: torch.cat([y.reshape(-1) for y in ys]) for name, ys in seen.items()}


def test_a_purely_native_network(face):
    net = native(face)
    expected = {name: pytest.approx(y.double().mean().item()) for name, y in emitted(face, net).items()}
    with observe(net) as seen:
        face.run(net, X_SEQ)
    assert {name: means["firing_rate"] for name, means in seen.items()} == expected
    assert 0 < seen["1"]["firing_rate"] < 1
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_a_mixed_network(face):
    net = nn.Sequential(
        face.linear(4, 6), face.lif(), face.linear(6, 6), face.lifb(), face.linear(6, 6), face.vsn()
    )
    with observe(net) as seen:
        face.run(net, 3 * X_SEQ)
    assert {name: set(means) for name, means in seen.items()} == {
        "1": {"firing_rate"},
        "3": {"rest", "regular", "burst"},
        "5": {"firing_rate"},
    }


def test_one_native_neuron_with_gradients_and_several_runs(face):
    neuron = face.lif()
    if face.name == "spikingjelly":
        face.functional.set_step_mode(neuron, "s")
    x = X_SEQ[0].requires_grad_()
    with observe(neuron) as seen:
        found = [neuron(x), neuron(x[:2]) if face.name == "snntorch" else neuron(x)]
        seen.refresh()
        first = dict(seen)
    spikes = torch.cat([y.reshape(-1) for y in found])
    assert first[""]["firing_rate"] == pytest.approx(spikes.mean().item())
    spikes.sum().backward()
    neuron(x)
    assert seen == first


def test_input_without_a_batch(face):
    neuron = face.lif()
    if face.name == "spikingjelly":
        face.functional.set_step_mode(neuron, "s")
    with observe(neuron) as seen:
        y = neuron(X_SEQ[0, 0])
    assert seen[""]["firing_rate"] == pytest.approx(y.mean().item())


def test_an_inner_block_and_a_measurement_hide_their_runs(face):
    for net in (native(face), nn.Sequential(face.linear(4, 6), face.lifb(), face.linear(6, 2))):
        with observe(net) as alone:
            face.run(net, X_SEQ)
        with observe(net) as outer:
            face.run(net, X_SEQ)
            with observe(net) as inner:
                face.run(net, X_SEQ + 9)
            x = X_SEQ if face.name == "spikingjelly" else X_SEQ[0]
            measure_energy(net, [x + 5], progress=False)
        assert outer == alone
        assert inner != alone
        assert not any(getattr(module, "_observer", None) for module in net.modules())


def test_a_penalty_beside_it(face):
    net = native(face)
    penalty = TotalSpikePenalty(net)
    with observe(net) as seen, torch.no_grad():
        face.run(net, X_SEQ)
        value = penalty().item()
    assert value == pytest.approx(6 * (6 * seen["1"]["firing_rate"] + 3 * seen["2.1"]["firing_rate"]))


def test_what_is_left_behind(face):
    net = native(face)
    with pytest.raises(ZeroDivisionError), observe(net):
        1 / 0  # noqa: B018
    gc.collect()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_a_layer_of_snntorch_over_sequences():
    snn = pytest.importorskip("snntorch")
    if not hasattr(snn, "StateLeaky"):
        pytest.skip("this release has none")
    layer = snn.StateLeaky(0.9, channels=4, threshold=0.5)
    with observe(layer) as seen:
        y = layer(X_SEQ)
    y = y[0] if isinstance(y, tuple) else y
    assert seen[""]["firing_rate"] == pytest.approx(y.detach().mean().item())


def test_recurrent_neurons_of_snntorch():
    snn = pytest.importorskip("snntorch")
    neuron = snn.RLeaky(0.9, linear_features=4, init_hidden=True)
    with observe(neuron) as seen:
        y = torch.stack([neuron(x) for x in X_SEQ])
    assert seen[""]["firing_rate"] == pytest.approx(y.detach().mean().item())


@pytest.mark.parametrize(
    ("name", "what"), [("TernaryLIFNode", "negative spikes"), ("LIAFNode", "analogue values")]
)
def test_layers_whose_spikes_cannot_be_counted_say_so(name, what):
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    if not hasattr(neuron, "TernaryLIFNode"):
        pytest.skip("this release has no TernaryLIFNode, and its LIAFNode cannot be made")
    strange = neuron.LIAFNode(torch.relu, False, tau=2.0) if name == "LIAFNode" else getattr(neuron, name)()
    net = nn.Sequential(neuron.LIFNode(), strange)
    with pytest.warns(UserWarning, match=f"layer '1': a {name} emits {what}"), observe(net) as seen:
        net(X_SEQ[0])
    assert set(seen) == {"0"}
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(ValueError, match="no spiking layer to observe"),
        observe(strange),
    ):
        pass


def test_a_compiled_native_network_is_seen_without_leaving_the_graph(face, caplog):
    net = native(face)
    with observe(net) as expected:
        face.run(net, X_SEQ)
    torch._logging.set_logs(graph_breaks=True)
    try:
        with observe(net) as seen, caplog.at_level("DEBUG"):
            face.run(torch.compile(net, backend="eager"), X_SEQ)
    finally:
        torch._logging.set_logs()
    assert "Tensor.item" not in caplog.text
    assert seen.keys() == expected.keys()
    for name, means in seen.items():
        assert means["firing_rate"] == pytest.approx(expected[name]["firing_rate"])
