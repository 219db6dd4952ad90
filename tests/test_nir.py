"""NIR exchange: LIFB as plain LIF neurons, read back with equal spikes; what NIR cannot say is refused."""

import importlib.util
import logging

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import nn

nir = pytest.importorskip("nir", reason="nir is not installed")
pytest.importorskip("nirtorch", reason="nirtorch is not installed")


def read_snntorch(graph):
    from snntorch.import_nir import import_from_nir

    return import_from_nir(graph)


def read_spikingjelly(graph):
    from spikingjelly.activation_based.nir_exchange import import_from_nir

    return import_from_nir(graph)


def read_norse(graph):
    import norse.torch

    return norse.torch.from_nir(graph, dt=1e-4)


READERS = {"snntorch": read_snntorch, "spikingjelly": read_spikingjelly, "norse": read_norse}


def has(module):
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


@pytest.fixture(params=READERS)
def reader(request):
    modules = {"spikingjelly": "spikingjelly.activation_based.nir_exchange"}
    if not has(modules.get(request.param, request.param)):
        pytest.skip(f"{request.param} with a NIR reader is not installed")
    return READERS[request.param]


@pytest.fixture(autouse=True)
def _writers(request):
    chosen = request.node.funcargs.get("face") or request.getfixturevalue("face")
    without = chosen.name == "spikingjelly" and not has("spikingjelly.activation_based.nir_exchange")
    if without and request.node.originalname != "test_spikingjelly_without_nir_exchange_says_so":
        pytest.skip("this SpikingJelly has no NIR exchange")
    logging.getLogger().setLevel(logging.ERROR)


def simulate(read, graph, x_seq, path):
    """Write the graph to a file, read it in another simulator, and run it step by step."""
    nir.write(path, graph)
    net, state, outputs = read(nir.read(path)), None, []
    with torch.no_grad():
        for x in x_seq:
            y, state = net(x) if state is None else net(x, state)
            outputs.append(y)
    return torch.stack(outputs)


def dense(face, **options):
    return nn.Sequential(
        face.linear(64, 32),
        face.lifb(0.8, 0.5, burst_threshold=0.9, burst_intensity=2.5, **face.hard, **options),
        face.linear(32, 16),
        face.lif(0.5, 0.25),
        face.linear(16, 10, bias=False),
        face.lifb(0.75, 0.125, **face.hard),
    )


def digits(steps, samples):
    """Real images, brighter from step to step."""
    images = torch.as_tensor(load_digits().images[:samples] / 8, dtype=torch.float32)
    return torch.stack([images * (t + 1) / steps for t in range(steps)])


def test_spikes_are_equal_in_every_reader_on_real_input(face, reader, tmp_path):
    torch.manual_seed(1)
    net, x_seq = dense(face), digits(12, 40).flatten(2)
    expected = face.run(net, x_seq)
    assert expected.unique().tolist() == [0, 1, 2]
    for unit_resistance in (True,) if reader is read_norse else (False, True):
        graph = face.export(net, x_seq, unit_resistance=unit_resistance)
        ours = simulate(reader, graph, x_seq, tmp_path / "net.nir")
        assert torch.equal(ours.view_as(expected), expected)


def test_a_convolutional_network_too(face, reader, tmp_path):
    torch.manual_seed(2)
    intensity = 1 + torch.rand(4, 1, 1).mul(8).round() / 8
    net = nn.Sequential(
        face.conv(1, 4, 3),
        face.lifb(0.75, 0.25, burst_intensity=intensity, **face.hard),
        face.conv(4, 3, 3),
        face.lif(0.5, 0.125),
        face.flatten(),
        face.linear(3 * 16, 5),
        face.lifb(0.5, 0.0625, **face.hard),
    )
    for sample in range(3):  # one image at a time: not every reader flattens a batch as one would think
        x_seq = digits(10, 3)[:, sample, None]
        batched = x_seq[:, None] if face.name == "spikingjelly" else x_seq
        if face.name == "snntorch":
            with torch.no_grad():
                face.ext.reset(net)
                net[4].start_dim = 0
                expected = torch.stack([net(x) for x in x_seq])
                face.ext.reset(net)
            net[4].start_dim = 1  # as snnTorch's exporter counts, with a batch
            graph = face.ext.export_to_nir(net, x_seq[:1], ignore_dims=[0], unit_resistance=True)
        else:
            expected = face.run(net, batched)[:, 0]
            graph = face.export(net, batched, unit_resistance=True)
        wants_batch = reader is read_spikingjelly
        ours = simulate(reader, graph, x_seq[:, None] if wants_batch else x_seq, tmp_path / "net.nir")
        assert torch.equal(ours.reshape(expected.shape), expected)
    assert expected.unique().numel() == 3


@st.composite
def neurons(draw):
    threshold = draw(st.sampled_from([0.25, 0.5, 1.0, 3.0, [0.25, 1.0, 2.0], [-0.5, 0.0, 0.75]]))
    threshold = torch.tensor(threshold) if isinstance(threshold, list) else threshold
    return {
        "decay": draw(st.sampled_from([0.5, 0.75, 0.9, 0.99])),
        "threshold": threshold,
        "burst_threshold": threshold + draw(st.sampled_from([1 / 16, 0.25, 1.0, 8.0])),
        "burst_intensity": draw(st.sampled_from([1.0, 1.5, 4.0])),
        "seed": draw(st.integers(0, 2**31)),
    }


@given(case=neurons())
def test_the_seven_neurons_are_a_lifb_for_any_parameters_and_input(face, case):
    """The construction itself, simulated here in float64 as NIR defines it: no reader in between."""
    import numpy as np

    generator = torch.Generator().manual_seed(case.pop("seed"))
    lifb = face.lifb(**case, **face.hard)
    x_seq = 1.5 * torch.randn(40, 1, 3, generator=generator)
    net = nn.Sequential(nn.Identity(), lifb)
    expected = face.run(net, x_seq)[:, 0]

    from snn_ext.nir import Neurons, _bursting

    plain = {k: v for k, v in case.items() if k != "burst_intensity"}
    nodes, *_ = _bursting(
        "n", Neurons(gain=1.0, **plain, burst_intensity=case["burst_intensity"]), (3,), 1e-4, False
    )
    weights = {name: np.float64(node.weight) for name, node in nodes.items() if hasattr(node, "weight")}
    lif = nodes["n"]
    decay = 1 - 1e-4 / np.float64(lif.tau)
    v = spikes = np.zeros(lif.tau.shape)
    outputs, distance = [], np.inf
    for x in x_seq[:, 0].double().numpy():
        current = weights["n_expand"] @ x + nodes["n_expand"].bias
        current = current + weights["n_currents"] @ (weights["n_sums"] @ spikes)
        h = decay * v + current
        distance = min(distance, np.abs(h - lif.v_threshold).min())
        spikes = (h > lif.v_threshold).astype(float)
        v = (1 - spikes) * h
        outputs.append(weights["n_contract"] @ spikes)
    if distance > 1e-5:  # decays are stored in float32
        np.testing.assert_allclose(np.stack(outputs), expected.numpy(), atol=1e-6)


def test_nothing_but_lif_neurons_and_linear_layers_is_written(face):
    x_seq = digits(2, 3).flatten(2)
    graph = face.export(dense(face), x_seq, unit_resistance=True)
    kinds = {type(node) for node in graph.nodes.values()}
    assert kinds <= {nir.Input, nir.Output, nir.Affine, nir.LIF}
    assert all((node.r == 1).all() for node in graph.nodes.values() if isinstance(node, nir.LIF))


def test_the_resistance_is_the_native_one_unless_asked_otherwise(face):
    graph = face.export(dense(face), digits(6, 5).flatten(2))
    lif = [node for node in graph.nodes.values() if isinstance(node, nir.LIF)]
    assert all(torch.allclose(torch.tensor(n.r), torch.tensor(n.tau / 1e-4)) for n in lif)


def test_the_network_is_left_untouched(face):
    net, x_seq = dense(face), digits(4, 5).flatten(2)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    expected = face.run(net, x_seq)
    face.export(net, x_seq)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert torch.equal(face.run(net, x_seq), expected)


def test_learned_parameters_per_neuron_are_written(face, tmp_path):
    torch.manual_seed(4)
    threshold = torch.rand(32) - 0.1  # some fire at rest
    net = nn.Sequential(
        face.linear(64, 32),
        face.lifb(
            0.8,
            threshold,
            burst_threshold=threshold + torch.rand(32) + 0.1,
            learn_threshold=True,
            **face.hard,
        ),
        face.linear(32, 10),
        face.lif(0.5, 0.25),
    )
    x_seq = digits(12, 40).flatten(2)
    expected = face.run(net, x_seq)
    assert expected.any()
    ours = simulate(READERS[face.name], face.export(net, x_seq), x_seq, tmp_path / "net.nir")
    assert torch.equal(ours, expected)


def test_decays_that_differ_between_neurons_are_written(face, tmp_path):
    if face.name != "snntorch":
        pytest.skip("SpikingJelly's importer takes one time constant a layer")
    pytest.importorskip("norse")
    torch.manual_seed(6)
    beta = 0.5 + torch.rand(32) / 4
    net = nn.Sequential(
        nn.Linear(64, 32), face.lifb(beta, 0.5, learn_beta=True, **face.hard), nn.Linear(32, 4)
    )
    x_seq = digits(8, 30).flatten(2)
    expected = face.run(net, x_seq)
    for read in (read_snntorch, read_norse):
        graph = face.export(net, x_seq, unit_resistance=read is read_norse)
        ours = simulate(read, graph, x_seq, tmp_path / "net.nir")
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


def test_neurons_without_leak_are_written(face, reader, tmp_path):
    torch.manual_seed(7)
    mpr = {"snntorch": "SoftResetMPR", "spikingjelly": "SoftResetMPRNode"}[face.name]
    hidden = {"init_hidden": True} if face.name == "snntorch" else {}
    net = nn.Sequential(
        face.linear(64, 32), getattr(face.ext, mpr)(**hidden, **face.hard), face.linear(32, 4)
    )
    if face.name == "snntorch":
        net.append(face.lifb(1.0, 0.5, **face.hard))
    x_seq = digits(12, 20).flatten(2)
    expected = face.run(net, x_seq)
    graph = face.export(net, x_seq, unit_resistance=reader is read_norse)
    ours = simulate(reader, graph, x_seq, tmp_path / "net.nir").view_as(expected)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
    assert expected.any()


@pytest.mark.parametrize("burst_threshold", [1e4, 1e6, float("inf")])
def test_burst_thresholds_far_away_are_written(face, burst_threshold, tmp_path):
    torch.manual_seed(8)
    net = nn.Sequential(
        face.linear(64, 32),
        face.lifb(0.75, 0.5, burst_threshold=burst_threshold, **face.hard),
        face.linear(32, 4),
    )
    x_seq = digits(8, 20).flatten(2)
    expected = face.run(net, x_seq)
    ours = simulate(READERS[face.name], face.export(net, x_seq), x_seq, tmp_path / "net.nir")
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


def test_a_single_neuron_an_unused_and_a_shared_one_are_refused(face):
    x_seq = digits(2, 3).flatten(2)
    with pytest.raises(NotImplementedError, match="is no network to export"):
        face.export(face.lifb(**face.hard), x_seq)
    lifb = face.lifb(**face.hard)
    with pytest.raises(NotImplementedError, match="'2' stands at two places"):
        face.export(nn.Sequential(face.linear(64, 64), lifb, lifb), x_seq)


def test_an_unused_neuron_is_left_out(face):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.used, self.unused = (
                face.linear(64, 4),
                face.lifb(**face.hard),
                face.lifb(**face.hard),
            )

        def forward(self, x):
            return self.used(self.fc(x))

    nodes = face.export(Net(), digits(2, 3).flatten(2)).nodes
    assert "used" in nodes
    assert not [name for name in nodes if "unused" in name]


FUNCTIONS = {
    "scaled": lambda net, h: net.lifb(h * 100),
    "offset": lambda net, h: net.lifb(h + 1),
    "doubled": lambda net, h: net.lifb(h + h),
    "sigmoid": lambda net, h: net.lifb(torch.sigmoid(h)),
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_functions_that_would_be_lost_are_refused(face, function):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lifb = face.linear(64, 4), face.lifb(**face.hard)

        def forward(self, x):
            return FUNCTIONS[function](self, self.fc(x))

    with pytest.raises(
        NotImplementedError, match=r"in the forward of Net is not a layer, and .* would lose it"
    ):
        face.export(Net(), digits(2, 3).flatten(2))


@pytest.mark.parametrize("layer", [nn.ReLU(), nn.Dropout(), nn.BatchNorm1d(4), nn.MaxPool1d(2)])
def test_layers_that_nir_does_not_know_are_named(face, layer):
    net = nn.Sequential(face.linear(64, 4), layer, face.lifb(**face.hard)).eval()
    sample = digits(2, 3).flatten(2)[0]  # one step
    with pytest.raises(
        NotImplementedError, match=rf"{type(layer).__name__} at '1' cannot be exported to NIR"
    ):
        face.ext.export_to_nir(net, sample)


def test_snntorch_a_native_spike_factor_is_refused(face):
    if face.name != "snntorch":
        pytest.skip("snnTorch only")
    net = nn.Sequential(nn.Linear(64, 4), face.lif(graded_spikes_factor=2.0))
    with pytest.raises(NotImplementedError, match="graded_spikes_factor; fold it into the weights"):
        face.export(net, digits(2, 3).flatten(2))


def test_a_hard_reset_mpr_is_a_lif(face, reader, tmp_path):
    torch.manual_seed(5)
    net = nn.Sequential(
        face.linear(64, 32),
        face.mpr(0.75, 0.5, amplitude=1.5, **face.hard),
        face.linear(32, 10),
        face.lif(0.5, 0.25),
    )
    x_seq = digits(12, 20).flatten(2)
    expected = face.run(net, x_seq)
    assert expected.any()
    graph = face.export(net, x_seq, unit_resistance=reader is read_norse)
    assert torch.equal(simulate(reader, graph, x_seq, tmp_path / "net.nir").view_as(expected), expected)


REFUSED = {
    "soft LIFB": (
        lambda f: f.lifb(**f.soft),
        "LIFB(Node)? at '1' cannot be .* reset.*resets hard.*build it with",
    ),
    "soft MPR": (lambda f: f.mpr(0.75, 0.5), "SoftResetMPR(Node)? at '1' .* resets hard"),
    "VSN": (lambda f: f.vsn(), "VSN(Node)? at '1' .* graded spikes; leave it out"),
    "threshold": (lambda f: f.mpr(0.5, -0.5, **f.hard), "use one above zero"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_nir_cannot_say_is_refused(face, case):
    make, message = REFUSED[case]
    net = nn.Sequential(face.linear(64, 8), make(face))
    with pytest.raises(NotImplementedError, match=message):
        face.export(net, digits(2, 3).flatten(2))


def test_a_native_soft_reset_is_refused_too(face):
    net = nn.Sequential(face.linear(64, 8), face.lif(**face.soft))
    with pytest.raises(NotImplementedError, match="reset"):
        face.export(net, digits(2, 3).flatten(2))


def test_parameters_that_differ_within_a_channel_are_refused(face):
    net = nn.Sequential(face.conv(1, 2, 3), face.lifb(burst_intensity=1 + torch.rand(2, 6, 6), **face.hard))
    with pytest.raises(NotImplementedError, match="differ within a channel"):
        face.export(net, digits(2, 3)[:, :, None])


def test_the_frameworks_own_exporter_refuses_and_names_ours(face):
    net, x_seq = nn.Sequential(face.linear(64, 8), face.lifb(**face.hard)), digits(2, 3).flatten(2)
    if face.name == "snntorch":
        from snntorch.export_nir import export_to_nir
    else:
        from spikingjelly.activation_based.nir_exchange import export_to_nir
    with pytest.raises(NotImplementedError, match=rf"snn_ext\.{face.name}\.export_to_nir"):
        export_to_nir(net, x_seq[0])


def test_snntorch_any_subclass_of_leaky_with_dynamics_of_its_own_is_refused(face):
    if face.name != "snntorch":
        pytest.skip("snnTorch only")
    from snntorch.export_nir import export_to_nir

    class Doubled(face.native):
        def forward(self, input_, mem=None):
            return 2 * super().forward(input_, mem)

    class Renamed(face.native):
        pass

    net = nn.Sequential(nn.Linear(4, 3), Doubled(torch.full((3,), 0.5), init_hidden=True))
    with pytest.raises(
        NotImplementedError, match="Doubled cannot be exported to NIR: it is a subclass of snn.Leaky"
    ):
        export_to_nir(net, torch.rand(4))
    net = nn.Sequential(nn.Linear(4, 3), Renamed(torch.full((3,), 0.5), torch.ones(3), init_hidden=True))
    assert any(isinstance(node, nir.LIF) for node in export_to_nir(net, torch.rand(4)).nodes.values())


def test_spikingjelly_without_nir_exchange_says_so(face):
    if face.name != "spikingjelly" or has("spikingjelly.activation_based.nir_exchange"):
        pytest.skip("for a SpikingJelly without NIR exchange")
    with pytest.raises(NotImplementedError, match=r"no NIR exchange.*install spikingjelly>=2\.0\.0"):
        face.export(nn.Sequential(face.lifb()), torch.zeros(2, 1, 3))
