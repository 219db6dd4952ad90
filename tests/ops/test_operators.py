"""The registered operators: torch's own checks, shapes, dispatch."""

import pytest
import torch
from specs import LIFB, OWN, SOFT_RESET_MPR, SPECS, VSN, arguments, every_neuron
from torch.utils._python_dispatch import TorchDispatchMode

from snn_ext.ops import dispatch, operators

COMMON = [
    {},
    {"dtype": torch.float64, "threshold": (4,), "reset_delay": True, "v_seq": False},
    {"dtype": torch.bfloat16, "threshold": (3, 1), "detach_reset": True, "strict": True},
    {"shape": (1, 2), "spiking": False, "surrogate": "sigmoid"},
]
CASES = [
    *((neuron, options) for neuron in SPECS for options in COMMON),
    (VSN, {"shape": (1, 2), "spiking": False, "surrogate": "sigmoid", "activation": "tanh"}),
    *(
        (LIFB, {"reset_mode": mode, "reset_delay": mode == "late"})
        for mode in ("soft", "late", "again", "none")
    ),
    (SOFT_RESET_MPR, {"reset_delay": True, "constant_start": True}),
    (LIFB, {"v_reset": -0.5}),
    (SOFT_RESET_MPR, {"mpr": False, "reset_mode": "hard", "v_reset": 0.25}),
    (SOFT_RESET_MPR, {"surrogate": "mpr", "scale": 0.8}),
    *((neuron, {"power": power}) for neuron in SPECS for power in (1.0, 2.0)),
]
every_case = pytest.mark.parametrize(("neuron", "options"), CASES)


def test_every_neuron_has_an_operator_and_is_tested_here():
    assert [neuron.name for neuron in operators.NEURONS] == [neuron.name for neuron in SPECS]
    for equations, neuron in zip(operators.NEURONS, SPECS, strict=True):
        assert equations.parameters == tuple(neuron.parameters)
        assert equations.options == tuple(OWN[neuron])


@every_case
def test_opcheck_forward(neuron, options):
    outcome = torch.library.opcheck(neuron.operator.default, arguments(neuron, **options))
    assert set(outcome.values()) == {"SUCCESS"}


@every_case
@pytest.mark.parametrize("parameter_grads", [True, False])
def test_opcheck_backward(neuron, options, parameter_grads):
    case = arguments(neuron, **options, grad=False)
    outputs = neuron.operator(*case)
    outcome = torch.library.opcheck(
        getattr(torch.ops.snn_ext, f"{neuron.name}_backward").default,
        (*(torch.randn_like(output) for output in outputs), *case[:-1], parameter_grads),
    )
    assert set(outcome.values()) == {"SUCCESS"}


@every_neuron
def test_outputs_keep_the_layout_of_the_input(neuron):
    case = list(arguments(neuron, shape=(3, 2, 4, 5, 5), grad=False))
    case[0] = case[0].flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, (3, 2))
    y_seq, _, v_seq, _ = neuron.operator(*case)
    assert y_seq.stride() == v_seq.stride() == case[0].stride()


@every_neuron
def test_nothing_but_the_inputs_is_kept_for_the_backward(neuron):
    case = arguments(neuron, shape=(16, 8), v_seq=False)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        neuron.operator(*case)
    given = case[: 2 + len(neuron.parameters)]
    assert sum(t.numel() for t in kept) == sum(t.numel() for t in given)


@every_neuron
def test_second_derivatives_by_autograd_are_refused(neuron):
    case = arguments(neuron, torch.float64)
    y_seq, *_ = neuron.operator(*case)
    (grad,) = torch.autograd.grad(y_seq.sum(), case[0], create_graph=True)
    with pytest.raises(RuntimeError, match=r"cannot be differentiated twice by autograd.*torch\.func"):
        grad.sum().backward()


def test_the_reference_can_be_forced(monkeypatch):
    monkeypatch.setenv("SNN_EXT_IMPL", "reference")
    assert dispatch.implementation() == "reference"
    assert torch.ops.snn_ext.vsn(*arguments(VSN))[0].shape == (5, 3, 4)


def test_forcing_an_absent_implementation_is_an_error_not_a_fallback(monkeypatch):
    monkeypatch.setenv("SNN_EXT_IMPL", "warp")
    with pytest.raises(RuntimeError, match="SNN_EXT_IMPL='warp' is not available here; .*reference"):
        torch.ops.snn_ext.vsn(*arguments(VSN))


@every_neuron
def test_who_watches_sees_the_operator_and_the_same_numbers(neuron):
    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.add(str(function))
            return function(*args, **(kwargs or {}))

    def run():
        x_seq, threshold = (torch.rand(3, 4) * 2).requires_grad_(), torch.tensor(0.3, requires_grad=True)
        torch.manual_seed(1)
        y_seq, v, v_seq = neuron(x_seq, threshold=threshold, return_v_seq=True)
        (y_seq * torch.rand(3, 4) + v_seq).sum().backward()
        return y_seq, v, v_seq, x_seq.grad, threshold.grad

    seen = set()
    torch.manual_seed(0)
    alone = run()
    torch.manual_seed(0)
    with Watch():
        watched = run()
    assert {f"snn_ext.{neuron.name}.default", f"snn_ext.{neuron.name}_backward.default"} <= seen
    for ours, other in zip(alone, watched, strict=True):
        assert torch.equal(ours, other)
