"""Weights of penalties: by what the task has learned, so that a network from scratch learns and saves."""

import pickle
import warnings

import pytest
import torch
from energy_nets import network
from torch import nn

from snn_ext.energy import (
    ConstantLambda,
    LinearRamp,
    SynapticPenalty,
    TotalSpikePenalty,
    Weighted,
    WhenLearning,
)


def reset(face, net):
    face.ext.reset(net) if face.name == "snntorch" else face.functional.reset_net(net)


def weights(lam, tasks, omegas=None):
    return [lam(step, task, 100.0 if omegas is None else omegas[step]) for step, task in enumerate(tasks)]


class TestSchedule:
    def test_it_waits_for_the_task_then_rises_to_its_share(self):
        lam = WhenLearning(share=0.02, begin=0.25, ramp=4)
        found = weights(lam, [2.0] * 5 + [1.0] * 60)
        full = 0.02 * 2.0 / 100
        waited = next(n for n in range(60) if 1 - 0.9**n > 0.5)  # until the mean over ten steps is 1.5
        begun = 5 + waited - 1
        assert found[:begun] == [0.0] * begun
        assert found[begun : begun + 4] == pytest.approx([k / 4 * full for k in (1, 2, 3, 4)])
        assert found[-1] == pytest.approx(full)

    def test_it_waits_for_spikes(self):
        found = weights(WhenLearning(ramp=1), [2.0] + [0.5] * 30, [0.0] * 20 + [50.0] * 11)
        assert found[:20] == [0.0] * 20
        assert found[20] == pytest.approx(0.01 * 2.0 / 50)

    def test_the_penalty_never_adds_more_than_its_share(self):
        omegas = [10.0] * 20 + [1000.0] * 20
        found = weights(WhenLearning(share=0.1, ramp=1), [2.0] + [0.5] * 39, omegas)
        assert max(w * o for w, o in zip(found, omegas, strict=True)) == pytest.approx(0.1 * 2.0)

    def test_it_gives_way_where_the_task_loses_ground_and_comes_back(self):
        lam = WhenLearning(ramp=1, give=0.1)
        found = weights(lam, [2.0] + [0.0] * 80 + [1.0] * 20 + [0.0] * 80)
        assert found[80] > 0
        assert found[95:101] == [0.0] * 6
        assert found[-1] == pytest.approx(found[80], rel=0.01)

    def test_losses_that_are_negative_or_no_numbers(self):
        lam = WhenLearning(ramp=1)
        assert weights(lam, [float("nan"), -1.0, float("inf")]) == [0.0, 0.0, 0.0]
        assert weights(lam, [-3.0] * 40)[-1] == pytest.approx(0.01 * 1.0 / 100)

    def test_a_pickled_one_and_a_state_go_on(self):
        tasks = [2.0] * 3 + [0.3] * 30
        whole = weights(WhenLearning(), tasks)
        lam = WhenLearning()
        weights(lam, tasks[:20])
        loaded = WhenLearning()
        loaded.load_state_dict(lam.state_dict())
        for other in (pickle.loads(pickle.dumps(lam)), loaded):
            rest = [other(step, tasks[step], 100.0) for step in range(20, len(tasks))]
            assert rest == whole[20:]
            assert rest[-1] > 0
        with pytest.raises(ValueError, match="state has the keys"):
            lam.load_state_dict({"step": 1})

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"share": -1.0}, "share=-1"),
            ({"begin": 1.0}, "begin=1"),
            ({"give": 0.0}, "give=0"),
            ({"ramp": 0}, "ramp=0"),
        ],
    )
    def test_bad_settings(self, options, message):
        with pytest.raises(ValueError, match=message):
            WhenLearning(**options)

    def test_without_the_task(self):
        with pytest.raises(RuntimeError, match="needs the task's loss"):
            WhenLearning()(3)
        with pytest.raises(ValueError, match=r"task must be one number, got a tensor of shape \(2,\)"):
            WhenLearning()(0, torch.ones(2), 1.0)


class TestWeighted:
    @pytest.mark.parametrize(
        ("lam", "expected"), [(0.5, 0.5), (ConstantLambda(0.5), 0.5), (LinearRamp(0.5, 2), 0.25)]
    )
    def test_other_weights(self, face, lam, expected):
        net, x = network(face), 2 * torch.rand(3, 1, 6, 6)
        plain, saving = SynapticPenalty(net, x), Weighted(SynapticPenalty(net, x), lam)
        for _ in range(2):
            reset(face, net)
            net(x)
            omega, found = plain(), saving()
        assert saving.weight == expected
        assert found.item() == pytest.approx(expected * omega.item())
        assert found.requires_grad

    def test_bad_input(self, face):
        penalty = TotalSpikePenalty(face.lif())
        with pytest.raises(TypeError, match="penalty must be one of snn_ext.energy, got float"):
            Weighted(1e-6)
        with pytest.raises(ValueError, match="lam=-1"):
            Weighted(penalty, -1)

    def test_a_state_goes_on(self, face):
        x = 2 * torch.rand(3, 1, 6, 6)
        net = network(face)
        savings = [Weighted(TotalSpikePenalty(net), WhenLearning(ramp=40)) for _ in range(2)]
        for step in range(30):
            if step == 20:
                savings[1].load_state_dict(savings[0].state_dict())
            reset(face, net)
            net(x)
            found = [saving(2.0 if step < 3 else 0.5).item() for saving in savings]
        assert found[0] == found[1] > 0

    def test_what_is_printed(self, face):
        net, x = network(face), 2 * torch.rand(3, 1, 6, 6)
        penalty = SynapticPenalty(net, x)
        assert "1: " in str(penalty)
        assert "last value not yet taken" in str(penalty)
        net(x)
        value = penalty().item()
        assert sum(penalty.last().values()) == pytest.approx(value)
        assert set(penalty.last()) == {"1", "3"}
        text = str(penalty)
        assert text.startswith("SynapticPenalty, p=1, watches:")
        assert f"1: {type(net[1]).__name__}, 108 neurons that drive" in text
        assert f"last value {penalty.last()['3']:,.6g}" in text
        assert text.endswith(f"last value {value:,.6g}")
        assert "WhenLearning(share=0.01" in str(Weighted(penalty))
        penalty.remove()
        assert "removed" in str(penalty)


class TestSilence:
    @pytest.mark.parametrize("kind", ["lif", "lifb"])
    def test_a_layer_that_falls_silent_is_warned_of_once(self, face, kind):
        net, x = network(face, getattr(face, kind)), 2 * torch.rand(3, 1, 6, 6)
        penalty = TotalSpikePenalty(net)

        def train(steps):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                for _ in range(steps):
                    reset(face, net)
                    net(x)
                    penalty()
            return [str(w.message) for w in caught if "silent" in str(w.message)]

        assert train(30) == []
        with torch.no_grad():
            net[2].bias.fill_(-99)
        (message,) = train(30)
        assert message.startswith("layer '3' has fallen silent in training")
        assert "Weighted" in message
        assert train(30) == []

    def test_one_that_never_fired_or_does_not_train_is_not(self, face):
        net, x = network(face), torch.zeros(3, 1, 6, 6)
        penalty = TotalSpikePenalty(net)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with torch.no_grad():
                for parameter in net.parameters():
                    parameter.fill_(-1.0)
            for _ in range(40):
                reset(face, net)
                net(x)
                assert penalty() == 0


STEPS, BATCH = 6, 64


def digits_network(face):
    """Return a network that starts nearly silent."""
    if face.name == "snntorch":
        import snntorch as snn
        from snntorch import surrogate

        steep = surrogate.fast_sigmoid(slope=25)
        first, second = (snn.Leaky(0.5, spike_grad=steep, init_hidden=True) for _ in range(2))
    else:
        from spikingjelly.activation_based import neuron

        first, second = (neuron.LIFNode(2.0, False) for _ in range(2))
    net = nn.Sequential(
        face.conv(1, 8, 3, padding=1), first, face.conv(8, 12, 3, stride=2, padding=1), second,
        face.flatten(), face.linear(12 * 16, 10),
    )  # fmt: skip
    if face.name == "spikingjelly":
        face.functional.set_step_mode(net, "m")
    return net


def trained(face, images, labels, train, test, lam, seed=0, epochs=6):
    """Return the accuracy and the synaptic operations of a digit after training from scratch."""
    torch.manual_seed(seed)
    net = digits_network(face)
    multi = face.name == "spikingjelly"

    def run(x):
        reset(face, net)
        x = x.expand(STEPS, *x.shape)
        return (net(x) if multi else torch.stack([net(step) for step in x])).mean(0)

    sample = images[:1].expand(STEPS, 1, 1, 8, 8) if multi else images[:1]
    saving = Weighted(SynapticPenalty(net, sample), lam)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(epochs):
        for batch in train[torch.randperm(len(train))].split(BATCH):
            task = nn.functional.cross_entropy(run(images[batch]), labels[batch])
            loss = task + saving(task)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        right = (run(images[test]).argmax(1) == labels[test]).double().mean().item()
        return 100 * right, saving.penalty().item()


def test_a_network_from_scratch_learns_and_saves_with_the_defaults(face):
    load_digits = pytest.importorskip("sklearn.datasets").load_digits
    data = load_digits()
    images = torch.tensor(data.images / 16, dtype=torch.float32).unsqueeze(1)
    labels = torch.tensor(data.target)
    train, test = torch.randperm(len(labels)).split((1297, 500))
    plain, spent = trained(face, images, labels, train, test, 0.0)
    accuracy, energy = trained(face, images, labels, train, test, None)
    assert plain > 80
    assert accuracy > plain - 2
    assert energy < 0.95 * spent


class TestSnnTorch:
    def test_loops_of_snntorch_tell_the_task_by_their_criterion(self):
        snn = pytest.importorskip("snntorch")
        from snntorch import backprop
        from snntorch import functional as SF

        from snn_ext.snntorch import synaptic_reg

        net = nn.Sequential(
            nn.Linear(4, 8), snn.Leaky(0.5, threshold=0.3, init_hidden=True), nn.Linear(8, 2),
            snn.Leaky(0.5, init_hidden=True, output=True),
        )  # fmt: skip
        loader = [(torch.rand(5, 4), torch.randint(2, (5,)))] * 2
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        reg = synaptic_reg(net, torch.rand(1, 4))
        settings = {"num_steps": 3, "time_var": False, "regularization": reg}
        losses = []

        def criterion(spk, targets):
            losses.append(SF.ce_rate_loss()(spk, targets))
            return losses[-1]

        criterion.__name__ = "ce_rate_loss"
        backprop.BPTT(net, loader, optimizer, reg.beside(criterion), **settings)
        assert reg.step == 2
        assert reg.lam.state_dict()["start"] == pytest.approx(losses[0].item())
        assert reg.beside(SF.ce_rate_loss()).__name__ == "ce_rate_loss"
        with pytest.raises(RuntimeError, match="beside"):
            backprop.BPTT(net, loader, optimizer, SF.ce_rate_loss(), **settings)

    def test_loops_of_your_own_tell_it_themselves(self):
        snn = pytest.importorskip("snntorch")
        from snn_ext.snntorch import total_spike_reg

        neuron = snn.Leaky(0.5, threshold=0.3, init_hidden=True)
        reg = total_spike_reg(neuron, Lambda=WhenLearning(ramp=1))
        for task in [2.0] + [0.5] * 20:
            spk = neuron(torch.rand(3, 4).requires_grad_())
            omega = reg(spk, task)
            snn.Leaky.reset_hidden()
        assert omega.item() > 0
        assert reg.weight * reg.penalty.last()[""] == pytest.approx(omega.item())
