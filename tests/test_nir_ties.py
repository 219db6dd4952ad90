"""Potentials exactly at a threshold: exported, converted and decoupled networks spike as the original does.

All numbers are multiples of small powers of two, so that sums are exact and ties are common.
"""

import pytest
import torch
from test_nir import READERS, has, simulate
from torch import nn

from snn_ext.surrogate import ATan

nir = pytest.importorskip("nir", reason="nir is not installed")
pytest.importorskip("nirtorch", reason="nirtorch is not installed")


@pytest.fixture(autouse=True)
def _exporter(face):
    if face.name == "spikingjelly":
        pytest.importorskip("spikingjelly.activation_based.nir_exchange", reason="no NIR exchange")


@pytest.fixture(params=READERS)
def reader(request):
    modules = {"spikingjelly": "spikingjelly.activation_based.nir_exchange"}
    if not has(modules.get(request.param, request.param)):
        pytest.skip(f"{request.param} with a NIR reader is not installed")
    return READERS[request.param]


def surrogate(face, strict):
    name = {"snntorch": "spike_grad", "spikingjelly": "surrogate_function"}[face.name]
    return {} if strict is None else {name: ATan(strict=strict)}


NEURONS = {
    "LIFB": lambda f: f.lifb(0.5, 0.5, burst_threshold=1.0, burst_intensity=2.0, **f.hard),
    "LIFB, strict": lambda f: f.lifb(0.5, 0.5, burst_threshold=1.0, **f.hard, **surrogate(f, True)),
    "SoftResetMPR": lambda f: f.mpr(0.5, 0.5, **f.hard),
    "native": lambda f: f.lif(0.5, 0.5),
    "native, strict": lambda f: f.lif(0.5, 0.5, **surrogate(f, True)),
    "native, at": lambda f: f.lif(0.5, 0.5, **surrogate(f, False)),
    "zero threshold": lambda f: f.lifb(0.5, 0.0, burst_threshold=0.5, **f.hard),
}


def dyadic(face, neuron):
    """A network whose potentials stand at thresholds all the time; and its input."""
    net = nn.Sequential(face.linear(6, 8, bias=False), NEURONS[neuron](face), face.linear(8, 8, bias=False))
    net.append(NEURONS[neuron](face))
    with torch.no_grad():
        for layer in (net[0], net[2]):
            layer.weight.copy_(torch.randint(-1, 3, layer.weight.shape) / 4)
    return net, torch.randint(0, 2, (20, 16, 6)).float()


def ties(face, net, x_seq):
    """Return how many potentials of the first step stand at the threshold of the first neuron."""
    threshold = net[1].threshold if face.name == "snntorch" else net[1].v_threshold
    currents = net[0](x_seq[0])
    return int((currents == threshold).sum())


@pytest.mark.parametrize("neuron", NEURONS)
def test_ties_are_read_as_they_were_written(face, reader, neuron, tmp_path):
    net, x_seq = dyadic(face, neuron)
    assert ties(face, net, x_seq) > 5
    expected = face.run(net, x_seq)
    assert expected.any()
    graph = face.export(net, x_seq, unit_resistance=reader is READERS["norse"])
    ours = simulate(reader, graph, x_seq, tmp_path / "net.nir").view_as(expected)
    assert torch.equal(ours, expected)


def test_averages_of_spikes_are_read_as_they_were_written(face, reader, tmp_path):
    if reader is READERS["norse"]:
        pytest.skip("Norse reads no average pooling")
    net = nn.Sequential(
        face.conv(2, 4, 3, bias=False), face.mpr(0.5, 0.5, **face.hard), face.avg_pool(2, 2)
    ).append(face.mpr(0.5, 0.5, **face.hard))
    x_seq = 3 * torch.randn(12, 2, 2, 8, 8)
    expected = face.run(net, x_seq)
    assert (torch.nn.functional.avg_pool2d(face.run(net[:2], x_seq).flatten(0, 1), 2) == 0.5).sum() > 50
    ours = simulate(reader, face.export(net, x_seq), x_seq, tmp_path / "net.nir").view_as(expected)
    assert torch.equal(ours, expected)


@pytest.mark.parametrize("threshold", [0.0, 0.5, -1.0, 3.0, 1e-3])
def test_a_threshold_beside_is_that_of_either_kind_of_reader(threshold):
    import numpy as np

    from snn_ext.nir import beside

    exact = np.float32(threshold)
    far = np.float32([exact - 1, np.nextafter(exact, np.float32(-9)), exact, exact + 1])
    above, at = beside(threshold, False), beside(threshold, True)
    if threshold == 0:
        far = np.float32([-1, 0, 1])
    for written, meant in ((above, far > exact), (at, far >= exact)):
        assert written.dtype == np.float32
        for h, fires in zip(far, meant, strict=True):
            if h != written:  # which the two kinds of readers decide otherwise
                assert (h > written) == (h >= written) == fires
    assert beside(np.inf, True) == np.inf


def test_a_surrogate_that_is_no_step_is_refused(face):
    smooth = {"snntorch": "spike_grad", "spikingjelly": "surrogate_function"}[face.name]
    net = nn.Sequential(face.linear(6, 4), face.lif(0.5, 0.5, **{smooth: torch.sigmoid}))
    with pytest.raises(NotImplementedError, match="at '1' .* a surrogate that is no step"):
        face.export(net, torch.rand(2, 3, 6))


def test_decoupled_pairs_fire_as_the_lifb_at_ties(face):
    for neuron in ("LIFB", "zero threshold"):
        net, x_seq = dyadic(face, neuron)
        expected = face.run(net, x_seq)
        assert torch.equal(face.run(face.ext.decouple(net), x_seq), expected)
        assert torch.equal(face.run(face.ext.decouple(net, fold=False), x_seq), expected)


@pytest.mark.parametrize("initial", [0.0, 0.5])
def test_converted_networks_fire_fused_as_step_by_step_at_ties(face, initial):
    ann = nn.Sequential(nn.Linear(6, 8, bias=False), nn.ReLU(), nn.Linear(8, 4, bias=False))
    with torch.no_grad():
        ann[0].weight.copy_(torch.randint(0, 2, (8, 6)) / 4)
        ann[0].weight[0] = torch.tensor([0.5, 0.5, 0.5, 0.5, 0, 0])  # at most 2, so all is divided by 2
        ann[2].weight.copy_(torch.randint(-1, 3, (4, 8)) / 4)
    x = torch.randint(0, 3, (64, 6)) / 2
    x[0] = 1
    loader = [(x, torch.zeros(64, dtype=torch.long))]
    options = {
        "initial": initial,
        "percentile": 1.0,
        "per_channel": False,
        "fit_offsets": False,
        "progress": False,
        "coding": "direct",
    }
    if face.name == "snntorch":
        net = face.ext.convert(ann, loader, **options)
    else:
        net = face.ext.Converter(face.ext.L4Recipe(loader, **options)).convert(ann)
    weight = next(net.parameters())
    assert torch.equal(weight, ann[0].weight / 2)
    assert ((x @ weight.T).cumsum(0) == 1).any()
    x_seq = x.expand(8, 64, 6)
    fused = face.ext.multi_step(net, x_seq)
    if face.name == "snntorch":
        face.ext.reset(net)
    else:
        face.functional.set_step_mode(net, "s")
        face.functional.reset_net(net)
    with torch.no_grad():
        single = torch.stack([net(step) for step in x_seq])
    assert torch.equal(fused, single)
