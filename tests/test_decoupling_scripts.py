"""Scripts of users with decoupled networks: loops and utilities, step modes and monitors."""

import pytest
import torch
from torch import nn

# --- snnTorch ------------------------------------------------------------------------------------------


class Script(nn.Module):
    """As in snnTorch's tutorials."""

    def __init__(self):
        import snntorch as snn

        from snn_ext.snntorch import LIFB

        super().__init__()
        self.fc1, self.lif1 = nn.Linear(16, 20), LIFB(beta=0.9, threshold=0.2)
        self.fc2, self.lif2 = nn.Linear(20, 4), snn.Leaky(beta=0.9)

    def forward(self, x):
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.reset_mem()
        out = []
        for _ in range(5):
            spk, mem1 = self.lif1(self.fc1(x), mem1)
            spk, mem2 = self.lif2(self.fc2(spk), mem2)
            out.append(spk)
        return torch.stack(out)


def test_snntorch_scripts_with_init_leaky_run():
    pytest.importorskip("snntorch")
    from snn_ext.snntorch import decouple

    net, x = Script().eval(), 3 * torch.rand(8, 16)
    assert net(x).any()
    assert torch.equal(decouple(net)(x), net(x))


@pytest.mark.parametrize("nested", [False, True])
def test_snntorch_utilities_reach_pairs_and_copies_of_native_neurons(nested):
    snn = pytest.importorskip("snntorch")
    from snntorch import utils

    from snn_ext.snntorch import LIFB, decouple

    lifb = LIFB(0.9, 9.0, init_hidden=True)
    inner = nn.Sequential(lifb, nn.Linear(5, 2)) if nested else lifb
    rest = [] if nested else [nn.Linear(5, 2)]
    net = decouple(
        nn.Sequential(nn.Linear(4, 5), inner, *rest, snn.Leaky(0.9, init_hidden=True, output=True))
    )
    assert utils._final_layer_check(net) == 2
    pair = net[1][0] if nested else net[1]
    net(torch.randn(3, 4))
    assert isinstance(pair, snn.Leaky)
    assert pair.mem.grad_fn is not None
    assert pair.mem.any()
    assert net[-1].mem.any()
    snn.Leaky.detach_hidden()
    assert pair.mem.grad_fn is None
    utils.reset(net)
    assert not pair.mem.any()
    assert not net[-1].mem.any()
    alone = decouple(nn.Sequential(nn.Linear(4, 5), LIFB(0.9, 9.0, init_hidden=True)))
    alone(torch.randn(3, 4))
    utils.reset(alone)
    assert not alone[1].mem.any()
    assert utils._final_layer_check(alone) == 2


def test_snntorch_backprop_through_time_trains_a_pair():
    pytest.importorskip("snntorch")
    from snntorch import backprop
    from snntorch import functional as SF

    from snn_ext.snntorch import LIFB, decouple

    lifb = LIFB(0.9, 0.2, init_hidden=True)
    last = LIFB(0.9, 0.2, init_hidden=True, output=True)
    net = decouple(nn.Sequential(nn.Linear(8, 12), lifb, nn.Linear(12, 3), last))
    loader = [(torch.rand(4, 6, 8), torch.randint(0, 3, (6,))) for _ in range(2)]
    before = net[0].weight.clone()
    loss = backprop.BPTT(net, loader, torch.optim.Adam(net.parameters(), 0.01), SF.ce_rate_loss())
    assert torch.isfinite(loss)
    assert not torch.equal(net[0].weight, before)


def test_snntorch_what_a_pair_cannot_be_is_refused():
    pytest.importorskip("snntorch")
    from snn_ext.snntorch import LIFB

    pair = LIFB(0.9, reset_mechanism="zero", reset_delay=False).decouple()
    with pytest.raises(NotImplementedError, match="reset_mechanism='subtract' with reset_delay=False"):
        pair.reset_mechanism = "subtract"
    assert pair.reset_mechanism == "zero"
    with pytest.raises(NotImplementedError, match="reset_mechanism='subtract' with reset_delay=False"):
        LIFB(0.9).decouple().reset_delay = False
    with pytest.raises(NotImplementedError, match="inhibition"):
        pair.inhibition = True
    assert pair.inhibition is False


def test_snntorch_the_neurons_of_a_pair_are_counted_and_the_pair_is_not():
    pytest.importorskip("snntorch")
    from snn_ext.energy import fan_out
    from snn_ext.snntorch import LIFB, decouple

    net = nn.Sequential(nn.Linear(6, 8), LIFB(0.5, 0.2, init_hidden=True), nn.Linear(8, 4))
    seen = fan_out(decouple(net), torch.rand(2, 6))
    assert {name: int(synapses.sum()) for name, synapses in seen.items()} == {"1.regular": 32, "1.burst": 32}


# --- SpikingJelly --------------------------------------------------------------------------------------


def test_spikingjelly_step_modes_sequences_and_resets():
    pytest.importorskip("spikingjelly")
    from spikingjelly.activation_based import functional, neuron

    from snn_ext.spikingjelly import LIFBNode

    options = {"decay_input": False, "v_threshold": 0.25, "store_v_seq": True}
    native, pair = neuron.LIFNode(2.0, **options), LIFBNode(2.0, burst_intensity=1.0, **options).decouple()
    x_seq = torch.randn(6, 2, 3)
    for mode in ("m", "s"):
        for node in (native, pair):
            functional.set_step_mode(node, mode)
            functional.reset_net(node)
            node.v_seq = None
        y = [torch.stack([n(x) for x in x_seq]) if mode == "s" else n(x_seq) for n in (native, pair)]
        assert torch.equal(*y)
        assert torch.equal(native.v, pair.v)
        assert (native.v_seq is None) == (pair.v_seq is None)
        if native.v_seq is not None:
            assert torch.equal(native.v_seq, pair.v_seq)
    functional.reset_net(pair)
    assert pair.v == 0.0
    assert pair.v_seq is None
    pair.set_reset_value("v", 0.125) if hasattr(native, "set_reset_value") else None
    pair.reset()
    assert pair.v == 0.125


def test_spikingjelly_truncated_backpropagation_and_monitors():
    pytest.importorskip("spikingjelly")
    from spikingjelly.activation_based import functional, layer, monitor

    from snn_ext.spikingjelly import LIFBNode, decouple
    from snn_ext.spikingjelly.decoupling import DecoupledLIFBNode

    net = decouple(nn.Sequential(layer.Linear(4, 5), LIFBNode(step_mode="s"), layer.Linear(5, 2)))
    seen = monitor.AttributeMonitor("v", False, net, DecoupledLIFBNode)
    for _ in range(3):
        net(torch.randn(3, 4))
    assert [record.shape for record in seen.records] == [(3, 5)] * 3
    assert net[1].v.grad_fn is not None
    functional.detach_net(net)
    assert net[1].v.grad_fn is None
    functional.reset_net(net)
    assert net[1].v == 0.0


def test_spikingjelly_pairs_run_as_functions_of_their_states():
    base = pytest.importorskip("spikingjelly.activation_based.base")
    if not hasattr(base, "to_functional_forward"):
        pytest.skip("SpikingJelly 2.0 only")
    from spikingjelly.activation_based import layer

    from snn_ext.spikingjelly import LIFBNode, decouple

    net = decouple(nn.Sequential(layer.Linear(4, 5), LIFBNode(v_threshold=0.1), layer.Linear(5, 2)))
    x = torch.randn(3, 4)
    run = base.to_functional_forward(net)
    states = tuple(base.extract_memories(net))
    with torch.no_grad():
        (y,), states = run((x,), states)
        (again,), _ = run((x,), states)
        assert torch.equal(net(x), y)
        assert torch.equal(net(x), again)


def test_spikingjelly_a_pair_has_the_backend_of_its_generation():
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    from spikingjelly.activation_based import functional

    from snn_ext.spikingjelly import LIFBNode

    pair = LIFBNode().decouple()
    assert hasattr(pair, "backend") == hasattr(neuron.LIFNode(), "backend")
    if hasattr(pair, "backend"):
        assert pair.backend == "torch"
        functional.set_backend(pair, "torch")
        with pytest.raises(NotImplementedError):
            pair.backend = "cupy"
