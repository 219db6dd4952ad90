"""The registered operators: torch's own checks, shapes, dispatch."""

import pytest
import torch

from snn_ext.ops import dispatch, reference


def arguments(dtype=torch.float32, *, shape=(5, 3, 4), threshold=(), v_seq=True, grad=True, **options):
    state = reference.compute_dtype(dtype)
    tensors = [
        torch.randn(shape, dtype=dtype),
        torch.randn(shape[1:], dtype=state),
        torch.rand((), dtype=state),
        torch.ones((), dtype=state),
        torch.rand(threshold, dtype=state),
    ]
    defaults = {
        "activation": "gelu",
        "surrogate": "atan",
        "scale": 2.0,
        "spiking": True,
        "strict": False,
        "detach_reset": False,
        "reset_delay": False,
    }
    return (*(t.requires_grad_(grad) for t in tensors), *{**defaults, **options}.values(), v_seq)


CASES = [
    arguments(),
    arguments(torch.float64, threshold=(4,), reset_delay=True, v_seq=False),
    arguments(torch.bfloat16, threshold=(3, 1), detach_reset=True, strict=True),
    arguments(shape=(1, 2), spiking=False, surrogate="sigmoid", activation="tanh"),
]


@pytest.mark.parametrize("case", CASES)
def test_opcheck_forward(case):
    outcome = torch.library.opcheck(torch.ops.snn_ext.vsn.default, case)
    assert set(outcome.values()) == {"SUCCESS"}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("parameter_grads", [True, False])
def test_opcheck_backward(case, parameter_grads):
    *inputs, _ = (a.detach() if isinstance(a, torch.Tensor) else a for a in case)
    y_seq, v, v_seq = torch.ops.snn_ext.vsn(*(a.detach() if isinstance(a, torch.Tensor) else a for a in case))
    outcome = torch.library.opcheck(
        torch.ops.snn_ext.vsn_backward.default,
        (torch.randn_like(y_seq), torch.randn_like(v), torch.randn_like(v_seq), *inputs, parameter_grads),
    )
    assert set(outcome.values()) == {"SUCCESS"}


def test_outputs_keep_the_layout_of_the_input():
    case = list(arguments(shape=(3, 2, 4, 5, 5), grad=False))
    case[0] = case[0].flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, (3, 2))
    y_seq, _, v_seq = torch.ops.snn_ext.vsn(*case)
    assert y_seq.stride() == v_seq.stride() == case[0].stride()


def test_nothing_but_the_inputs_is_kept_for_the_backward():
    case = arguments(shape=(16, 8), v_seq=False)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        torch.ops.snn_ext.vsn(*case)
    assert sum(t.numel() for t in kept) == sum(t.numel() for t in case[:5])


def test_second_derivatives_by_autograd_are_refused():
    case = arguments(torch.float64)
    y_seq, *_ = torch.ops.snn_ext.vsn(*case)
    (grad,) = torch.autograd.grad(y_seq.sum(), case[0], create_graph=True)
    with pytest.raises(RuntimeError, match=r"cannot be differentiated twice by autograd.*torch\.func"):
        grad.sum().backward()


def test_the_reference_can_be_forced(monkeypatch):
    monkeypatch.setenv("SNN_EXT_IMPL", "reference")
    assert dispatch.implementation() == "reference"
    assert torch.ops.snn_ext.vsn(*arguments())[0].shape == (5, 3, 4)


def test_forcing_an_absent_implementation_is_an_error_not_a_fallback(monkeypatch):
    monkeypatch.setenv("SNN_EXT_IMPL", "warp")
    with pytest.raises(RuntimeError, match="SNN_EXT_IMPL='warp' is not available here; .*reference"):
        torch.ops.snn_ext.vsn(*arguments())
