"""Penalties: exact counts, gradients through the surrogate, one life from a forward to a loss."""

import copy
import gc
import pickle
import warnings

import pytest
import torch
from energy_nets import BATCH, STEPS, network
from torch import nn

from snn_ext import energy
from snn_ext.energy import (
    BalancedSpikePenalty,
    ConstantLambda,
    LinearRamp,
    SpikingActivityLoss,
    SynapticPenalty,
    TotalSpikePenalty,
    fan_out,
    penalties,
)
from snn_ext.surrogate import Sigmoid


def reset(face, net):
    face.ext.reset(net) if face.name == "snntorch" else face.functional.reset_net(net)


def run(face, net, x_seq):
    reset(face, net)
    return torch.stack([net(x) for x in x_seq])


def caught(face, net, x_seq):
    """Return what each neuron emits, by layer, of shape (T, N, ...)."""
    seen = {}
    hooks = [
        net[i].register_forward_hook(
            lambda m, a, y, i=i: seen.setdefault(str(i), []).append(y[0] if isinstance(y, tuple) else y)
        )
        for i in (1, 3)
    ]
    run(face, net, x_seq)
    for hook in hooks:
        hook.remove()
    return {name: torch.stack(ys) for name, ys in seen.items()}


@pytest.fixture
def x_seq():
    return 2 * torch.rand(STEPS, BATCH, 1, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=["at the loss", "at their step"])
def counted(request, monkeypatch):
    """When spikes are counted, which goes by their number."""
    if request.param == "at their step":
        monkeypatch.setattr(penalties, "_LARGE", 1)
    return request.param


class TestValue:
    @pytest.mark.parametrize("p", [1, 2, 3])
    def test_p_times_the_penalty_is_the_number_of_synaptic_operations(self, face, x_seq, p):
        net = network(face)
        penalty = SynapticPenalty(net, x_seq[0], p=p)
        psi, spikes = fan_out(net, x_seq[0]), caught(face, net, x_seq)
        operations = sum((spikes[name] * psi[name]).sum() for name in spikes)
        assert operations > 100
        run(face, net, x_seq)
        assert p * penalty().item() == pytest.approx(operations.item() / BATCH, rel=1e-6)

    def test_the_rivals_and_the_activity(self, face, x_seq):
        net = network(face)
        total, balanced, activity = (
            TotalSpikePenalty(net),
            BalancedSpikePenalty(net),
            SpikingActivityLoss(net),
        )
        spikes = caught(face, net, x_seq).values()
        assert total().item() == pytest.approx(sum(s.sum().item() for s in spikes) / BATCH)
        means = [s.mean().item() for s in spikes]
        assert balanced().item() == pytest.approx(STEPS * sum(means))
        assert activity().item() == pytest.approx(sum(means))

    def test_a_graded_spike_counts_as_its_gate(self, face, x_seq):
        net = network(face, face.vsn)
        penalty = TotalSpikePenalty(net)
        spikes = caught(face, net, x_seq).values()
        gates = sum(float((s != 0).sum()) for s in spikes)
        assert 0 < gates != sum(float(s.sum()) for s in spikes)
        assert penalty().item() == pytest.approx(gates / BATCH)

    @pytest.mark.parametrize("p", [1, 2])
    def test_a_burst_counts_as_its_spikes_with_the_exponent_on_events(self, face, x_seq, p):
        net = network(face, lambda: face.lifb(burst_intensity=3.0))
        penalty = TotalSpikePenalty(net, p=p)
        spikes = caught(face, net, x_seq).values()
        assert any((s == 3).any() for s in spikes)
        assert p * penalty().item() == pytest.approx(sum(float(s.sum()) for s in spikes) / BATCH)

    def test_an_amplitude_is_no_number_of_spikes(self, face, x_seq):
        net = network(face, lambda: face.mpr(0.5, 0.25, amplitude=0.5))
        penalty = TotalSpikePenalty(net)
        spikes = caught(face, net, x_seq).values()
        assert penalty().item() == pytest.approx(sum(float((s != 0).sum()) for s in spikes) / BATCH)

    def test_both_frameworks_give_the_same_number(self, x_seq):
        snn = pytest.importorskip("snntorch")
        neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
        found = []
        for make in (
            lambda: snn.Leaky(0.5, 0.5, init_hidden=True, reset_mechanism="zero"),
            lambda: neuron.LIFNode(2.0, False, 0.5),
        ):
            torch.manual_seed(0)
            net = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), make(), nn.Flatten(), nn.Linear(108, 5))
            penalty = SynapticPenalty(net, x_seq[0])
            for x in x_seq:
                net(x)
            found.append(penalty().item())
        assert found[0] == found[1] > 0

    def test_multi_step_and_single_step_agree(self, face, x_seq):
        neuron = face.lifb()
        penalty = TotalSpikePenalty(neuron)
        if face.name == "snntorch":
            neuron.multi_step(x_seq)
        else:
            face.functional.set_step_mode(neuron, "m")
            neuron(x_seq)
        fused = penalty().item()
        reset(face, neuron)
        if face.name == "spikingjelly":
            face.functional.set_step_mode(neuron, "s")
        for x in x_seq:
            neuron(x)
        assert penalty().item() == fused > 0

    def test_a_constant_factor_of_snntorch_is_no_number_of_spikes(self, x_seq):
        snn = pytest.importorskip("snntorch")
        neuron = snn.Leaky(0.5, 0.5, init_hidden=True, graded_spikes_factor=0.25)
        penalty = TotalSpikePenalty(neuron)
        spikes = neuron(x_seq[0])
        assert penalty().item() == pytest.approx(float((spikes != 0).sum()) / BATCH)

    def test_a_constant_factor_of_snntorch_that_changes(self, x_seq):
        snn = pytest.importorskip("snntorch")
        neuron = snn.Leaky(0.5, 0.5, init_hidden=True)
        penalty = TotalSpikePenalty(neuron)
        for factor in (1.0, 1.0, 0.25, 3.0, 1.0):
            neuron.graded_spikes_factor.fill_(factor)
            found = [neuron(x) for x in x_seq[:2]]
            spikes = sum(int((y != 0).sum()) for y in found)
            assert max(float(y.max()) for y in found) == factor
            assert penalty().item() == pytest.approx(spikes / BATCH)

    def test_potentials_of_zero_that_are_detached_are_no_reset(self):
        snn = pytest.importorskip("snntorch")
        neuron = snn.Leaky(0.5, 0.5, init_hidden=True)
        penalty = TotalSpikePenalty(neuron)
        x = torch.rand(BATCH, 4).requires_grad_()
        spikes = neuron(2 * x)
        neuron.mem.data.zero_()
        type(neuron).detach_hidden()
        assert not neuron.mem.requires_grad
        assert penalty().item() == pytest.approx(float(spikes.sum()) / BATCH)
        assert spikes.any()

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("p", [1, 2, 3])
    def test_against_the_formula(self, face, x_seq, counted, p, dtype):
        native = dtype == torch.float32  # snnTorch's own know no other
        net = network(face, maker(face, "lif" if native else "mpr")).to(dtype)
        x_seq = x_seq.to(dtype)
        penalty, weights = SynapticPenalty(net, x_seq[0], p=p), fan_out(net, x_seq[0])
        seen = caught(face, net, x_seq)
        total = sum((weights[name] * y**p).sum(dtype=torch.float64) for name, y in seen.items()) / (p * BATCH)
        expected = torch.autograd.grad(total, net[0].weight, retain_graph=True)[0]
        found = penalty()
        assert found.dtype == dtype
        assert found.item() == pytest.approx(total.item(), rel=1e-6)
        torch.testing.assert_close(torch.autograd.grad(found, net[0].weight)[0], expected)
        assert expected.any()


def smooth(face, kind):
    """Return a neuron of ours whose step is smooth, in float64."""
    word = "spike_grad" if face.name == "snntorch" else "surrogate_function"
    surrogate = {word: Sigmoid(slope=2.0, spiking=False)}
    if kind == "lifb":
        return face.lifb(burst_intensity=2.5, **surrogate)
    if face.name == "snntorch":
        return face.ext.VSN(0.5, 0.5, init_hidden=True, **surrogate)
    return face.ext.VSNNode(2.0, False, 0.5, **surrogate)


class TestGradient:
    @pytest.mark.parametrize("kind", ["lifb", "vsn"])
    @pytest.mark.parametrize("p", [1, 2, 3])
    def test_against_finite_differences_through_a_smooth_step(self, face, counted, kind, p):
        neuron = smooth(face, kind)
        if face.name == "spikingjelly":
            face.functional.set_step_mode(neuron, "s")
        net = nn.Sequential(neuron, nn.Linear(4, 3)).double()
        x = torch.randn(2, 4, dtype=torch.float64)
        penalty = SynapticPenalty(net, x, p=p)

        def value(x):
            reset(face, net)
            net(x)
            if face.name == "spikingjelly":  # snnTorch detaches the reset of the step before
                net(0.5 * x)
            return penalty()

        assert torch.autograd.gradcheck(value, x.requires_grad_())

    def test_an_exponent_above_one_passes_nothing_to_silent_neurons(self, face):
        x = torch.full((1, 6), 0.4, requires_grad=True)  # threshold 0.5: all silent
        grads = []
        for p in (1, 2):
            neuron = face.lif()
            penalty = TotalSpikePenalty(neuron, p=p)
            neuron(x)
            (grad,) = torch.autograd.grad(penalty(), x, allow_unused=True)
            grads.append(grad)
        assert (grads[0] > 0).all()
        assert not grads[1].any()

    @pytest.mark.parametrize("how", ["float32", "float64", "channels last", "autocast"])
    @pytest.mark.parametrize("p", [1, 2, 3])
    def test_it_adds_to_that_of_the_task(self, face, x_seq, counted, p, how):
        net = network(face)
        if how == "float64":
            if face.name == "snntorch":
                pytest.skip("its native spikes are float32")
            net, x_seq = net.double(), x_seq.double()
        if how == "channels last":
            net = net.to(memory_format=torch.channels_last)
        seen = []
        net[3].register_forward_hook(lambda m, a, y: seen.append(y[0] if isinstance(y, tuple) else y))

        def ran():
            seen.clear()
            with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
                return run(face, net, x_seq).float().square().sum()

        def grads(loss):  # under autocast at the last spikes: weights before them round their sum
            return torch.autograd.grad(loss, seen if how == "autocast" else (net[0].weight, net[2].weight))

        alone = grads(ran())
        penalty = SynapticPenalty(net, x_seq[0], p=p)
        watched = grads(ran())
        penalty.clear()
        ran()
        of_penalty = grads(penalty())
        loss = ran()
        both = grads(loss + 0.5 * penalty())
        for a, w, o, b in zip(alone, watched, of_penalty, both, strict=True):
            assert torch.allclose(w, a, rtol=1e-6)
            assert o.abs().max() > 0.01 * a.abs().max()  # or the sum would say nothing
            torch.testing.assert_close(b, a + 0.5 * o, rtol=1e-5, atol=1e-5 * float(b.abs().max()))

    @pytest.mark.parametrize("unpack", [lambda s: s.mT.contiguous().mT, lambda s: s.double(), lambda s: s])
    def test_saved_spikes_that_come_back_otherwise(self, face, x_seq, counted, unpack):
        net = network(face)
        penalty = SynapticPenalty(net, x_seq[0], p=2)
        found = []
        for hook in (lambda s: s, unpack):
            with torch.autograd.graph.saved_tensors_hooks(lambda s: s, lambda s: s):
                run(face, net, x_seq)
            with torch.autograd.graph.saved_tensors_hooks(lambda s: s.detach(), hook):
                omega = penalty()
            found.append(torch.autograd.grad(omega, net[0].weight)[0])
        torch.testing.assert_close(*found)

    def test_that_of_two_at_once_and_of_a_hook_before_them(self, face, x_seq, counted):
        net = network(face)
        seen = []
        net[1].register_forward_hook(lambda m, a, y: seen.append(y[0] if isinstance(y, tuple) else y))
        first, second = SynapticPenalty(net, x_seq[0]), TotalSpikePenalty(net, p=2)

        def grad(*which):
            seen.clear()
            y = run(face, net, x_seq)
            found = torch.stack(seen).sum(), first(), second(), y.square().sum()
            return torch.autograd.grad(sum(found[i] for i in which), net[0].weight)[0]

        together, each = grad(0, 1, 2, 3), [grad(i) for i in range(4)]
        torch.testing.assert_close(together, sum(each), rtol=1e-5, atol=1e-5 * float(together.abs().max()))
        assert all(one.any() for one in each)

    def test_training_with_it_saves_operations(self, face, x_seq):
        net = network(face)
        penalty = SynapticPenalty(net, x_seq[0])
        optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
        spent = []
        for _ in range(10):
            run(face, net, x_seq)
            omega = penalty()
            spent.append(omega.item())
            optimizer.zero_grad()
            (0.1 * omega).backward()
            optimizer.step()
        assert spent[-1] < 0.8 * spent[0]


def maker(face, kind):
    return (lambda: face.mpr(0.5, 0.5)) if kind == "mpr" else getattr(face, kind)


class TestLife:
    def test_called_too_early_or_twice(self, face, x_seq):
        net = network(face)
        penalty = SynapticPenalty(net, x_seq[0])
        with pytest.raises(RuntimeError, match="before any forward"):
            penalty()
        run(face, net, x_seq)
        penalty()
        with pytest.raises(RuntimeError, match="already taken"):
            penalty()

    def test_a_reset_clears_it(self, face, x_seq):
        net = network(face)
        penalty = TotalSpikePenalty(net)
        run(face, net, x_seq)
        reset(face, net)
        with pytest.raises(RuntimeError, match="after a reset"):
            penalty()
        run(face, net, 2 * x_seq)
        run(face, net, x_seq)
        last = penalty().item()
        run(face, net, x_seq)
        assert penalty().item() == last

    def test_validation_leaves_no_trace_in_training(self, face, x_seq):
        net = network(face)
        penalty = TotalSpikePenalty(net)
        run(face, net, x_seq)
        expected = penalty().item()
        with torch.no_grad():
            for x in x_seq:
                net(x)
        for x in x_seq:
            net(x)
        omega = penalty()
        assert omega.requires_grad
        run(face, net, x_seq)
        assert penalty().item() == expected

    def test_nothing_is_held_once_the_loss_is_taken(self, face, x_seq):
        net = network(face)
        penalty = SynapticPenalty(net, x_seq[0])
        held = []
        for _ in range(5):
            run(face, net, x_seq)
            penalty().backward()
            gc.collect()
            held.append(sum(type(o) is torch.Tensor and o.grad_fn is not None for o in gc.get_objects()))
            assert not any(penalty._records.values())
        assert held[-1] <= held[0]  # tensors with a graph, also those that other tests left behind

    @pytest.mark.parametrize("kind", ["lif", "lifb"])
    def test_dropped_removed_and_copied(self, face, x_seq, kind):
        net = network(face, getattr(face, kind))
        penalty = TotalSpikePenalty(net)
        other = copy.deepcopy(net)
        run(face, other, x_seq)
        assert not any(penalty._records.values())
        if face.name == "spikingjelly":
            assert pickle.loads(pickle.dumps(net))
        penalty.remove()
        run(face, net, x_seq)
        with pytest.raises(RuntimeError, match="this TotalSpikePenalty was removed"):
            penalty()
        assert not any(m._forward_hooks or getattr(m, "_taps", ()) for m in net.modules())
        penalty = TotalSpikePenalty(net)
        with pytest.raises(TypeError, match="cannot be copied"):
            copy.deepcopy(penalty)
        del penalty
        gc.collect()
        run(face, net, x_seq)

    @pytest.mark.parametrize("kind", ["lif", "lifb"])
    @pytest.mark.parametrize("p", [1, 2])
    def test_a_compiled_network_is_watched_alike(self, face, kind, p):
        net = nn.Sequential(nn.Linear(4, 8), getattr(face, kind)(), nn.Linear(8, 2))
        penalty = SynapticPenalty(net, torch.rand(3, 4), p=p)
        found = []
        for run in (net, net, torch.compile(net, backend="aot_eager")):
            reset(face, net)
            run(20 * torch.rand(3, 4, generator=torch.Generator().manual_seed(0)))
            omega = penalty()
            (grad,) = torch.autograd.grad(omega, net[0].weight)
            found.append((omega.item(), grad))
        for value, grad in found[1:]:
            assert value == found[0][0] > 0
            assert torch.allclose(grad, found[0][1])

    @pytest.mark.parametrize("kind", ["lif", "lifb", "vsn", "mpr"])
    def test_penalties_of_different_exponents_on_one_network(self, face, x_seq, kind):
        make = maker(face, kind)
        alone = []
        for p in (1, 2, 1):
            net = network(face, make)
            penalty = TotalSpikePenalty(net, p=p)
            run(face, net, x_seq)
            omega = penalty()
            alone.append((omega, torch.autograd.grad(omega, net[0].weight)[0]))
        net = network(face, make)
        penalties = [TotalSpikePenalty(net, p=p) for p in (1, 2, 1)]
        run(face, net, x_seq)
        for penalty, (value, grad) in zip(penalties, alone, strict=True):
            omega = penalty()
            assert omega.item() == value.item() > 0
            found = torch.autograd.grad(omega, net[0].weight, retain_graph=True)[0]
            assert torch.allclose(found, grad)
        assert not torch.allclose(alone[0][1], alone[1][1])

    @pytest.mark.usefixtures("counted")
    @pytest.mark.parametrize("kind", [SynapticPenalty, TotalSpikePenalty, BalancedSpikePenalty])
    def test_runs_of_other_sizes_dtypes_and_layouts_in_turn(self, face, x_seq, kind):
        net = network(face)
        before = kind(net, x_seq[0], p=2)
        wide = x_seq if face.name == "snntorch" else x_seq.double()  # its native spikes are float32
        channels_last = x_seq[0].to(memory_format=torch.channels_last)
        for xs in (x_seq, x_seq, x_seq[:2], x_seq[:, :2], wide, x_seq, [channels_last] * 3, x_seq):
            net.to(xs[0].dtype)
            after = kind(net, x_seq[0].to(xs[0].dtype), p=2)
            run(face, net, xs)
            found, expected = before(), after()
            assert found.dtype == expected.dtype
            assert found.item() == expected.item() > 0
            grads = [torch.autograd.grad(o, net[0].weight, retain_graph=True)[0] for o in (found, expected)]
            assert torch.equal(*grads)
            after.remove()

    def test_validation_between_forward_and_loss(self, face, x_seq):
        net = network(face)
        penalty = TotalSpikePenalty(net)
        run(face, net, x_seq)
        expected = penalty().item()
        run(face, net, x_seq)
        with torch.no_grad():
            run(face, net, 2 * x_seq)
        omega = penalty()
        assert omega.requires_grad
        assert omega.item() == expected

    def test_measuring_while_a_loss_is_due(self, face, x_seq):
        net = network(face)
        penalty = TotalSpikePenalty(net)
        run(face, net, x_seq)
        expected = penalty().item()
        run(face, net, x_seq)
        with torch.no_grad():
            run(face, net, 2 * x_seq)
            assert penalty().item() > 1.1 * expected
        omega = penalty()
        assert omega.requires_grad
        assert omega.item() == expected

    @pytest.mark.parametrize("p", [1, 2, 3])
    @pytest.mark.parametrize("make", ["native", "ours"])
    def test_parts_of_a_sequence_of_different_lengths(self, x_seq, counted, make, p):
        neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
        from spikingjelly.activation_based import functional

        from snn_ext.spikingjelly import LIFBNode

        node = {"native": neuron.LIFNode, "ours": LIFBNode}[make](2.0, False, 0.5, step_mode="m")
        penalty = TotalSpikePenalty(node, p=p)
        found = []
        for lengths in ((4,), (1, 2, 1), (2, 2)):
            functional.reset_net(node)
            x = x_seq.clone().requires_grad_()
            for part in x.split(lengths):
                node(part)
            omega = penalty()
            found.append((omega, *torch.autograd.grad(omega, x)))
        for value, grad in found[1:]:
            assert value.item() == pytest.approx(found[0][0].item())
            torch.testing.assert_close(grad, found[0][1])
        assert found[0][1].any()

    def test_spikes_that_are_written_to(self, face, x_seq):
        neuron = face.lif()
        penalty = TotalSpikePenalty(neuron)
        y = neuron(x_seq[0].requires_grad_())
        (y[0] if isinstance(y, tuple) else y).mul_(2)
        with pytest.raises(RuntimeError, match="spikes were written to"):
            penalty()

    @pytest.mark.parametrize("p", [1, 2])
    def test_spikes_that_are_written_to_after_they_were_counted(self, face, x_seq, monkeypatch, p):
        monkeypatch.setattr(penalties, "_LARGE", 1)
        neuron = face.lif()
        penalty = TotalSpikePenalty(neuron, p=p)
        x = x_seq[0].requires_grad_()
        y = neuron(x)
        y = y[0] if isinstance(y, tuple) else y
        spikes = float(y.sum())
        y.mul_(2)
        omega = penalty()
        assert omega.item() == pytest.approx(spikes / (p * BATCH))
        if p == 1:
            omega.backward()
            assert x.grad.any()
        else:
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                omega.backward()

    def test_a_layer_that_runs_in_validation_only(self, face, x_seq):
        class Branched(nn.Module):
            def __init__(self):
                super().__init__()
                self.always, self.sometimes = face.lif(), face.lif()

            def forward(self, x):
                return self.always(x) if self.training else self.sometimes(self.always(x))

        net = Branched()
        penalty = TotalSpikePenalty(net)
        net.train()(10 * x_seq[0])
        expected = penalty().item()
        reset(face, net)
        with torch.no_grad():
            net.eval()(10 * x_seq[0])
        reset(face, net)
        net.train()(10 * x_seq[0].requires_grad_())
        assert penalty().item() == expected > 0

    def test_without_gradients_in_training_it_says_so(self, face, x_seq):
        net = network(face)
        penalty = TotalSpikePenalty(net)
        with torch.no_grad():
            run(face, net, x_seq)
        with pytest.warns(UserWarning, match="has no gradient"):
            penalty()
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("error")
            run(face, net, x_seq)
            assert penalty() > 0

    @pytest.mark.parametrize("kind", ["lif", "lifb"])
    def test_one_that_is_dropped_leaves_the_network(self, face, kind):
        neuron = getattr(face, kind)()
        for _ in range(3):
            TotalSpikePenalty(neuron)
        gc.collect()
        assert not neuron._forward_hooks
        assert not neuron._forward_pre_hooks
        assert not getattr(neuron, "_taps", ())

    @pytest.mark.parametrize("layout", ["contiguous", "channels last"])
    @pytest.mark.parametrize("kind", ["vsn", "lifb", "mpr"])
    def test_one_that_is_not_in_the_loss(self, face, x_seq, counted, kind, layout):
        from torch.utils.flop_counter import FlopCounterMode

        net = network(face, maker(face, kind))
        if layout == "channels last":
            net = net.to(memory_format=torch.channels_last)
        run(face, net, x_seq).sum().backward()
        expected = net[0].weight.grad.clone()
        net[0].weight.grad = None
        penalty = TotalSpikePenalty(net)
        y = run(face, net, x_seq)
        with FlopCounterMode(display=False):  # by the operators
            y.sum().backward()
        assert torch.allclose(net[0].weight.grad, expected)
        assert penalty() > 0

    @pytest.mark.parametrize("kind", ["lif", "lifb", "vsn"])
    @pytest.mark.parametrize("p", [1, 2])
    @pytest.mark.parametrize("make", [SynapticPenalty, TotalSpikePenalty])
    def test_channels_last_and_half_precision(self, face, x_seq, counted, make, kind, p):
        found = []
        for channels_last, half in ((False, False), (True, False), (True, True)):
            net = network(face, getattr(face, kind))
            if channels_last:
                net = net.to(memory_format=torch.channels_last)
            penalty = make(net, x_seq[0], p=p)
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                run(face, net, x_seq)
            omega = penalty()
            omega.backward()
            assert net[0].weight.grad.isfinite().all()
            found.append((omega.item(), net[0].weight.grad.float()))
        assert found[1][0] == pytest.approx(found[0][0])
        assert torch.allclose(found[1][1], found[0][1], rtol=1e-4, atol=1e-4 * found[0][1].abs().max())
        assert found[2][0] == pytest.approx(found[0][0], rel=0.1)

    @pytest.mark.parametrize("kind", ["lifb", "vsn"])  # native surrogates are no functions of torch.func
    def test_transforms_of_torch_func(self, face, kind):
        neuron = getattr(face, kind)()
        penalty = TotalSpikePenalty(neuron)

        def value(x):
            reset(face, neuron)
            neuron(x)
            return penalty()

        x = 3 * torch.rand(4, 6)
        expected = torch.autograd.grad(value(x.requires_grad_()), x)[0]
        found = torch.func.grad(value)(x.detach())
        torch.testing.assert_close(found, expected)
        assert expected.any()


class TestBadInput:
    def test_nothing_that_is_driven(self, face):
        with pytest.raises(ValueError, match="no spiking layer of Sequential drives a synapse"):
            SynapticPenalty(nn.Sequential(nn.Linear(2, 2), face.lif()), torch.rand(1, 2))

    def test_an_exponent_in_the_place_of_the_sample(self, face):
        with pytest.raises(TypeError):
            TotalSpikePenalty(face.lif(), None, 2)

    def test_input_without_a_batch(self, face):
        neuron = face.lifb()
        penalty = TotalSpikePenalty(neuron)
        with pytest.raises(ValueError, match="without a batch"):
            neuron(torch.tensor(1.0))
        penalty.remove()

    @pytest.mark.parametrize(
        ("p", "error"), [(0.5, ValueError), (float("inf"), ValueError), ("1", TypeError)]
    )
    def test_an_exponent_below_one(self, face, p, error):
        with pytest.raises(error, match="p"):
            TotalSpikePenalty(face.lif(), p=p)

    def test_a_network_without_spikes(self):
        with pytest.raises(ValueError, match="no spiking layer"):
            TotalSpikePenalty(nn.Linear(2, 2))

    def test_another_size_than_the_sample(self, face, x_seq):
        net = nn.Sequential(face.lif(), nn.Conv2d(1, 2, 3))
        penalty = SynapticPenalty(net, torch.rand(1, 1, 9, 9))
        with pytest.raises(ValueError, match=r"layer '0' has neurons of shape \(1, 6, 6\)"):
            net(x_seq[0])
        penalty.remove()

    @pytest.mark.parametrize("lam", [-1e-6, float("nan"), float("inf")])
    def test_a_negative_lambda(self, lam):
        for make in (ConstantLambda, lambda lam: LinearRamp(lam, 10)):
            with pytest.raises(ValueError, match="lam="):
                make(lam)
        with pytest.raises(ValueError, match="steps=0"):
            LinearRamp(1e-6, 0)


class TestInhibition:
    """snnTorch's winner takes all: only the winner's spikes are sent."""

    @pytest.mark.parametrize("make", ["VSN", "LIFB"])
    def test_steps_at_once_count_as_one_by_one(self, make):
        pytest.importorskip("snntorch")
        from snn_ext import snntorch as ext

        x_seq = 2 * torch.rand(STEPS, BATCH, 5, generator=torch.Generator().manual_seed(0))
        neuron = getattr(ext, make)(0.5, 0.5, inhibition=True)
        penalty = TotalSpikePenalty(neuron)
        found = []
        for run_it in (neuron.multi_step, lambda x_seq, mem: stepped(neuron, x_seq, mem)):
            y_seq, _ = run_it(x_seq, neuron.reset_mem())
            found.append((y_seq, penalty().item()))
        assert torch.equal(found[0][0], found[1][0])
        sent = (found[0][0].sum() if make == "LIFB" else (found[0][0] > 0).sum()).item()
        assert found[0][1] == found[1][1] == pytest.approx(sent / BATCH)
        with pytest.raises(ValueError, match="at least one time step"):
            neuron.multi_step(x_seq[:0], neuron.reset_mem())


def stepped(neuron, x_seq, mem):
    ys = []
    for x in x_seq:
        y, mem = neuron(x, mem)
        ys.append(y)
    return torch.stack(ys), mem


class TestFaces:
    @pytest.mark.parametrize("name", ["synaptic_reg", "total_spike_reg", "balanced_spike_reg"])
    def test_a_regulariser_in_the_loops_of_snntorch(self, name):
        pytest.importorskip("snntorch")
        import snntorch as snn
        from snntorch import backprop
        from snntorch import functional as SF

        from snn_ext.snntorch import LIFB
        from snn_ext.snntorch import energy as face

        net = nn.Sequential(
            nn.Linear(4, 8), LIFB(0.5, 0.3, init_hidden=True), nn.Linear(8, 2),
            snn.Leaky(0.5, init_hidden=True, output=True),
        )  # fmt: skip
        loader = [(torch.rand(5, 4), torch.randint(2, (5,)))] * 2
        weights = []

        def schedule(step):
            weights.append(step)
            return 1e-3

        reg = getattr(face, name)(net, torch.rand(1, 4), schedule)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        loss = backprop.BPTT(
            net, loader, optimizer, SF.ce_rate_loss(), num_steps=3, time_var=False, regularization=reg
        )
        assert torch.isfinite(torch.as_tensor(loss))
        assert weights == [0, 1]
        assert not any(reg.penalty._records.values())
        with pytest.raises(ValueError, match="Lambda=-1"):
            getattr(face, name)(net, torch.rand(1, 4), -1)

    def test_the_words_of_a_monitor(self, x_seq):
        neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
        from snn_ext.spikingjelly import energy as face

        net = nn.Sequential(neuron.LIFNode(2.0, False, 0.5), nn.Flatten(), nn.Linear(36, 2))
        for kind in (face.SynapticPenalty, face.TotalSpikePenalty, face.BalancedSpikePenalty):
            penalty = kind(net, x_seq[0])
            assert isinstance(penalty, getattr(energy, kind.__name__))
            net(x_seq[0])
            penalty.clear_recorded_data()
            with pytest.raises(RuntimeError, match="before any forward"):
                penalty()
            penalty.remove_hooks()
