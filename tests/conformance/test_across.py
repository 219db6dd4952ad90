"""The same input gives the same output everywhere: both faces, all releases, every way to run it.

All values are dyadic fractions, so the arithmetic is exact and the answer must be the same to the last
bit on any release of either framework, and of torch.
"""

import dataclasses
import importlib.util
from collections.abc import Callable

import pytest
import torch

import snn_ext.functional as F

X_SEQ = torch.tensor([((37 * i) % 101) / 64 - 0.5 for i in range(6 * 4)]).view(6, 4)
DECAY, THRESHOLD, BURST_THRESHOLD, BURST_INTENSITY, AMPLITUDE = 0.5, 0.75, 0.9375, 2.5, 1.25
BURST = {"burst_threshold": BURST_THRESHOLD, "burst_intensity": BURST_INTENSITY}


@dataclasses.dataclass(frozen=True, repr=False)
class Case:
    """A neuron: what it emits and what an event leaves, in plain Python, and how it is made everywhere."""

    name: str
    emitted: Callable[[float, float], float]
    reset: Callable[[float], float]
    function: Callable
    own: dict
    snntorch: tuple
    spikingjelly: tuple

    def __repr__(self):
        return self.name


def fired(h):
    assert h != THRESHOLD  # where strict and non-strict firing differ
    return h > THRESHOLD


def burst(x, h):
    assert h != BURST_THRESHOLD
    return BURST_INTENSITY if h > BURST_THRESHOLD else 1.0


CASES = [
    Case(
        "VSN",
        lambda x, h: x,
        lambda h: 0.0,
        F.vsn,
        {},
        ("VSN", {}),
        ("VSNNode", {}),
    ),
    Case(
        "LIFB",
        burst,
        lambda h: 0.0,
        F.lifb,
        BURST,
        ("LIFB", {**BURST, "reset_mechanism": "zero"}),
        ("LIFBNode", BURST),
    ),
    Case(
        "soft reset and MPR",
        lambda x, h: AMPLITUDE,
        lambda h: h - AMPLITUDE,
        F.soft_reset_mpr,
        {"amplitude": AMPLITUDE},
        ("SoftResetMPR", {"amplitude": AMPLITUDE}),
        ("SoftResetMPRNode", {"amplitude": AMPLITUDE}),
    ),
    Case(
        "hard reset without MPR",
        lambda x, h: AMPLITUDE,
        lambda h: 0.0,
        F.soft_reset_mpr,
        {"amplitude": AMPLITUDE, "mpr": False, "v_reset": 0.0},
        ("SoftResetMPR", {"amplitude": AMPLITUDE, "mpr": False, "reset_mechanism": "zero"}),
        ("SoftResetMPRNode", {"amplitude": AMPLITUDE, "mpr": False, "v_reset": 0.0}),
    ),
]


def expected(case):
    """The answer, step by step in plain Python floats."""
    v = [0.0] * 4
    rows = []
    for row in X_SEQ.tolist():
        h = [DECAY * a + b for a, b in zip(v, row, strict=True)]
        rows.append([case.emitted(b, a) if fired(a) else 0.0 for a, b in zip(h, row, strict=True)])
        v = [case.reset(a) if fired(a) else a for a in h]
    return torch.tensor(rows), torch.tensor(v)


def functional(case):
    return case.function(X_SEQ, decay=DECAY, threshold=THRESHOLD, **case.own)


def functional_steps(case):
    v, ys = None, []
    for x in X_SEQ:
        y, v = case.function(x[None], v, decay=DECAY, threshold=THRESHOLD, **case.own)
        ys.append(y[0])
    return torch.stack(ys), v


def snntorch(case, multi):
    from snn_ext import snntorch as ext

    name, options = case.snntorch
    neuron, mem = getattr(ext, name)(DECAY, THRESHOLD, **options), None
    if multi:
        y_seq, mem = neuron.multi_step(X_SEQ)
    else:
        ys = []
        for x in X_SEQ:
            y, mem = neuron(x, mem)
            ys.append(y)
        y_seq = torch.stack(ys)
    return y_seq, torch.tensor([case.reset(h) if fired(h) else h for h in mem.tolist()])


def spikingjelly(case, multi):
    from snn_ext import spikingjelly as ext

    name, options = case.spikingjelly
    neuron = getattr(ext, name)(
        tau=1 / (1 - DECAY),
        decay_input=False,
        v_threshold=THRESHOLD,
        step_mode="m" if multi else "s",
        **options,
    )
    y_seq = neuron(X_SEQ) if multi else torch.stack([neuron(x) for x in X_SEQ])
    return y_seq, neuron.v


WAYS = {
    "functional": (None, functional),
    "functional, step by step": (None, functional_steps),
    "snnTorch": ("snntorch", lambda case: snntorch(case, False)),
    "snnTorch, multi-step": ("snntorch", lambda case: snntorch(case, True)),
    "SpikingJelly": ("spikingjelly", lambda case: spikingjelly(case, False)),
    "SpikingJelly, multi-step": ("spikingjelly", lambda case: spikingjelly(case, True)),
}


@pytest.mark.parametrize("case", CASES, ids=repr)
@pytest.mark.parametrize("way", WAYS)
def test_every_way_gives_the_same_answer_to_the_last_bit(way, case):
    framework, run = WAYS[way]
    if framework and importlib.util.find_spec(framework) is None:
        pytest.skip(f"{framework} is not installed")
    y_seq, v = run(case)
    y_expected, v_expected = expected(case)
    assert torch.equal(y_seq, y_expected)
    assert torch.equal(v, v_expected)


@pytest.mark.parametrize(("case", "kinds"), list(zip(CASES, [5, 3, 2, 2], strict=True)), ids=str)
def test_the_input_makes_the_neurons_do_all_that_they_can(case, kinds):
    assert len(expected(case)[0].unique()) == kinds
