"""Counters of others: what they find in this package's neurons, native neurons and measure_energy say."""

import subprocess
import sys

import pytest
import torch
from energy_nets import BATCH
from torch import nn

from snn_ext.energy import fan_out, measure_energy

STEPS = 4


class TestSpikingJelly:
    @pytest.fixture
    def c(self):
        counters = pytest.importorskip("spikingjelly.activation_based.op_counter")
        if not hasattr(counters, "NeuronStateCounter"):
            pytest.skip("this SpikingJelly has no such counters")
        return counters

    @pytest.fixture
    def ext(self, c):
        import snn_ext.spikingjelly as ext

        return ext

    @pytest.fixture
    def native(self, c):
        from spikingjelly.activation_based import neuron

        return neuron

    @pytest.fixture
    def makers(self, ext, native):
        leaky = (2.0, False, 0.5)
        per_channel = torch.tensor([1.0, 2.0, 4.0]).view(3, 1, 1)
        return {
            "lif": lambda: native.LIFNode(*leaky),
            "lifb": lambda: ext.LIFBNode(*leaky, burst_intensity=3.0),
            "spiking lifb": lambda: ext.LIFBNode(*leaky, burst_intensity=1.0),
            "channels": lambda: ext.LIFBNode(*leaky, burst_threshold=0.6, burst_intensity=per_channel),
            "vsn": lambda: ext.VSNNode(*leaky),
            "relu vsn": lambda: ext.VSNNode(*leaky, activation="relu"),
            "mpr": lambda: ext.SoftResetMPRNode(),
            "amplitude": lambda: ext.SoftResetMPRNode(amplitude=0.75),
        }

    def net(self, make, mode="m", pool=None):
        from spikingjelly.activation_based import functional, layer

        torch.manual_seed(0)
        net = nn.Sequential(
            layer.Conv2d(1, 3, 3, padding=1), make(), pool or nn.Identity(),
            layer.Conv2d(3, 3, 3, stride=2, padding=1), make(), layer.Flatten(),
            layer.Linear(3 * (9 if pool is None else 4), 5),
        )  # fmt: skip
        functional.set_step_mode(net, mode)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.mul_(3)
        return net.eval()

    def x_seq(self, shift=0.2):
        return shift + torch.rand(STEPS, BATCH, 1, 6, 6, generator=torch.Generator().manual_seed(1))

    def count(self, c, net, x_seq, counter, gradients=torch.no_grad):
        from spikingjelly.activation_based import functional

        functional.reset_net(net)
        with gradients(), c.DispatchCounterMode([counter]):
            if net[1].step_mode == "m":
                net(x_seq)
            else:
                for x in x_seq:
                    net(x)
        functional.reset_net(net)
        return counter

    @pytest.mark.parametrize("gradients", [torch.no_grad, torch.enable_grad])
    @pytest.mark.parametrize("mode", ["s", "m"])
    @pytest.mark.parametrize(
        "kind", ["lif", "lifb", "spiking lifb", "channels", "vsn", "relu vsn", "mpr", "amplitude"]
    )
    def test_synops_are_those_of_measure_energy(self, c, ext, makers, kind, mode, gradients):
        net, x_seq = self.net(makers[kind]), self.x_seq()
        rows = measure_energy(net, [x_seq], progress=False).rows
        expected = BATCH * sum(row.synops for row in rows[1:])
        net = self.net(makers[kind], mode)
        counter = self.count(c, net, x_seq, c.SynOpCounter(extra_rules=ext.synop_rules(net)), gradients)
        assert counter.get_total() == expected > 100
        by_layer = counter.get_counts()
        assert sum(by_layer["Sequential.3"].values()) == BATCH * rows[1].synops

    def test_what_spikingjelly_counts_by_itself_stays(self, c, ext, makers):
        net, x_seq = self.net(makers["lif"]), (self.x_seq() > 0.7).float()
        alone, ours = c.SynOpCounter(), c.SynOpCounter(extra_rules=ext.synop_rules(net))
        assert self.count(c, net, x_seq, ours).get_total() == self.count(c, net, x_seq, alone).get_total() > 0
        assert self.count(c, self.net(makers["vsn"]), x_seq, c.SynOpCounter()).get_counts()["Sequential.3"]

    def test_inference_mode_shows_counters_no_products_and_is_no_error(self, c, ext, makers):
        for kind in ("lif", "vsn"):
            net = self.net(makers[kind])
            counter = c.SynOpCounter(extra_rules=ext.synop_rules(net))
            assert self.count(c, net, self.x_seq(), counter, torch.inference_mode).get_total() == 0

    def test_without_the_rules_bursts_are_left_out(self, c, ext, makers):
        net, x_seq = self.net(makers["lifb"]), self.x_seq()
        assert self.count(c, net, x_seq, c.SynOpCounter()).get_total() == 0

    def test_macs_are_of_graded_spikes_and_acs_of_others(self, c, ext, makers):
        for kind in ("vsn", "lifb"):
            net, x_seq = self.net(makers[kind]), self.x_seq()
            first, *rows = measure_energy(net, [x_seq], progress=False).rows
            mac = self.count(c, net, x_seq, c.MACCounter(extra_rules=ext.mac_rules(net))).get_counts()
            ac = self.count(c, net, x_seq, c.ACCounter(extra_rules=ext.ac_rules(net))).get_counts()
            for name, row in zip(("3", "6"), rows, strict=True):
                scope = f"Sequential.{name}"
                assert sum(mac.get(scope, {}).values()) == BATCH * row.mac
                assert sum(ac.get(scope, {}).values()) == BATCH * row.ac
            assert sum(mac["Sequential.0"].values()) > BATCH * first.mac > 0  # theirs, with the padding

    def test_a_neurons_own_additions_are_those_of_lif(self, c, ext, makers):
        x_seq = self.x_seq()
        found = []
        for kind in ("lif", "spiking lifb"):
            net = self.net(makers[kind])
            counts = self.count(c, net, x_seq, c.ACCounter(extra_rules=ext.ac_rules(net))).get_counts()
            found.append(sum(counts["Sequential.1"].values()))
        lif, lifb = found
        assert lifb == lif + 1 > 1000  # one more: the sum that is the burst threshold

    def test_max_pooling_passes_spikes_on_and_average_pooling_does_not(self, c, ext, makers):
        x_seq = self.x_seq()
        from spikingjelly.activation_based import layer

        net = self.net(makers["lifb"], pool=layer.MaxPool2d(2))
        with torch.no_grad():
            pooled = net[:3](x_seq)
        psi = fan_out(nn.Sequential(makers["lif"](), net[3]), pooled[:, :1])["0"]
        found = self.count(c, net, x_seq, c.SynOpCounter(extra_rules=ext.synop_rules(net))).get_counts()
        assert sum(found["Sequential.3"].values()) == (pooled * psi).sum() > 0
        net = self.net(makers["lifb"], pool=layer.AvgPool2d(2))
        found = self.count(c, net, x_seq, c.SynOpCounter(extra_rules=ext.synop_rules(net))).get_counts()
        assert sum(found["Sequential.3"].values()) == 0

    @pytest.mark.parametrize(
        ("arrange", "factor"),
        [
            (lambda y: torch.cat([y, y], 1)[:, 3:], 1),
            (lambda y: torch.stack(list(y)), 1),
            (lambda y: nn.functional.pad(y, (1, 2)), 1),
            (lambda y: y.transpose(1, 2).contiguous().transpose(1, 2).double().float(), 1),
            (lambda y: y.expand(2, *y.shape), 2),
            (lambda y: y * 1.5, 0),
            (lambda y: y.clone().mul_(1.5), 0),
            (lambda y: nn.functional.pad(y, (1, 2), value=0.5), 0),
        ],
    )
    def test_where_spikes_are_recognised(self, c, ext, arrange, factor):
        vsn, x_seq = ext.VSNNode(2.0, False, 0.5, step_mode="m"), torch.rand(STEPS, 3, 2)
        net = nn.Sequential(vsn)
        counter = c.SynOpCounter(extra_rules=ext.synop_rules(net))
        with torch.no_grad(), c.DispatchCounterMode([counter]):
            y = arrange(vsn(x_seq))
            y @ torch.full((y.shape[-1], 5), 0.5)
        events = int((measured_gate(vsn, x_seq)).sum())
        assert counter.get_total() == 5 * factor * events
        assert events > 0

    def test_a_freed_emission_is_forgotten(self, c, ext):
        vsn = ext.VSNNode(2.0, False, 0.5, step_mode="m")
        counter = c.SynOpCounter(extra_rules=ext.synop_rules(vsn))
        with torch.no_grad(), c.DispatchCounterMode([counter]):
            for _ in range(20):
                y = vsn(torch.rand(STEPS, 300))
                before = counter.get_total()
                del y
                torch.full((STEPS, 300), 0.3) @ torch.full((300, 5), 0.5)
                assert counter.get_total() == before == 0

    @pytest.mark.parametrize("mode", ["s", "m"])
    @pytest.mark.parametrize("sparse", [False, True])
    @pytest.mark.parametrize(
        "options",
        [{}, {"decay_input": False}, {"v_reset": None}, {"v_reset": 0.25}, {"tau": 3.0, "v_threshold": 0.4}],
        ids=str,
    )
    def test_states_are_those_of_lif(self, c, ext, native, options, sparse, mode):
        x_seq = self.x_seq()
        x_seq = (x_seq > 0.9).float() if sparse else x_seq
        found = []
        for node in (native.LIFNode(**options), ext.LIFBNode(**options, burst_intensity=1.0)):
            node.step_mode = mode
            net = nn.Sequential(nn.Identity(), node)
            counter = c.NeuronStateCounter(extra_state_rules=ext.state_rules(net))
            self.count(c, net, x_seq, counter)
            self.count(c, net, x_seq, counter)  # from a fresh state again
            projection = counter.get_projection_counts()["Global"]
            projection.pop("potential_buffer_bytes")
            found.append((counter.get_metric_counts(), projection))
        assert found[0] == found[1]
        assert found[0][0]["Global"]["state_reads"] > 1000

    def test_a_state_that_is_kept_counts_alike(self, c, ext, native):
        found = []
        for node in (native.LIFNode(step_mode="m"), ext.LIFBNode(step_mode="m", burst_intensity=1.0)):
            counter = c.NeuronStateCounter(extra_state_rules=ext.state_rules(node))
            with torch.no_grad(), c.DispatchCounterMode([counter]):
                for part in self.x_seq().split(2):
                    node(part)
            found.append(counter.get_metric_counts()["Global"])
        assert found[0] == found[1]

    def test_vsn_counts_as_lif_bursts_a_comparison_more_and_mpr_as_if(self, c, ext, native):
        x_seq = self.x_seq(0.6)

        def states(node):
            net = nn.Sequential(nn.Identity(), node)
            node.step_mode = "m"
            counter = c.NeuronStateCounter(extra_state_rules=ext.state_rules(net))
            return self.count(c, net, x_seq, counter).get_metric_counts()["Global"]

        lif = states(native.LIFNode())
        assert states(ext.VSNNode()) == lif
        lifb = states(ext.LIFBNode(burst_threshold=1.1))
        one = x_seq.numel()
        assert lifb["state_comps"] == lif["state_comps"] + one == 2 * one
        assert lifb["state_adds"] == lif["state_adds"] + one
        assert lifb["state_muls"] == lif["state_muls"]
        mpr = ext.SoftResetMPRNode(v_threshold=1.0)
        assert states(mpr) == states(native.IFNode(1.0, None))

    def test_simple_energy(self, c, ext, makers):
        x_seq = self.x_seq()
        lif, spiking, burst, vsn = (
            ext.estimate_simple_energy(self.net(makers[kind]), x_seq)
            for kind in ("lif", "spiking lifb", "lifb", "vsn")
        )
        theirs = c.estimate_simple_energy(self.net(makers["lif"]), x_seq)
        assert lif.counts == theirs.counts
        assert spiking.counts == {**lif.counts, "ac": lif.counts["ac"] + 2}
        rows = measure_energy(self.net(makers["lifb"]), [x_seq], progress=False).rows
        assert burst.counts["synop"] == BATCH * sum(row.ac for row in rows)
        assert burst.counts["mac"] == lif.counts["mac"]
        rows = measure_energy(self.net(makers["vsn"]), [x_seq], progress=False).rows
        assert vsn.counts["mac"] == lif.counts["mac"] + BATCH * sum(row.mac for row in rows[1:])

    @pytest.mark.filterwarnings("ignore:Lemaire formulas do not support")
    @pytest.mark.parametrize("name", ["lemaire", "spikesim", "neuromc_runtime"])
    def test_estimators_that_go_by_modules(self, c, ext, makers, name):
        estimate, x_seq = getattr(c, f"estimate_{name}_energy"), self.x_seq()
        options = {
            "lemaire": lambda: {"config": c.LemaireEnergyConfig(strict=False)},  # no formula for Flatten
            "spikesim": lambda: {"config": c.SpikeSimEnergyConfig(activity_mode="event")},
            "neuromc_runtime": dict,
        }[name]()

        def run(net):
            return estimate(net, x_seq, **options)

        lif = run(self.net(makers["lif"]))
        spiking, vsn = self.net(makers["spiking lifb"]), self.net(makers["vsn"])
        if name != "lemaire":
            with pytest.raises(ValueError, match="LIFBNode|snn_ext"):
                run(spiking)
        with ext.as_native(spiking):
            ours = run(spiking)
        assert ours == lif
        assert type(spiking[1]) is ext.LIFBNode
        with ext.as_native(vsn):
            total = "total_pj" if name == "lemaire" else "energy_total_pj"
            assert getattr(run(vsn), total) > getattr(lif, total)  # graded spikes are charged densely

    def test_as_native_tells_leaky_from_not_and_ends_after_an_error(self, ext, native):
        net = nn.Sequential(ext.SoftResetMPRNode(), ext.SoftResetMPRNode(2.0), ext.LIFBNode(learn_tau=True))
        before = [type(node) for node in net]
        with ext.as_native(net):
            assert [isinstance(node, native.LIFNode) for node in net] == [False, True, True]
            assert isinstance(net[0], native.IFNode)
        assert [type(node) for node in net] == before
        with pytest.raises(RuntimeError, match="inside"), ext.as_native(net):
            raise RuntimeError("inside")
        assert [type(node) for node in net] == before

    @pytest.mark.parametrize("name", ["synop_rules", "ac_rules", "mac_rules", "state_rules", "as_native"])
    def test_refusals(self, ext, name):
        from snn_ext.surrogate import ATan

        def call(net):
            found = getattr(ext, name)(net)
            if name == "as_native":
                with found:
                    pass

        with pytest.raises(TypeError, match="net must be a torch.nn.Module, got int"):
            call(3)
        net = nn.Sequential(ext.VSNNode(surrogate_function=ATan()), ext.VSNNode(activation=torch.sin))
        with pytest.raises(NotImplementedError, match="layer '1': a VSNNode .*measure_energy"):
            call(net)
        call(net[:1])

    @pytest.mark.parametrize("kind", ["LIFB", "VSN", "SoftResetMPR"])
    def test_networks_of_snntorch(self, c, ext, kind):
        snn_ext = pytest.importorskip("snn_ext.snntorch")
        options = {"burst_threshold": 0.6} if kind == "LIFB" else {}
        make = getattr(snn_ext, kind)
        net = nn.Sequential(
            nn.Conv2d(1, 3, 3), make(beta=0.5, threshold=0.3, init_hidden=True, **options), nn.Flatten(),
            nn.Linear(48, 5),
        )  # fmt: skip
        x = torch.rand(BATCH, 1, 6, 6)
        rows = measure_energy(net, [x], steps=STEPS, progress=False).rows
        counter = c.SynOpCounter(extra_rules=ext.synop_rules(net))
        with torch.no_grad(), c.DispatchCounterMode([counter]):
            for _ in range(STEPS):
                net(x)
        assert counter.get_total() == BATCH * rows[1].synops > 0

    def test_a_subclass_is_counted_too(self, c, ext):
        class Mine(ext.LIFBNode):
            pass

        net = nn.Sequential(Mine(step_mode="m"))
        counter = c.NeuronStateCounter(extra_state_rules=ext.state_rules(net))
        with torch.no_grad(), c.DispatchCounterMode([counter]):
            net(self.x_seq())
        assert counter.get_metric_counts()["Global"]["state_comps"] == 2 * self.x_seq().numel()

    def test_an_old_release_says_so(self):
        ext = pytest.importorskip("snn_ext.spikingjelly")
        from snn_ext.spikingjelly import _compat

        if _compat.op_counter is not None:
            pytest.skip("this SpikingJelly has counters")
        with pytest.raises(ImportError, match="spikingjelly>=2.0.0"):
            ext.synop_rules(nn.Sequential(ext.VSNNode()))
        with pytest.raises(ImportError, match="measure_energy"):
            ext.estimate_simple_energy(nn.Sequential(ext.VSNNode()), torch.rand(1, 1))


def measured_gate(vsn, x_seq):
    v, gate = torch.zeros(x_seq.shape[1:]), []
    for x in x_seq:
        h = 0.5 * v + x
        gate.append((h >= 0.5).float())
        v = h * (1 - gate[-1])
    return torch.stack(gate)


class TestNeuroBench:
    @pytest.fixture
    def ext(self):
        pytest.importorskip("neurobench.models")
        import snn_ext.snntorch as ext

        yield ext
        ext.unregister_neurobench()

    def run(self, make, metric, x_seq):
        from neurobench.models import SNNTorchModel

        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Linear(6, 8), make(init_hidden=True), nn.Linear(8, 4), make(init_hidden=True, output=True)
        )
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.mul_(3)
        model = SNNTorchModel(net)
        model.register_hooks()
        found = metric(model, model(x_seq), (x_seq, None))
        model.cleanup_hooks()
        return found, net

    @pytest.mark.parametrize("mechanism", ["subtract", "zero"])
    def test_an_update_of_lifb_costs_what_leaky_does(self, ext, mechanism):
        import snntorch as snn
        from neurobench.metrics.workload import NeuronOperations

        x = torch.rand(BATCH, STEPS, 6)
        options = {"reset_mechanism": mechanism}
        native, _ = self.run(lambda **kw: snn.Leaky(0.5, **options, **kw), NeuronOperations(), x)
        with pytest.raises(KeyError, match="LIFB"):
            self.run(lambda **kw: ext.LIFB(0.5, **options, **kw), NeuronOperations(), x)
        ext.register_neurobench()
        ext.register_neurobench()
        ours, _ = self.run(
            lambda **kw: ext.LIFB(0.5, burst_intensity=1.0, **options, **kw), NeuronOperations(), x
        )
        assert ours == native
        assert native["Neuron Dense Ops"] == 4 * STEPS * 12

    def test_each_neuron_and_each_reset(self, ext):
        from neurobench.metrics.workload import NeuronOperations

        ext.register_neurobench()
        x, dense = torch.rand(BATCH, STEPS, 6), STEPS * 12
        for kind, first in ((ext.VSN, (0.5,)), (ext.LIFB, (0.5,)), (ext.SoftResetMPR, ())):
            for mechanism in kind.reset_mechanisms:
                found, _ = self.run(
                    lambda k=kind, f=first, m=mechanism, **kw: k(*f, reset_mechanism=m, **kw),
                    NeuronOperations(),
                    x,
                )
                assert found["Neuron Dense Ops"] == (2 if mechanism == "none" else 4) * dense
                assert 0 < found["Effective Neuron Ops"] <= found["Neuron Dense Ops"]

    def test_synaptic_operations(self, ext):
        from neurobench.metrics.workload import SynapticOperations

        x = torch.rand(BATCH, STEPS, 6)
        found, net = self.run(lambda **kw: ext.VSN(0.5, **kw), SynapticOperations(), x)
        rows = measure_energy(Steps(net), [x], progress=False).rows
        assert found["Effective_MACs"] == sum(row.mac for row in rows) > 0
        assert found["Effective_ACs"] == 0

    def test_what_is_there_already_is_left_alone(self, ext, monkeypatch):
        from neurobench.metrics.workload.neuron_operations import neuron_ops_reset_operations as table

        before = dict(table)
        ext.register_neurobench()
        assert table.keys() - before.keys() == {"VSN", "LIFB", "SoftResetMPR"}
        ext.unregister_neurobench()
        ext.unregister_neurobench()
        assert table == before
        monkeypatch.setitem(table, "LIFB", {"zero": 9})
        with pytest.raises(ValueError, match="operations of a LIFB already"):
            ext.register_neurobench()
        assert "VSN" not in table
        ext.unregister_neurobench()
        assert table["LIFB"] == {"zero": 9}

    def test_neurobench_is_not_imported_unasked_and_missed_with_a_remedy(self):
        pytest.importorskip("snntorch")
        code = (
            "import sys, snn_ext.snntorch as ext\n"
            "print('neurobench' in sys.modules)\n"
            "sys.modules['neurobench'] = None\n"
            "ext.unregister_neurobench()\n"
            "ext.register_neurobench()"
        )
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
        assert done.stdout.strip() == "False"
        assert "ImportError: neurobench.metrics" in done.stderr
        assert "pip install neurobench==2.3.0" in done.stderr


class Steps(nn.Module):
    """Shows a network of one step the steps of a batch, as NeuroBench does."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return torch.stack([self.net(step)[0] for step in x.unbind(1)])
