"""NIR export of networks as they are: batches, trained states, batch norm, pooling, pruned weights."""

import pytest
import torch
import torch.nn.utils.prune
from torch import nn

nir = pytest.importorskip("nir", reason="nir is not installed")
pytest.importorskip("nirtorch", reason="nirtorch is not installed")


@pytest.fixture(autouse=True)
def _exporter(face):
    if face.name == "spikingjelly":
        pytest.importorskip("spikingjelly.activation_based.nir_exchange", reason="no NIR exchange")


def read(face, graph, x_seq, path):
    """Run a graph, written and read again, in the face's own importer; its decays are 0.5 and 0.75."""
    nir.write(path, graph)
    if face.name == "snntorch":
        from snntorch.import_nir import import_from_nir
    else:
        from spikingjelly.activation_based.nir_exchange import import_from_nir
    net, state, outputs = import_from_nir(nir.read(path)), None, []
    with torch.no_grad():
        for x in x_seq:
            y, state = net(x) if state is None else net(x, state)
            outputs.append(y)
    return torch.stack(outputs)


def stepwise(face, net, x_seq):
    """Run a network of either face one step a call, from rest."""
    if face.name == "snntorch":
        return face.run(net, x_seq)
    face.functional.set_step_mode(net, "s")
    face.functional.reset_net(net)
    with torch.no_grad():
        outputs = torch.stack([net(x) for x in x_seq])
    face.functional.reset_net(net)
    return outputs


def mlp(face):
    return nn.Sequential(
        face.linear(30, 12), face.lifb(0.5, 0.25, **face.hard), face.linear(12, 5), face.lif()
    )


def conv(face):
    return nn.Sequential(
        face.conv(2, 4, 3),
        face.lifb(0.5, 0.25, **face.hard),
        face.avg_pool(2),
        face.flatten(),
        face.linear(36, 3),
        face.lif(0.5, 0.125),
    )


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_a_batch_is_no_part_of_a_graph(face, batch, tmp_path):
    for net, shape in ((mlp(face), (30,)), (conv(face), (2, 8, 8))):
        x_seq = 4 * torch.rand(6, batch, *shape)
        expected = stepwise(face, net, x_seq)
        graph = face.ext.export_to_nir(net, x_seq[0])
        assert tuple(graph.nodes["input"].input_type["input"]) == shape
        assert tuple(graph.nodes["output"].output_type["output"]) == expected.shape[2:]
        assert set(expected.unique().tolist()) == {0, 1}
        if face.name == "snntorch" and len(shape) == 3:  # its importer would flatten the batch away
            graph.nodes["3"].start_dim, expected, x_seq = 0, expected[:, 0], x_seq[:, 0]
        assert torch.equal(read(face, graph, x_seq, tmp_path / "net.nir"), expected)


def test_one_sample_without_batch_gives_the_same_graph(face):
    net = mlp(face)
    x = torch.rand(3, 30)
    batched, single = (face.ext.export_to_nir(net, sample) for sample in (x, x[0]))
    assert batched.to_dict().keys() == single.to_dict().keys()
    assert list(batched.nodes) == list(single.nodes)
    for name, node in batched.nodes.items():
        assert node.input_type["input"].tolist() == single.nodes[name].input_type["input"].tolist()


def test_ignored_dimensions_may_still_be_named(face):
    if face.name != "snntorch":
        pytest.skip("an argument of snnTorch's exporter")
    net, x = mlp(face), torch.rand(3, 30)
    assert list(face.ext.export_to_nir(net, x, ignore_dims=[0]).nodes["input"].input_type["input"]) == [30]
    for wrong in ([2], 0, ["0"]):
        with pytest.raises(
            ValueError, match=r"ignore_dims=.* no list of dimensions of sample_data.*\(3, 30\)"
        ):
            face.ext.export_to_nir(net, x, ignore_dims=wrong)
    with pytest.raises(TypeError, match="model_fwd_args must be a list .* got int"):
        face.ext.export_to_nir(net, x, model_fwd_args=3)


def test_a_sequence_where_one_step_is_meant_is_refused():
    pytest.importorskip("snntorch")
    import snntorch as snn

    from snn_ext.snntorch import export_to_nir

    net = nn.Sequential(nn.Linear(30, 4), snn.Leaky(0.5, init_hidden=True, reset_mechanism="zero"))
    with pytest.raises(
        ValueError, match=r"'0' \(Linear\) gets \(5, 2, 30\), more than a sample and its batch"
    ):
        export_to_nir(net, torch.rand(5, 2, 30))


def test_wrong_samples_are_refused_by_name(face):
    what = {"snntorch": "sample_data", "spikingjelly": "example_input"}[face.name]
    net = conv(face)
    with pytest.raises(TypeError, match=f"{what} must be a tensor .* got list"):
        face.ext.export_to_nir(net, [1.0])
    with pytest.raises(ValueError, match=rf"does not run on {what} of shape \(2, 3\) .* such as a batch"):
        face.ext.export_to_nir(net, torch.rand(2, 3))
    with pytest.raises(ValueError, match=rf"{what} of shape .* and torch.int64"):
        face.ext.export_to_nir(net, torch.ones(1, 2, 8, 8, dtype=torch.long))
    with pytest.raises(TypeError, match=r"a torch\.nn\.Module, got int"):
        face.ext.export_to_nir(3, torch.rand(2, 3))


def trained_step(face, net, x_seq):
    """Forward and backward; the network keeps its graph, as after the last batch of a training loop."""
    if face.name == "spikingjelly":
        face.functional.set_step_mode(net, "s")
    for x in x_seq:
        y = net(x)
    y.sum().backward()


def test_a_network_in_the_middle_of_training_is_exported_and_decoupled(face):
    net, x_seq = mlp(face), 4 * torch.rand(3, 2, 30)
    trained_step(face, net, x_seq)
    native = net[3]
    state = native.mem if face.name == "snntorch" else native.v
    assert state.grad_fn is not None
    face.ext.export_to_nir(net, x_seq[0])
    pairs = face.ext.decouple(net)
    assert (native.mem if face.name == "snntorch" else native.v) is state
    copied = pairs[3].mem if face.name == "snntorch" else pairs[3].v
    assert copied.grad_fn is None
    assert torch.equal(copied, state.detach())
    with torch.no_grad():
        torch.testing.assert_close(pairs(x_seq[0]), net(x_seq[0]))


REPARAMETRISED = {
    "pruned": lambda layer: nn.utils.prune.l1_unstructured(layer, "weight", 0.5),
    "weight norm": lambda layer: nn.utils.parametrizations.weight_norm(layer),
    "old weight norm": lambda layer: nn.utils.weight_norm(layer),
    "spectral norm": lambda layer: nn.utils.parametrizations.spectral_norm(layer),
    "old spectral norm": lambda layer: nn.utils.spectral_norm(layer),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("how", REPARAMETRISED)
@pytest.mark.parametrize("trained", [False, True])
def test_weights_that_are_computed_are_exported_and_folded_as_they_are(face, how, trained, tmp_path):
    net, x_seq = mlp(face), 4 * torch.rand(5, 2, 30)
    for place in (0, 2):
        REPARAMETRISED[how](net[place])
    if trained:
        trained_step(face, net, x_seq)
    net.eval()
    x_seq = 4 * torch.rand(5, 2, 30)
    pairs = face.ext.decouple(net)
    graph = face.ext.export_to_nir(net, x_seq[0])
    expected = stepwise(face, net, x_seq)
    torch.testing.assert_close(stepwise(face, pairs, x_seq), expected, rtol=0, atol=1e-6)
    assert type(pairs[2].weight) is nn.Parameter
    assert not nn.utils.parametrize.is_parametrized(pairs[2])
    assert torch.equal(read(face, graph, x_seq, tmp_path / "net.nir"), expected)


def test_a_residual_is_written_as_a_sum(face, tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.first, self.b, self.c = (
                face.linear(30, 8),
                face.lif(),
                face.linear(8, 8),
                face.linear(8, 3),
            )

        def forward(self, x):
            spk = self.first(self.a(x))
            return self.c(self.b(spk) + spk)

    net, x_seq = Net(), 4 * torch.rand(5, 2, 30)
    expected = stepwise(face, net, x_seq)
    ours = read(face, face.ext.export_to_nir(net, x_seq[0]), x_seq, tmp_path / "net.nir")
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


def test_weights_are_affine_and_neurons_need_no_scale(face, tmp_path):
    x_seq = 4 * torch.rand(6, 2, 30)
    net = nn.Sequential(
        face.linear(30, 12, bias=False),
        face.mpr(0.75, 0.5, amplitude=1.5, **face.hard),
        face.linear(12, 5, bias=False),
        face.lif(),
    )
    expected = stepwise(face, net, x_seq)
    for unit_resistance in (False, True):
        graph = face.ext.export_to_nir(net, x_seq[0], unit_resistance=unit_resistance)
        assert list(graph.nodes) == ["input", "0", "1", "2", "3", "output"]
        assert [type(graph.nodes[name]) for name in "0123"] == [nir.Affine, nir.LIF, nir.Affine, nir.LIF]
        assert not graph.nodes["0"].bias.any()
    graph = face.ext.export_to_nir(net, x_seq[0])
    assert torch.equal(read(face, graph, x_seq, tmp_path / "net.nir"), expected)
    last = face.ext.export_to_nir(net[:2], x_seq[0])  # nothing after it
    assert list(last.nodes) == ["input", "0", "1", "1_emitted", "output"]
    torch.testing.assert_close(
        read(face, last, x_seq, tmp_path / "net.nir"), stepwise(face, net[:2], x_seq), rtol=0, atol=0
    )


def test_spikingjelly_a_divided_input_is_a_resistance_of_one(tmp_path):
    pytest.importorskip("spikingjelly.activation_based.nir_exchange")
    from spikingjelly.activation_based import layer

    from snn_ext.spikingjelly import SoftResetMPRNode, export_to_nir

    net = nn.Sequential(layer.Linear(8, 4), SoftResetMPRNode(tau=4.0, decay_input=True, v_reset=0.0))
    graph = export_to_nir(net, torch.rand(2, 8))
    assert list(graph.nodes) == ["input", "0", "1", "output"]
    assert (graph.nodes["1"].r == 1).all()
