"""The same input gives the same output everywhere: both faces, all releases, every way to run it.

All values are dyadic fractions, so the arithmetic is exact and the answer must be the same to the last
bit on any release of either framework, and of torch.
"""

import importlib.util

import pytest
import torch

import snn_ext.functional as F

X_SEQ = torch.tensor([((37 * i) % 101) / 64 - 0.5 for i in range(6 * 4)]).view(6, 4)
DECAY, THRESHOLD = 0.5, 0.75


def expected():
    """The answer, step by step in plain Python floats."""
    v = [0.0] * 4
    rows = []
    for row in X_SEQ.tolist():
        h = [DECAY * a + b for a, b in zip(v, row, strict=True)]
        rows.append([b if a > THRESHOLD else 0.0 for a, b in zip(h, row, strict=True)])
        v = [0.0 if a > THRESHOLD else a for a in h]
    return torch.tensor(rows), torch.tensor(v)


def functional():
    y_seq, v = F.vsn(X_SEQ, decay=DECAY, threshold=THRESHOLD)
    return y_seq, v


def functional_steps():
    v, ys = None, []
    for x in X_SEQ:
        y, v = F.vsn(x[None], v, decay=DECAY, threshold=THRESHOLD)
        ys.append(y[0])
    return torch.stack(ys), v


def snntorch(multi):
    from snn_ext.snntorch import VSN

    vsn, mem = VSN(DECAY, THRESHOLD), None
    if multi:
        y_seq, mem = vsn.multi_step(X_SEQ)
    else:
        ys = []
        for x in X_SEQ:
            y, mem = vsn(x, mem)
            ys.append(y)
        y_seq = torch.stack(ys)
    return y_seq, torch.where(mem > THRESHOLD, torch.zeros(()), mem)


def spikingjelly(multi):
    from snn_ext.spikingjelly import VSNNode

    vsn = VSNNode(
        tau=1 / (1 - DECAY), decay_input=False, v_threshold=THRESHOLD, step_mode="m" if multi else "s"
    )
    y_seq = vsn(X_SEQ) if multi else torch.stack([vsn(x) for x in X_SEQ])
    return y_seq, vsn.v


WAYS = {
    "functional": (None, functional),
    "functional, step by step": (None, functional_steps),
    "snnTorch": ("snntorch", lambda: snntorch(False)),
    "snnTorch, multi-step": ("snntorch", lambda: snntorch(True)),
    "SpikingJelly": ("spikingjelly", lambda: spikingjelly(False)),
    "SpikingJelly, multi-step": ("spikingjelly", lambda: spikingjelly(True)),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_gives_the_same_answer_to_the_last_bit(way):
    framework, run = WAYS[way]
    if framework and importlib.util.find_spec(framework) is None:
        pytest.skip(f"{framework} is not installed")
    y_seq, v = run()
    y_expected, v_expected = expected()
    assert torch.equal(y_seq, y_expected)
    assert torch.equal(v, v_expected)
