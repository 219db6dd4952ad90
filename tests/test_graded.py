"""Graded and burst spikes where the frameworks read 0 and 1: events, their gradient, the docs' table."""

import importlib
import importlib.util
import itertools
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import snn_ext.functional as F
from snn_ext import graded
from snn_ext.graded import events
from snn_ext.surrogate import ATan

ROOT = Path(__file__).parents[1]
SNNTORCH, SPIKINGJELLY = (importlib.util.find_spec(name) is not None for name in ("snntorch", "spikingjelly"))
needs_snntorch = pytest.mark.skipif(not SNNTORCH, reason="needs snnTorch")
needs_spikingjelly = pytest.mark.skipif(not SPIKINGJELLY, reason="needs SpikingJelly")
STEPS, BATCH, NEURONS = 8, 9, 4


def drive():
    """An input on which neurons fire, burst, and fire at negative inputs."""
    generator = torch.Generator().manual_seed(3)
    return 1.5 * torch.randn(STEPS, BATCH, NEURONS, generator=generator) + 0.5


def spikes(kind):
    """What neurons with the same events emit, shape (T, N, neurons)."""
    x = drive()
    common = {"decay": 0.9, "surrogate": ATan()}
    if kind == "graded":
        signs = torch.tensor(
            [1.0, -1.0, 1.0, -1.0]
        )  # negative ones come from an activation, or a threshold below 0
        return signs * F.vsn(x, threshold=0.6, **common)[0]
    intensity = 2.5 if kind == "bursts" else 1.0
    return F.lifb(x, threshold=0.6, burst_threshold=1.5, burst_intensity=intensity, **common)[0]


def test_the_three_kinds_of_spikes_are_what_the_tests_need():
    binary, bursts, sizes = map(spikes, ("binary", "bursts", "graded"))
    assert binary.equal(events(binary))
    assert set(bursts.unique().tolist()) == {0.0, 1.0, 2.5}
    assert (sizes > 0).any()
    assert (sizes < 0).any()
    assert events(bursts).equal(binary)
    assert events(sizes).equal(binary)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_events_are_0_and_1(dtype):
    spk = torch.tensor([0.0, 1.0, 2.5, -0.3, 1e-3, -0.0], dtype=dtype)
    expected = torch.tensor([0.0, 1.0, 1.0, 1.0, 1.0, 0.0], dtype=dtype)
    assert events(spk).equal(expected)
    found = events(spk.requires_grad_())
    assert found.dtype == dtype
    assert found.detach().equal(expected)
    found.sum().backward()
    assert bool(spk.grad.isfinite().all())


def test_events_divide_the_gradient_by_the_size():
    spk = torch.tensor([0.0, 1.0, 2.5, -0.5], requires_grad=True)
    events(spk).backward(torch.ones(4))
    assert spk.grad.tolist() == pytest.approx([1.0, 1.0, 0.4, -2.0])
    (grad,) = torch.autograd.grad(events(spk, torch.tensor([0.5, 1.0, 0.0, -4.0])), spk, torch.ones(4))
    assert grad.tolist() == pytest.approx([2.0, 1.0, 1.0, -0.25])  # a size of 0 says nothing
    (grad,) = torch.autograd.grad(events(spk, 2.0), spk, torch.ones(4))
    assert grad.tolist() == [0.5] * 4
    assert torch.func.vmap(torch.func.grad(lambda s: events(s)))(spk.detach()).tolist() == pytest.approx(
        [1.0, 1.0, 0.4, -2.0]
    )


@pytest.mark.parametrize("spk", [[0.0, 1.0], torch.tensor([0, 2]), None])
def test_events_of_something_else_are_refused(spk):
    with pytest.raises(TypeError, match="spk must be a floating-point tensor of emitted spikes, got"):
        events(spk)


def emitted(kind, **learned):
    """Return the events of neurons with the same dynamics in float64, their gradients as those of ``LIF``."""
    x = drive().double().requires_grad_()
    common = {"surrogate": ATan(), "decay": torch.tensor(0.9, dtype=torch.float64, requires_grad=True)}
    common["threshold"] = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
    if kind == "vsn":
        y = events(F.vsn(x, **common)[0], x)
    elif kind == "mpr":
        y = events(F.soft_reset_mpr(x, amplitude=1.7, **common)[0], 1.7)
    elif kind == "mpr, one":
        y = F.soft_reset_mpr(x, amplitude=1.7, **common)[0] / 1.7
    else:
        intensity = {"lif": 1.0, "lifb": 1.0, "bursts": 2.5}[kind]
        y = F.lifb(x, burst_threshold=3.0, burst_intensity=intensity, **common)[0]
        y = y if kind == "lif" else events(y)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    grads = torch.autograd.grad((weights * y).sum(), (x, common["decay"], common["threshold"]))
    return y, dict(zip(("x", "decay", "threshold"), grads, strict=True))


def test_events_of_a_lifb_without_bursts_have_the_gradient_of_lif():
    y, found = emitted("lifb")
    expected, native = emitted("lif")
    assert y.equal(expected)
    for name in native:
        assert found[name].equal(native[name])


def test_events_of_a_vsn_have_the_gradient_of_lif_in_its_potential():
    y, found = emitted("vsn")
    expected, native = emitted("lif")
    assert y.equal(expected)
    torch.testing.assert_close(found["decay"], native["decay"])
    torch.testing.assert_close(found["threshold"], native["threshold"])
    direct = (
        torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * y / drive()
    )
    torch.testing.assert_close(found["x"], native["x"] + direct.detach())


def test_events_of_a_soft_reset_have_the_gradient_of_the_event():
    (y, found), (expected, native) = emitted("mpr"), emitted("mpr, one")
    torch.testing.assert_close(y, expected)
    for name in native:
        torch.testing.assert_close(found[name], native[name])


def test_events_of_bursts_have_the_gradient_of_lif_where_the_burst_threshold_is_far():
    found, native = emitted("bursts")[1], emitted("lif")[1]
    cosine = torch.cosine_similarity(found["x"].flatten(), native["x"].flatten(), 0)
    assert cosine > 0.8


@needs_snntorch
def test_lifb_layers_learn_from_a_temporal_loss_as_leaky_ones_do():
    import snntorch as snn
    import snntorch.functional as SF

    from snn_ext.snntorch import LIFB

    grads, losses = [], []
    for neuron in (
        snn.Leaky(beta=0.9),
        LIFB(beta=0.9, burst_intensity=1.0),
    ):
        weight = nn.Parameter(torch.eye(NEURONS))
        mem, recorded = neuron.reset_mem() if hasattr(neuron, "reset_mem") else neuron.init_leaky(), []
        for step in drive():
            spk, mem = neuron(step @ weight, mem)
            recorded.append(spk)
        loss = SF.mse_temporal_loss()(events(torch.stack(recorded)), LABELS.clone())
        loss.backward()
        losses.append(loss.item())
        grads.append(weight.grad)
    assert losses[0] == losses[1]
    assert bool(grads[0].any())
    torch.testing.assert_close(*grads)


@needs_snntorch
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["VSN", "LIFB"])
def test_a_network_trains_with_a_temporal_loss_of_its_events(name):
    import snntorch.functional as SF

    import snn_ext.snntorch as face

    torch.manual_seed(0)
    labels = torch.arange(60) % 3
    x = 0.3 * torch.rand(60, 12)
    x.view(60, 3, 4)[torch.arange(60), labels] += 0.6
    layer, last = nn.Linear(12, 3), getattr(face, name)(beta=0.8, threshold=0.5)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.03)
    accuracies = []
    for _ in range(40):
        face.reset(last)
        drive = layer(x).expand(6, -1, -1)
        spk = last.multi_step(drive)[0]
        found = events(spk, drive if name == "VSN" else None)
        accuracies.append(float(SF.accuracy_temporal(found, labels)))
        optimizer.zero_grad()
        SF.mse_temporal_loss(on_target=0, off_target=5)(found, labels.clone()).backward()
        optimizer.step()
    assert accuracies[0] < 0.7
    assert accuracies[-1] > 0.9


# What the functions do with spikes of shape (T, N, neurons); targets are three classes.
LABELS = torch.arange(BATCH) % 3


def _snntorch(path, *arguments, method=None, **named):
    def call(spk):
        import snntorch.functional as SF

        function = getattr(SF, path)(*arguments, **named)
        return function(spk) if method is None else function(spk, LABELS.clone())

    return call


def accuracy(name):
    def call(spk):
        module = importlib.import_module("snntorch.functional.acc")
        found = getattr(module, name)
        return torch.tensor([float(found(spk, torch.full((BATCH,), label))) for label in range(NEURONS)])

    return call


def spike_time(spk):
    from snntorch.functional.loss import SpikeTime

    return SpikeTime()(spk, LABELS.clone())[0]


def stdp(spk):
    from snntorch.functional.stdp_learner import stdp_linear_single_step

    layer, pre, post, total = constant_linear(), None, None, 0
    for before, after in itertools.pairwise(spk):
        pre, post, change = stdp_linear_single_step(layer, before, after, pre, post, 2.0, 2.0)
        total = total + change
    return total


def stdp_learner(spk):
    from spikingjelly.activation_based.learning import STDPLearner

    net = nn.Sequential(constant_linear(), Emits(None))
    learner, total = STDPLearner("s", net[0], net[1], 2.0, 2.0), 0
    for before, net[1].spk in itertools.pairwise(spk):
        net(before)
        total = total + learner.step(on_grad=False)
    return total


def constant_linear():
    layer = nn.Linear(NEURONS, NEURONS)
    nn.init.constant_(layer.weight, 0.1)
    return layer


def axes():
    from matplotlib.figure import Figure

    return Figure().subplots()


def raster(spk):
    from snntorch import spikeplot

    return torch.as_tensor(np.asarray(spikeplot.raster(spk[:, 0], axes()).get_offsets()))


def traces(spk):
    import matplotlib.pyplot as plt
    from snntorch import spikeplot

    plt.figure()
    spikeplot.traces(torch.zeros(STEPS, NEURONS), spk[:, 0], dim=(1, NEURONS))
    drawn = [line.get_ydata() for ax in plt.gcf().axes for line in ax.lines]
    plt.close()
    return torch.as_tensor(drawn)


def bars(spk):
    import matplotlib.pyplot as plt
    from snntorch import spikeplot

    figure, ax = plt.subplots()
    with plt.rc_context():
        spikeplot.spike_count(spk[:, 0], figure, ax, labels=[str(i) for i in range(NEURONS)], num_steps=STEPS)
    points = [line.get_xdata() for line in ax.lines] + [np.asarray(c.get_offsets()) for c in ax.collections]
    found = [torch.as_tensor(p, dtype=torch.float64).flatten() for p in points]
    found += [torch.tensor([patch.get_width() for patch in ax.patches], dtype=torch.float64)]
    plt.close(figure)
    return torch.cat(found)


class Emits(nn.Module):
    def __init__(self, spk):
        super().__init__()
        self.spk = spk

    def forward(self, x):
        return self.spk


def monitor(module):
    def call(spk):
        net = nn.Sequential(Emits(spk))
        seen = importlib.import_module(module).OutputMonitor(net, Emits)
        net(None)
        return seen.records[0]

    return call


def in_functional(name, *arguments, last=False):
    def call(spk):
        from spikingjelly.activation_based import functional

        return getattr(functional, name)(spk.movedim(0, -1) if last else spk, *arguments)

    return call


def kernel_dot_product(spk):
    from spikingjelly.activation_based import functional

    return functional.kernel_dot_product(spk[0], spk[1])


def in_layer(name, *arguments, shape=lambda spk: spk, **named):
    def call(spk):
        from spikingjelly.activation_based import layer

        module = getattr(layer, name)(*arguments, **named)
        for p in module.parameters():
            nn.init.constant_(p, 0.3)
        return torch.stack([module(x) for x in shape(spk)])

    return call


def compressor(name):
    def call(spk):
        from spikingjelly.activation_based.memopt import compress

        chosen = getattr(compress, name)()
        return chosen.decompress(chosen.compress(spk))

    return call


def plot(name, *before):
    def call(spk):
        import matplotlib.pyplot as plt
        from spikingjelly import visualizing

        ours = spk[:, 0].numpy()
        if name == "plot_1d_spikes":
            drawn = getattr(visualizing, name)(ours, "", "", "", plot_firing_rate=False)
        else:
            drawn = getattr(visualizing, name)(ours[:, 0], ours[:, 0])
        figure = plt.gcf()
        places = [
            torch.as_tensor(collection.get_positions(), dtype=torch.float64).flatten() + 100 * row
            for ax in figure.axes
            for row, collection in enumerate(ax.collections)
        ]
        assert drawn is not None
        plt.close(figure)
        return torch.cat([p for p in places if len(p)] or [torch.empty(0)])

    return call


CASES = {
    "snnTorch": {
        "mse_temporal_loss": _snntorch("mse_temporal_loss", method="targets"),
        "ce_temporal_loss": _snntorch("ce_temporal_loss", method="targets"),
        "SpikeTime": spike_time,
        "accuracy_temporal": accuracy("accuracy_temporal"),
        "mse_count_loss": _snntorch("mse_count_loss", 0.8, 0.2, method="targets"),
        "ce_rate_loss": _snntorch("ce_rate_loss", method="targets"),
        "ce_count_loss": _snntorch("ce_count_loss", method="targets"),
        "accuracy_rate": accuracy("accuracy_rate"),
        "l1_rate_sparsity": lambda spk: importlib.import_module("snntorch.functional.reg").l1_rate_sparsity(
            1.0
        )(spk),
        "stdp_linear_single_step": stdp,
        "spikeplot.raster": raster,
        "spikeplot.traces": traces,
        "spikeplot.spike_count": bars,
        "probe.OutputMonitor": monitor("snntorch.functional.probe"),
    },
    "SpikingJelly": {
        "first_spike_index": in_functional("first_spike_index", last=True),
        "SynapseFilter": in_layer("SynapseFilter", 3.0),
        "plot_1d_spikes": plot("plot_1d_spikes"),
        "plot_one_neuron_v_s": plot("plot_one_neuron_v_s"),
        "bit_spike_compress": in_functional("bit_spike_compress"),
        **{
            f"{n}SpikeCompressor": compressor(f"{n}SpikeCompressor")
            for n in ("Boolean", "Bit", "Sparse", "Uint8")
        },
        "kernel_dot_product": kernel_dot_product,
        "spike_similar_loss": in_functional("spike_similar_loss", torch.eye(BATCH), last=True),
        "temporal_efficient_training_cross_entropy": in_functional(
            "temporal_efficient_training_cross_entropy", LABELS
        ),
        "STDPLearner": stdp_learner,
        "NeuNorm": in_layer("NeuNorm", NEURONS, 1, 1, shape=lambda spk: spk[..., None, None]),
        "VotingLayer": in_layer("VotingLayer", 2),
        "monitor.OutputMonitor": monitor("spikingjelly.activation_based.monitor"),
        "sparse_linear": in_functional("sparse_linear", torch.ones(2, NEURONS)),
    },
}


def rows():
    """Return the rows of the table in the docs: framework, function, releases and what they say."""
    framework, found = "", []
    for line in (ROOT / "docs" / "graded_spikes.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| **"):
            framework = cells[0].strip("*")
        elif line.startswith("| `"):
            found.append((framework, re.match(r"`([\w.]+)`", cells[0]).group(1), *cells[1:5]))
    return found


ROWS = rows()


def test_the_table_and_the_cases_name_the_same_functions():
    assert {(framework, name) for framework, name, *_ in ROWS} == {
        (framework, name) for framework, cases in CASES.items() for name in cases
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]}-{row[1]}")
def test_the_table_says_what_each_function_does(row):
    framework, name, releases, on_binary, on_bursts, on_graded = row
    package = framework.lower()
    pytest.importorskip(package)
    pytest.importorskip("matplotlib").use("Agg")
    importlib.import_module(f"snn_ext.{package}")
    if framework == "SpikingJelly" and releases == "2.0.0":
        functional = importlib.import_module("spikingjelly.activation_based.functional")
        if not hasattr(functional, "bit_spike_compress"):
            pytest.skip("not in this release")
    case, expected = CASES[framework][name], None
    assert on_binary == "right"
    guarded = importlib.import_module(f"snn_ext.{package}.graded").GUARDED
    for kind, said in (("binary", "as events"), ("bursts", on_bursts), ("graded", on_graded)):
        graded.unguard()
        graded.guard(guarded)
        spk = spikes(kind)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            expected = case(events(spk))
            of_events = [w for w in seen if "docs/graded_spikes.md" in str(w.message)]
            result = case(spk)
            again = case(spk)
        told = [str(w.message) for w in seen if "docs/graded_spikes.md" in str(w.message)]
        assert of_events == []
        same = torch.as_tensor(expected).shape == torch.as_tensor(result).shape and bool(
            torch.allclose(
                torch.as_tensor(expected).double(), torch.as_tensor(result).double(), equal_nan=True
            )
        )
        torch.testing.assert_close(result, again, equal_nan=True)
        if (
            name.endswith("Compressor") or name == "bit_spike_compress"
        ):  # what is given back is to be what was given
            same = same and kind == "binary"
        if said == "wrong":
            assert len(told) == 1
            assert "give it events(spk)" in told[0]
            assert not same or name.endswith("Compressor") or name == "bit_spike_compress"
        else:
            assert told == []
            assert same == (said == "as events")


@needs_snntorch
def test_the_case_of_the_temporal_losses():
    """First events at steps 2, 1 and 4, of sizes that used to be taken for the time."""
    import snntorch.functional as SF

    from snn_ext.snntorch import LIFB, VSN

    x = torch.zeros(6, 1, 3)
    x[2, 0, 0], x[1, 0, 1], x[4, 0, 2] = 2.5, 1.5, 1.2
    target = torch.tensor([0])
    for neuron in (LIFB(beta=0.0), VSN(beta=0.0)):
        found = events(neuron.multi_step(x)[0])
        assert spike_time_of(found) == [2, 1, 4]
        native = (found != 0).float()
        for loss in (SF.mse_temporal_loss(), SF.ce_temporal_loss()):
            assert loss(found, target.clone()).item() == loss(native, target.clone()).item()


def spike_time_of(spk):
    from snntorch.functional.loss import SpikeTime

    return SpikeTime()(spk, torch.tensor([0]))[0][0].tolist()


GUARD = """
import warnings
{before}
from snn_ext import graded
import snn_ext.snntorch
{after}
import torch
from snntorch.functional import acc, loss
real = acc.accuracy_temporal.__wrapped__
spk, labels = torch.tensor([[[2.5, 0.0]], [[0.0, 1.0]]]), torch.tensor([0])
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    assert accuracy_temporal(spk, labels) == real(spk, labels)
    accuracy_temporal(spk, labels)
    accuracy_temporal(spk_out=spk, targets=labels)
print(len(seen), seen[0].filename == "<string>" if seen else "")
graded.unguard()
assert accuracy_temporal is real and acc.accuracy_temporal is real
assert not hasattr(loss.SpikeTime.forward, "__wrapped__")
assert not any(type(finder).__module__ == "snn_ext.graded" for finder in __import__("sys").meta_path)
with warnings.catch_warnings():
    warnings.simplefilter("error")
    accuracy_temporal(spk, labels)
"""


@needs_snntorch
@pytest.mark.parametrize("when", ["before", "after"])
def test_guards_hold_whoever_is_imported_first_and_are_undone_cleanly(when):
    line = "from snntorch.functional import accuracy_temporal"
    code = GUARD.format(**{"before": "", "after": "", when: line})
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert done.stdout.split() == ["1", "True"], done.stderr


def test_a_guard_looks_ever_more_seldom_and_not_where_it_cannot(monkeypatch):
    looked = []
    monkeypatch.setattr(graded, "LOOKED_AT", 5)
    monkeypatch.setitem(graded.KINDS, "graded", lambda spk: looked.append(call) or False)
    guarded = graded._guarded(lambda spk: spk, graded.Guarded("here", "f", 0, "is wrong"))
    for call in range(1, 40):  # noqa: B007 (read by what looks)
        guarded(torch.ones(3))
    assert looked == [1, 2, 3, 4, 5, 8, 16, 32]
    monkeypatch.undo()
    guarded = graded._guarded(lambda spk: spk.sum(), graded.Guarded("here", "f", 0, "is wrong"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.func.vmap(guarded)(torch.full((2, 3), 2.0))
        torch.func.grad(guarded)(torch.full((3,), 2.0))
        guarded(torch.empty(3, device="meta"))
        assert torch.compile(guarded, fullgraph=True, backend="eager")(torch.full((3,), 2.0)) == 6
    with pytest.warns(UserWarning, match="f is wrong; give it events"):
        guarded(torch.full((3,), 2.0))
