"""The energy report: exact counts, which two outside counters find as well."""

import pytest
import torch
from energy_nets import BATCH, STEPS, network
from torch import nn

from snn_ext.energy import SynapticPenalty, TotalSpikePenalty, fan_out, measure_energy


@pytest.fixture
def loader():
    generator = torch.Generator().manual_seed(1)
    return [(0.2 + torch.rand(n, 1, 6, 6, generator=generator), torch.zeros(n)) for n in (BATCH, 2)]


def measured(net, loader, **options):
    return measure_energy(net, loader, steps=STEPS, progress=False, **options)


class TestCounts:
    def test_accumulates_are_what_the_penalty_says(self, face, loader):
        net = network(face)
        report = measured(net, loader[:1])
        penalty = SynapticPenalty(net, loader[0][0])
        for _ in range(STEPS):
            net(loader[0][0])
        operations = sum(row.ac for row in report.rows)
        assert operations > 100
        assert penalty().item() == pytest.approx(operations, rel=1e-6)
        assert sum(row.ac * 0.9 + row.mac * 4.6 for row in report.rows) == pytest.approx(report.total_pj)

    def test_analogue_input_is_charged_as_multiplications_without_padding(self, face, loader):
        first = measured(network(face), loader).rows[0]
        inside = 3 * (6 * 6 * 9 - 4 * 6 * 3 + 4)
        assert (first.source, first.mac, first.ac, first.twin) == ("analogue", STEPS * inside, 0, inside)

    def test_events_are_charged_as_accumulates(self, face, loader):
        events = [((x > 0.7).float(), y) for x, y in loader]
        first = measured(network(face), events).rows[0]
        psi = fan_out(nn.Sequential(face.lif(), nn.Conv2d(1, 3, 3, padding=1)), torch.rand(1, 1, 6, 6))["0"]
        expected = sum(float((x * psi).sum()) for x, _ in events) * STEPS / (BATCH + 2)
        assert (first.source, first.mac) == ("events", 0)
        assert first.ac == pytest.approx(expected)

    def test_graded_spikes_multiply(self, face, loader):
        report = measured(network(face, face.vsn), loader)
        assert all(row.ac == 0 for row in report.rows)
        assert report.rows[1].mac > 0

    def test_bursts_are_the_spikes_they_are_sent_as(self, face, loader):
        one, three = (
            measured(network(face, lambda k=k: face.lifb(burst_intensity=k)), loader).rows[1].ac
            for k in (1.0, 3.0)
        )
        assert three > one > 0

    def test_multi_step_and_steps_one_by_one_agree(self):
        native = pytest.importorskip("spikingjelly.activation_based.functional")
        from spikingjelly.activation_based import layer, neuron

        torch.manual_seed(0)
        net = nn.Sequential(
            layer.Conv2d(1, 2, 3), neuron.LIFNode(2.0, False, 0.2), layer.Flatten(), layer.Linear(32, 4)
        )
        x = 4 * torch.rand(BATCH, 1, 6, 6)
        single = measured(net, [x])
        native.set_step_mode(net, "m")
        multi = measure_energy(net, [x.expand(STEPS, *x.shape)], progress=False)
        assert multi.rows == single.rows
        assert multi.steps == single.steps == STEPS
        assert multi.rows[1].ac > 0

    def test_the_rates(self, face, loader):
        net = network(face)
        rates = measured(net, loader[:1]).rates
        penalty = TotalSpikePenalty(net[1])
        for _ in range(STEPS):
            net(loader[0][0])
        assert rates["1"] == pytest.approx(penalty().item() / STEPS / (3 * 36))


class Looped(nn.Module):
    """A network whose forward runs all steps."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return sum(self.net(x) for _ in range(STEPS))


class Twice(nn.Module):
    """A step that uses one layer of neurons twice, and others once."""

    def __init__(self, face):
        super().__init__()
        self.fc, self.shared, self.first, self.last = nn.Linear(4, 4), face.lif(), face.lif(), face.lif()

    def forward(self, x):
        return self.last(self.shared(self.fc(self.shared(self.fc(self.first(x))))))


@pytest.mark.filterwarnings("ignore:.*analogue")
class TestSteps:
    def test_a_network_called_once_says_one_step(self, face, loader):
        report = measure_energy(network(face), loader, progress=False)
        assert report.steps == 1
        assert "1 step, input as given" in str(report)

    def test_steps_are_those_that_ran_however_they_ran(self, face, loader):
        asked = measured(network(face), loader)
        looped = measure_energy(Looped(network(face)), loader, progress=False)
        assert asked.steps == looped.steps == STEPS
        assert f"{STEPS} steps, the same input at every step (direct)" in str(asked)
        assert f"{STEPS} steps, input as given" in str(looped)
        assert asked.total_pj == pytest.approx(looped.total_pj)

    def test_a_layer_used_twice_in_a_step_is_no_step_more(self, face):
        report = measure_energy(Twice(face), [torch.rand(2, 4)], steps=STEPS, progress=False)
        assert report.steps == STEPS

    def test_random_spikes_may_be_shown_to_any_network(self, face, loader):
        images = [x.clamp(max=1) for x, _ in loader]
        report = measured(network(face), images, coding="poisson")
        assert (report.steps, report.coding, report.rows[0].source) == (STEPS, "poisson", "events")
        assert report.rows[0].ac > 0
        with pytest.raises(ValueError, match="coding='poisson' needs a number of steps"):
            measure_energy(network(face), images, coding="poisson", progress=False)
        with pytest.raises(ValueError, match=r"outside \[0, 1\]"):
            measured(network(face), [images[0] + 1], coding="poisson")


def test_a_tensor_is_no_loader(face):
    net, x = nn.Sequential(face.linear(4, 3), face.lif()), torch.rand(5, 4)
    with pytest.raises(TypeError, match=r"loader must give batches, got one tensor; give \[images\]"):
        measure_energy(net, x, progress=False)


class TestWithoutSpikes:
    def test_every_weight_is_a_multiplication_once(self):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 5))
        report = measure_energy(net, [torch.zeros(n, 1, 6, 6) for n in (3, 2)], steps=7, progress=False)
        assert [(row.name, row.mac, row.ac) for row in report.rows] == [("0", 16 * 27, 0), ("4", 240, 0)]
        assert report.total_pj == report.twin_pj == (16 * 27 + 240) * 4.6
        assert (report.steps, report.samples, report.spiking) == (1, 5, False)
        assert "no spiking layer: called once, every weight as MAC" in str(report)
        assert net.training

    def test_what_needs_spikes_says_so(self):
        with pytest.raises(ValueError, match="no spiking layer"):
            fan_out(nn.Linear(4, 2), torch.rand(1, 4))


class TestAnalogue:
    def test_a_first_layer_that_is_nearly_all_is_warned_of(self, face, loader):
        net = nn.Sequential(nn.Conv2d(1, 8, 3), face.lif(), nn.Flatten(), nn.Linear(128, 2))
        with pytest.warns(UserWarning, match="9. % of the energy is spent by the weights '0' on analogue"):
            report = measured(net, loader)
        assert report.analogue > 0.9
        assert report.analogue == pytest.approx(report.energy(report.rows[0]) / report.total_pj)

    def test_events_and_networks_without_spikes_are_not(self, face, loader, recwarn):
        net = nn.Sequential(nn.Conv2d(1, 8, 3), face.lif(), nn.Flatten(), nn.Linear(128, 2))
        measured(net, [(x > 0.7).float() for x, _ in loader])
        measured(nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU()), loader)
        assert not [w for w in recwarn if "analogue" in str(w.message)]


class TestAgainstOthers:
    def test_spikingjelly(self, face, loader):
        counters = pytest.importorskip("spikingjelly.activation_based.op_counter")
        if not hasattr(counters, "SynOpCounter"):
            pytest.skip("this SpikingJelly has no SynOpCounter")
        net, x = network(face).eval(), loader[0][0]
        rows = measured(net, [x]).rows
        counter = counters.SynOpCounter()
        with torch.no_grad(), counters.DispatchCounterMode([counter]):
            for _ in range(STEPS):
                net(x)
        assert counter.get_total() == sum(row.ac for row in rows) * BATCH > 0

    def test_neurobench(self, loader):
        models = pytest.importorskip("neurobench.models")
        snn = pytest.importorskip("snntorch")
        from neurobench.metrics.workload import SynapticOperations

        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1), snn.Leaky(0.5, 0.3, init_hidden=True), nn.Flatten(),
            nn.Linear(108, 5), snn.Leaky(0.5, init_hidden=True, output=True),
        )  # fmt: skip
        x = loader[0][0]
        model, metric = models.SNNTorchModel(net), SynapticOperations()
        model.register_hooks()
        data = x.unsqueeze(1).expand(-1, STEPS, -1, -1, -1)
        found = metric(model, model(data), (data, None))
        model.cleanup_hooks()
        rows = measured(net, [x]).rows
        assert found["Effective_ACs"] == sum(row.ac for row in rows) > 0
        assert found["Effective_MACs"] == sum(row.mac for row in rows)


class TestReport:
    def test_table_and_picture(self, face, loader, tmp_path):
        report = measured(network(face), loader)
        text = str(report)
        assert "driven by" in text
        assert f"{report.total_pj / 1e3:,.2f}" in text
        assert "mean of 5" in text
        assert f"torch {torch.__version__.split('+')[0]}" in text
        pytest.importorskip("matplotlib")
        report.draw(tmp_path / "energy.png")
        assert (tmp_path / "energy.png").stat().st_size > 5000

    def test_unit_costs(self, face, loader):
        net = network(face)
        report = measured(net, loader, mac_pj=2.0, ac_pj=0.0)
        assert report.total_pj == 2 * sum(row.mac for row in report.rows)
        assert report.twin_pj == 2 * sum(row.twin for row in report.rows)

    def test_a_pending_penalty_is_not_disturbed(self, face, loader):
        net = network(face)
        penalty, other = TotalSpikePenalty(net), TotalSpikePenalty(net)
        net(loader[0][0])
        expected = other().item()
        measured(net, loader)
        assert net.training
        assert penalty().item() == pytest.approx(expected)

    @pytest.mark.parametrize(
        ("options", "message"),
        [({"mac_pj": -1}, "mac_pj=-1"), ({"ac_pj": float("nan")}, "ac_pj=nan"), ({"steps": 0}, "steps=0")],
    )
    def test_bad_input(self, face, loader, options, message):
        with pytest.raises(ValueError, match=message):
            measure_energy(network(face), loader, progress=False, **options)
        with pytest.raises(ValueError, match="no batch"):
            measure_energy(network(face), [], progress=False)
