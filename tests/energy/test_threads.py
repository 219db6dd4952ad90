"""Networks that are measured in one thread while others train: nobody is blinded, nothing is lost."""

import copy
import os
import threading

import pytest
import torch
from energy_nets import BATCH, STEPS, network
from torch import nn

from snn_ext.energy import SynapticPenalty, TotalSpikePenalty, fan_out, measure_energy


def reset(face, net):
    face.ext.reset(net) if face.name == "snntorch" else face.functional.reset_net(net)


@pytest.fixture
def x():
    return 2 * torch.rand(BATCH, 1, 6, 6)


class Halted(nn.Module):
    """Passes its input on, and stops there in the thread that measures until it may go on."""

    def __init__(self):
        super().__init__()
        self.thread, self.reached, self.go_on = None, threading.Event(), threading.Event()

    def forward(self, x):
        if threading.current_thread() is self.thread:
            self.reached.set()
            assert self.go_on.wait(60)
        return x

    def __deepcopy__(self, memo):
        return Halted()


class Measured:
    """Measures `net` in a thread of its own, which stands still in the middle of it until the block ends."""

    def __init__(self, net, measure):
        self.halt, self.error = net[-1], None

        def run():
            try:
                measure()
            except Exception as error:
                self.error = error

        self.halt.thread = threading.Thread(target=run, name="measuring")

    def __enter__(self):
        self.halt.thread.start()
        assert self.halt.reached.wait(60)
        return self

    def __exit__(self, *exception):
        self.halt.go_on.set()
        self.halt.thread.join()


def halted(face, kind):
    return nn.Sequential(*network(face, getattr(face, kind)), Halted())


MEASURES = {"fan_out": fan_out, "measure_energy": lambda net, x: measure_energy(net, [x], progress=False)}


@pytest.mark.parametrize("kind", ["lif", "lifb"])
@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_penalties_of_other_networks_see_all(face, x, kind, measure):
    net, other = network(face, getattr(face, kind)), halted(face, kind)
    penalty = TotalSpikePenalty(net, p=2)
    x.requires_grad_()

    def once():
        reset(face, net)
        for _ in range(STEPS):
            net(x)
        omega = penalty()
        return omega.item(), torch.autograd.grad(omega, x)[0]

    expected, slope = once()
    assert expected > 0
    with Measured(other, lambda: measure(other, x.detach())) as measured:
        found, grad = once()
    assert measured.error is None
    assert found == expected
    assert torch.equal(grad, slope)


def test_hidden_states_of_other_networks_are_kept(face, x):
    net, other = (network(face, face.lif) for _ in range(2))
    net(x)
    expected = net(x)
    reset(face, net)
    net(x)
    measure_energy(other, [x], progress=False)
    assert torch.equal(net(x), expected)


@pytest.mark.parametrize("kind", ["lif", "lifb"])
@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_a_network_that_is_measured_runs_in_no_other_thread_unseen(face, x, kind, measure):
    net = halted(face, kind)
    penalty, twin = TotalSpikePenalty(net), copy.deepcopy(net)
    with Measured(net, lambda: measure(net, x)):
        with pytest.raises(RuntimeError, match="layer '1' is being measured in thread 'measuring'"):
            net(x)
        assert twin(x).any()
    reset(face, net)
    net(x)
    assert penalty().item() > 0


@pytest.mark.parametrize("kind", ["lif", "lifb"])
def test_two_threads_that_measure_one_network_take_turns(face, x, kind):
    net = halted(face, kind)
    expected = measure_energy(net, [x], progress=False).total_pj
    found = []

    def measure():
        found.append(measure_energy(net, [x], progress=False).total_pj)

    second = threading.Thread(target=measure)
    with Measured(net, measure) as measured:
        second.start()
        second.join(0.2)
        assert second.is_alive()
        assert not found
    second.join()
    assert measured.error is None
    assert found == [expected, expected]


def test_many_threads_and_networks(face, x):
    nets = [network(face, getattr(face, kind)) for kind in ("lif", "lifb") for _ in range(2)]
    expected = [measure_energy(net, [x], progress=False).total_pj for net in nets]
    found = [[] for _ in nets]

    def measure(net, seen):
        for _ in range(5):
            seen.append(measure_energy(net, [x], progress=False).total_pj)

    threads = [threading.Thread(target=measure, args=pair) for pair in zip(nets * 2, found * 2, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[value] * 10 for value in expected]


def test_what_a_network_holds_is_there_at_any_time_and_afterwards(face, x):
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))
            self.register_buffer("last", torch.zeros(()))
            self.plain = "before"

        def forward(self, x):
            self.calls.add_(1)
            self.last, self.plain, self.new = x.detach(), "after", 1
            return x

    net = nn.Sequential(*halted(face, "lif"), Counting(), Halted())
    del net[-3]
    reset(face, net)
    net(x)
    states = {name: value.clone() for name, value in net.named_buffers()}
    del net[-2].new
    net[-2].plain = "before"
    net.train()  # the surrogate, too, which is shared with other networks in SpikingJelly
    keys = [list(vars(module)) for module in net.modules()]
    attributes = [dict(vars(module)) for module in net.modules()]
    with Measured(net, lambda: measure_energy(net, [x], progress=False)) as measured:
        assert not net[1].training
        assert all(name in vars(m) for m, names in zip(net.modules(), keys, strict=True) for name in names)
    assert measured.error is None
    assert all(module.training for module in net.modules())
    for module, before, names in zip(net.modules(), attributes, keys, strict=True):
        assert list(vars(module)) == names
        assert all(vars(module)[name] is value for name, value in before.items() if name != "thread")
    assert {name: value.tolist() for name, value in net.named_buffers()} == {
        name: value.tolist() for name, value in states.items()
    }


def test_an_exception_in_the_middle_ends_it(face, x):
    net = halted(face, "lifb")
    penalty = SynapticPenalty(net, x)
    net(x)
    expected, before = penalty().item(), net[1].training
    net[-1].forward = None
    for measure in MEASURES.values():
        with pytest.raises(ValueError, match=r"the network failed on .* \(TypeError: 'NoneType'"):
            measure(net, x)
    del net[-1].forward
    assert net[1].training is before
    found = []
    thread = threading.Thread(target=lambda: found.append(measure_energy(net, [x], progress=False)))
    thread.start()
    thread.join(60)
    assert found
    reset(face, net)
    net(x)
    assert penalty().item() == expected


def test_a_penalty_that_comes_or_goes_meanwhile(face, x):
    net = halted(face, "lifb")
    going = TotalSpikePenalty(net)
    with Measured(net, lambda: measure_energy(net, [x], progress=False)) as measured:
        going.remove()
        coming = TotalSpikePenalty(net)
    assert measured.error is None
    assert len(net[1]._taps) == 1
    reset(face, net)
    net(x)
    assert coming().item() > 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forks beside threads
def test_a_child_that_is_forked_meanwhile(face, x):
    net = halted(face, "lifb")
    penalty = TotalSpikePenalty(net)
    with Measured(net, lambda: measure_energy(net, [x], progress=False)):
        child = os.fork()
        if child == 0:
            try:
                reset(face, net)
                net(x)
                seen = penalty().item()
                spent = measure_energy(net, [x], progress=False).total_pj
                os._exit(0 if seen > 0 and spent > 0 else 1)
            finally:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
