"""The frameworks' own neurons in NIR: written with resets that NIR has, else refused by name."""

import pytest
import torch
from test_nir import simulate
from torch import nn

nir = pytest.importorskip("nir", reason="nir is not installed")
pytest.importorskip("nirtorch", reason="nirtorch is not installed")


@pytest.fixture
def snn():
    return pytest.importorskip("snntorch")


@pytest.fixture
def neuron():
    pytest.importorskip("spikingjelly.activation_based.nir_exchange")
    from spikingjelly.activation_based import neuron

    return neuron


def made(snn, kind, reset="zero"):
    """A neuron of snnTorch for a layer of five."""
    options = {"init_hidden": True, "reset_mechanism": reset}
    if kind == "Synaptic":
        return snn.Synaptic(0.5, 0.75, 0.5, **options)
    if kind == "RLeaky":
        return snn.RLeaky(0.5, linear_features=5, threshold=0.5, **options)
    return snn.RSynaptic(0.5, 0.75, linear_features=5, threshold=0.5, **options)


@pytest.mark.parametrize("kind", ["Synaptic", "RLeaky", "RSynaptic"])
def test_snntorch_neurons_of_other_kinds(snn, kind):
    from snn_ext.snntorch import export_to_nir

    net = nn.Sequential(nn.Linear(6, 5), made(snn, kind), nn.Linear(5, 2, bias=False))
    if kind == "RLeaky" and snn.__version__.startswith("0."):
        with pytest.raises(NotImplementedError, match=r"RLeaky at '1' .* exporter"):
            export_to_nir(net, torch.rand(3, 6))
        return
    graph = export_to_nir(net, torch.rand(3, 6))
    neurons = [node for node in graph.nodes.values() if hasattr(node, "v_threshold")]
    assert [type(node) for node in neurons] == [nir.LIF if kind == "RLeaky" else nir.CubaLIF]
    assert neurons[0].v_threshold.shape == (5,)
    assert (neurons[0].v_threshold > 0.5).all()  # snnTorch fires above
    recurrent = [edge for edge in graph.edges if edge[::-1] in graph.edges]
    assert len(recurrent) == (0 if kind == "Synaptic" else 2)
    assert not any(isinstance(node, nir.Linear) for node in graph.nodes.values())
    if kind == "RLeaky":
        one = export_to_nir(net, torch.rand(3, 6), unit_resistance=True)
        assert (one.nodes["1.lif"].r == 1).all()
        assert list(one.nodes) == list(graph.nodes)
        torch.testing.assert_close(one.nodes["0"].weight, 2 * graph.nodes["0"].weight)
        torch.testing.assert_close(one.nodes["1.w_rec"].weight, 2 * graph.nodes["1.w_rec"].weight)


@pytest.mark.parametrize("kind", ["Synaptic", "RLeaky", "RSynaptic"])
def test_snntorch_soft_resets_of_other_kinds_are_refused(snn, kind):
    from snn_ext.snntorch import export_to_nir

    net = nn.Sequential(nn.Linear(6, 5), made(snn, kind, "subtract"))
    with pytest.raises(NotImplementedError, match=rf"{kind} at '1' .* the reset 'subtract'"):
        export_to_nir(net, torch.rand(3, 6))


def test_snntorch_neurons_that_nir_has_not_are_refused(snn):
    from snn_ext.snntorch import LIFB, decouple, export_to_nir

    class Doubled(snn.Leaky):
        def forward(self, input_, mem=None):
            return 2 * super().forward(input_, mem)

    options = {"init_hidden": True, "reset_mechanism": "zero"}
    for layer in (Doubled(0.5, **options), snn.Lapicque(0.5, **options)):
        net = nn.Sequential(nn.Linear(6, 5), layer)
        with pytest.raises(
            NotImplementedError, match=rf"{type(layer).__name__} at '1' .* dynamics of its own"
        ):
            export_to_nir(net, torch.rand(3, 6))
    pairs = decouple(nn.Sequential(nn.Linear(6, 5), LIFB(0.5, **options)))
    with pytest.raises(NotImplementedError, match=r"DecoupledLIFB at '1' .* export the network that"):
        export_to_nir(pairs, torch.rand(3, 6))


KINDS = {
    "IFNode": {"v_threshold": 0.5},
    "ParametricLIFNode": {"init_tau": 2.0, "decay_input": False, "v_threshold": 0.5},
    "LIFNode": {"tau": 2.0, "v_threshold": 0.25},
    "LIFNode, at rest elsewhere": {"tau": 2.0, "v_threshold": 0.25, "v_reset": -0.5},
    "CUBALIFNode": {"c_decay": 0.5, "v_decay": 0.75, "v_threshold": 0.5},
}


@pytest.mark.parametrize("kind", KINDS)
def test_spikingjelly_neurons_are_read_back_with_their_ties(neuron, kind, tmp_path):
    from spikingjelly.activation_based import functional, layer
    from spikingjelly.activation_based.nir_exchange import import_from_nir

    from snn_ext.spikingjelly import export_to_nir

    make = getattr(neuron, kind.split(",")[0])
    node = make(**KINDS[kind])
    net = nn.Sequential(layer.Linear(6, 8, bias=False), node)
    with torch.no_grad():
        net[0].weight.copy_(torch.randint(-1, 3, (8, 6)) / 4)
    x_seq = torch.randint(0, 2, (12, 4, 6)).float()
    with torch.no_grad():
        expected = torch.stack([net(x) for x in x_seq])
    functional.reset_net(net)
    graph = export_to_nir(net, x_seq[0])
    assert expected.any()
    assert torch.equal(simulate(import_from_nir, graph, x_seq, tmp_path / "net.nir"), expected)
    soft = nn.Sequential(net[0], make(**{**KINDS[kind], "v_reset": None}))
    with pytest.raises(NotImplementedError, match=rf"{make.__name__} at '1' .* a soft reset"):
        export_to_nir(soft, x_seq[0])


def test_spikingjelly_neurons_that_nir_has_not_are_refused(neuron):
    from spikingjelly.activation_based import layer

    from snn_ext.spikingjelly import export_to_nir

    for node in (neuron.QIFNode(), neuron.KLIFNode()):
        net = nn.Sequential(layer.Linear(6, 5), node)
        with pytest.raises(
            NotImplementedError, match=rf"{type(node).__name__} at '1' .* dynamics of its own"
        ):
            export_to_nir(net, torch.rand(3, 6))
    for wrong in (0, -1.0, "1"):
        with pytest.raises(ValueError, match="dt=.* positive number"):
            export_to_nir(nn.Sequential(layer.Linear(6, 5), neuron.LIFNode()), torch.rand(3, 6), dt=wrong)
