"""NIR export layer by layer: batch norm and dropout, pooling, convolutions, and what is refused."""

import copy
import importlib.metadata
import importlib.util

import pytest
import torch
from test_nir_samples import read, stepwise
from torch import nn

nir = pytest.importorskip("nir", reason="nir is not installed")
pytest.importorskip("nirtorch", reason="nirtorch is not installed")

OLD = importlib.util.find_spec("snntorch") and importlib.metadata.version("snntorch").startswith("0.")


@pytest.fixture(autouse=True)
def _exporter(face):
    if face.name == "spikingjelly":
        pytest.importorskip("spikingjelly.activation_based.nir_exchange", reason="no NIR exchange")


def layers_of(face):
    """Batch norms and dropouts of torch and of the framework."""
    norms, dropouts = [nn.BatchNorm2d], [nn.Dropout, nn.Dropout2d]
    if face.name == "spikingjelly":
        from spikingjelly.activation_based import layer

        norms.append(layer.BatchNorm2d)
        dropouts += [layer.Dropout, layer.Dropout2d]
    return norms, dropouts


def normed(face, norm, dropout):
    net = nn.Sequential(
        face.conv(2, 4, 3, bias=False),
        norm(4),
        face.lifb(0.5, 0.25, **face.hard),
        dropout(0.5),
        norm(4),  # behind a neuron: its own layer
        face.conv(4, 3, 3),
        norm(3),
        face.lif(0.5, 0.125),
    )
    for module in net:
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
    return net


def test_batch_norm_is_folded_and_dropout_left_out_on_request_else_refused(face, tmp_path):
    norms, dropouts = layers_of(face)
    x_seq = 4 * torch.rand(6, 3, 2, 8, 8)
    for norm in norms:
        for dropout in dropouts:
            net = normed(face, norm, dropout)
            with pytest.raises(
                NotImplementedError, match=f"{norm.__name__} at '1' .* batch norm; export with fold=True"
            ):
                face.ext.export_to_nir(net, x_seq[0])
            with pytest.raises(
                NotImplementedError, match=f"{dropout.__name__} at '0' .* dropout; .*fold=True"
            ):
                face.ext.export_to_nir(nn.Sequential(dropout(0.5), net[0], net[2]), x_seq[0])
            before = copy.deepcopy(net.state_dict())
            graph = face.ext.export_to_nir(net, x_seq[0], fold=True)  # in training mode, too
            assert net.training
            assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
            expected = stepwise(face, net.eval(), x_seq)
            assert 0.05 < expected.mean() < 0.95
            assert torch.equal(read(face, graph, x_seq, tmp_path / "net.nir"), expected)
            assert "1" not in graph.nodes
            assert "3" not in graph.nodes


def test_pooling_is_written_where_nir_has_it(face, tmp_path):
    pools = {
        "average": face.avg_pool(2),
        "overlapping": face.avg_pool(3, 1, 1),
        "sum": face.avg_pool(2, divisor_override=1),
        "power sum": nn.LPPool2d(1, 2),
        "adaptive": nn.AdaptiveAvgPool2d(3),
    }
    x_seq = 4 * torch.rand(6, 3, 2, 8, 8)
    for name, pool in pools.items():
        first = face.conv(2, 4, 3)
        net = nn.Sequential(
            first, face.lifb(0.5, 0.25, **face.hard), pool, face.conv(4, 3, 1), face.lif(0.5, 0.1)
        )
        expected = stepwise(face, net, x_seq)
        graph = face.ext.export_to_nir(net, x_seq[0])
        kind = nir.SumPool2d if "sum" in name else nir.AvgPool2d
        assert isinstance(graph.nodes["2"], kind)
        if kind is nir.SumPool2d and OLD and face.name == "snntorch":
            continue  # snnTorch 0.9's importer knows none
        ours = read(face, graph, x_seq, tmp_path / "net.nir")
        assert torch.equal(ours, expected)


REFUSED = {
    "max": (lambda f: f.max_pool(2), r"MaxPool2d at '1' .* max pooling; use AvgPool2d"),
    "uneven": (lambda f: nn.AdaptiveAvgPool2d(4), r"AdaptiveAvgPool2d at '1' .* windows of different sizes"),
    "adaptive max": (
        lambda f: nn.AdaptiveMaxPool2d(3),
        r"AdaptiveMaxPool2d at '1' .* max pooling",
    ),
    "oblong": (lambda f: f.conv(4, 4, (3, 1)), r"'1' .* a kernel of shape \(3, 1\); use a square one"),
    "divisor": (lambda f: f.avg_pool(2, divisor_override=3), "'1' .* divisor_override=3; use 1"),
    "ceil": (lambda f: f.avg_pool(4, ceil_mode=True), "'1' .* windows that stick out; use ceil_mode=False"),
    "recurrent": (lambda f: nn.GRU(6, 6), r"GRU at '1' .* what it does"),
    "group norm": (lambda f: nn.GroupNorm(2, 4), r"GroupNorm at '1' .* what it does; leave it out"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_layers_that_nir_has_not_are_refused_by_name(face, case):
    make, message = REFUSED[case]
    net = nn.Sequential(face.conv(2, 4, 3), make(face), face.lifb(**face.hard))
    with pytest.raises(NotImplementedError, match=message):
        face.ext.export_to_nir(net, torch.rand(2, 2, 8, 8))


def test_spikingjelly_containers_are_refused_by_name():
    pytest.importorskip("spikingjelly.activation_based.nir_exchange")
    from spikingjelly.activation_based import layer, neuron

    from snn_ext.spikingjelly import LIFBNode, decouple, export_to_nir

    cell = LIFBNode()
    containers = {
        "LinearRecurrentContainer": layer.LinearRecurrentContainer(LIFBNode(), 8, 8),
        "ElementWiseRecurrentContainer": layer.ElementWiseRecurrentContainer(cell, torch.add),
        "SeqToANNContainer": layer.SeqToANNContainer(nn.Linear(8, 8)),
        "StepModeContainer": layer.StepModeContainer(False, nn.Linear(8, 8), neuron.LIFNode()),
    }
    for name, container in containers.items():
        net = nn.Sequential(layer.Linear(8, 8), container)
        x = torch.rand(2, 8) if name != "SeqToANNContainer" else torch.rand(3, 2, 8)
        with pytest.raises(NotImplementedError, match=rf"{name} at '1' .* a container .* nn.Sequential"):
            export_to_nir(net, x)
    pair = decouple(nn.Sequential(layer.Linear(8, 8), LIFBNode()))
    with pytest.raises(
        NotImplementedError, match=r"DecoupledLIFBNode at '1' .* export the network that it was"
    ):
        export_to_nir(pair, torch.rand(2, 8))


def test_convolutions_in_one_dimension_and_in_groups(face, tmp_path):
    x_seq = 4 * torch.rand(6, 3, 2, 9)
    kind = (
        nn.Conv1d
        if face.name == "snntorch"
        else pytest.importorskip("spikingjelly.activation_based.layer").Conv1d
    )
    net = nn.Sequential(
        kind(2, 4, 3, padding=1),
        face.lifb(0.5, 0.25, **face.hard),
        kind(4, 4, 3, groups=2),
        face.lif(0.5, 0.1),
    )
    expected = stepwise(face, net, x_seq)
    graph = face.ext.export_to_nir(net, x_seq[0])
    assert isinstance(graph.nodes["0"], nir.Conv1d)
    assert expected.any()
    if face.name == "spikingjelly":  # snnTorch's importer knows no Conv1d
        assert torch.equal(read(face, graph, x_seq, tmp_path / "net.nir"), expected)
    x_seq = 4 * torch.rand(6, 3, 4, 8, 8)
    net = nn.Sequential(
        face.conv(4, 4, 3, groups=4), face.lifb(0.5, 0.125, **face.hard), face.conv(4, 2, 3, groups=2)
    )
    expected = stepwise(face, net, x_seq)
    ours = read(face, face.ext.export_to_nir(net, x_seq[0]), x_seq, tmp_path / "net.nir")
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
