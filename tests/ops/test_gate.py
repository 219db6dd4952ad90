"""What may be handed to an operator: everything that would be misread is refused, or made plain."""

import pytest
import torch
from specs import SPECS, VSN, arguments, every_neuron

from snn_ext.ops import native

NAMES = {neuron: ("x_seq", "v0", *neuron.parameters) for neuron in SPECS}
every_implementation = pytest.mark.parametrize(
    "implementation",
    [
        "reference",
        pytest.param("native", marks=pytest.mark.skipif(bool(native.why_not), reason=native.why_not)),
    ],
)
DEFECTS = {
    "float64": (lambda t: t.double(), TypeError, r"float64, but must be torch\.float32"),
    "float8": (lambda t: t.to(torch.float8_e4m3fn), TypeError, "float8_e4m3fn"),
    "integer": (lambda t: t.int(), TypeError, "int32"),
    "shape": (lambda t: t.new_ones(7), ValueError, r"has shape \(7,\)"),
    "device": (lambda t: t.to("meta"), ValueError, "move one with"),
    "sparse": (lambda t: t.to_sparse(), TypeError, r"must be dense; convert it with \.to_dense\(\)"),
}


@pytest.fixture(autouse=True)
def _forced(monkeypatch, request):
    if "implementation" in request.fixturenames:
        monkeypatch.setenv("SNN_EXT_IMPL", request.getfixturevalue("implementation"))


@every_implementation
@every_neuron
@pytest.mark.parametrize("defect", DEFECTS)
def test_an_operator_refuses_what_kernels_would_misread(neuron, defect, implementation):
    spoil, error, text = DEFECTS[defect]
    for index, name in enumerate(NAMES[neuron]):
        if name == "x_seq" and defect in ("float64", "shape", "device"):
            continue  # then the others are what does not fit
        case = list(arguments(neuron, grad=False))
        case[index] = spoil(case[index])
        with pytest.raises(error, match=text) as caught:
            neuron.operator(*case)
        assert name in str(caught.value) or str(caught.value).startswith("input of"), name


@every_implementation
@every_neuron
@pytest.mark.parametrize("defect", DEFECTS.keys() - {"sparse"})
def test_the_backward_operator_refuses_gradients_that_do_not_fit(neuron, defect, implementation):
    spoil, error, text = DEFECTS[defect]
    operator = getattr(torch.ops.snn_ext, f"{neuron.name}_backward")
    case = arguments(neuron, grad=False, power=1.0)
    grads = [torch.randn_like(output) for output in neuron.operator(*case)]
    for index, name in enumerate(("grad_y_seq", "grad_v", "grad_v_seq", "grad_sent")):
        spoiled = list(grads)
        spoiled[index] = spoil(grads[index])
        with pytest.raises(error, match=text) as caught:
            operator(*spoiled, *case[:-1], True)
        assert name in str(caught.value)


@every_implementation
@every_neuron
@pytest.mark.parametrize("shape", [(0, 5), ()])
def test_an_operator_needs_a_step(neuron, implementation, shape):
    case = list(arguments(neuron, shape=(2, 5), grad=False))
    case[0] = torch.zeros(shape)
    with pytest.raises(ValueError, match="x_seq has shape .* at least one time step"):
        neuron.operator(*case)
    grads = [torch.zeros(shape), case[1], torch.zeros(0), torch.zeros(0)]
    with pytest.raises(ValueError, match="x_seq has shape .* at least one time step"):
        getattr(torch.ops.snn_ext, f"{neuron.name}_backward")(*grads, *case[:-1], True)


@every_implementation
@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("vsn", "activation", "swish"),
        ("vsn", "surrogate", "step"),
        ("vsn", "power", 0.5),
        ("vsn", "power", float("nan")),
        ("lifb", "reset_mode", "sometimes"),
        ("lifb", "v_reset", float("nan")),
        ("soft_reset_mpr", "v_reset", 0.5),  # with a soft reset
        ("soft_reset_mpr", "reset_mode", "zero"),
    ],
)
def test_an_operator_refuses_options_that_nothing_is_known_by(name, option, value, implementation):
    neuron = next(neuron for neuron in SPECS if neuron.name == name)
    with pytest.raises(ValueError, match=option):
        neuron.operator(*arguments(neuron, grad=False, **{option: value}))


@every_neuron
def test_shapes_alone_are_checked_as_well(neuron):
    case = [t.to("meta") if isinstance(t, torch.Tensor) else t for t in arguments(neuron, grad=False)]
    assert neuron.operator(*case)[0].is_meta
    case[1] = torch.zeros(7, device="meta")
    with pytest.raises(ValueError, match=r"v0 has shape \(7,\), but must have \(3, 4\)"):
        neuron.operator(*case)


def negative(tensor):
    """The same numbers by torch's lazy negation."""
    return torch.complex(torch.zeros_like(tensor), -tensor.detach()).conj().imag


@every_implementation
@every_neuron
@pytest.mark.parametrize("how", ["function", "operator"])
def test_lazy_negation_is_seen(neuron, how, implementation):
    x_seq = torch.rand(4, 5) * 2 - 0.5
    given = {"x_seq": x_seq, "v0": torch.rand(5)} | {k: torch.tensor(v) for k, v in neuron.usual.items()}

    def run(tensors):
        if how == "operator":
            case = arguments(neuron, shape=(4, 5), grad=False)
            tensors = {"gain": torch.tensor(1.0)} | tensors
            return neuron.operator(*(tensors[name] for name in NAMES[neuron]), *case[len(NAMES[neuron]) :])[
                :2
            ]
        return neuron(**tensors)

    expected = run(given)
    for name, value in given.items():
        lazy = negative(value)
        assert lazy.is_neg()
        assert torch.equal(lazy, value)
        for ours, right in zip(run(given | {name: lazy}), expected, strict=True):
            assert torch.equal(ours, right), name


@every_implementation
@every_neuron
def test_lazy_gradients_and_lazy_zeros_are_seen(neuron, implementation):
    x_seq, grad = torch.rand(4, 5, requires_grad=True), torch.randn(4, 5)
    expected = torch.autograd.grad(neuron(x_seq)[0], x_seq, grad)[0]
    assert torch.equal(torch.autograd.grad(neuron(x_seq)[0], x_seq, negative(grad))[0], expected)
    zeros = torch._efficientzerotensor(4, 5)
    assert torch.equal(torch.autograd.grad(neuron(x_seq)[0], x_seq, zeros)[0], torch.zeros(4, 5))
    assert torch.equal(neuron(zeros)[1], neuron(torch.zeros(4, 5))[1])
    start = torch._efficientzerotensor(5)
    assert torch.equal(neuron(x_seq, start)[0], neuron(x_seq)[0])


@every_implementation
@every_neuron
def test_sparse_gradients_are_taken(neuron, implementation):
    found = []
    for sparse in (True, False):
        x_seq = torch.linspace(0.1, 2, 5).requires_grad_()
        y_seq, _ = neuron(x_seq)
        torch.gather(y_seq, 0, torch.tensor([0, 1]), sparse_grad=sparse).sum().backward()
        found.append(x_seq.grad)
    assert torch.equal(*found)
    assert found[0].count_nonzero() > 0


@pytest.mark.parametrize("wrong", ["float8", "sparse"])
@pytest.mark.parametrize("name", ["x_seq", "v0", "threshold"])
def test_a_function_names_the_argument(name, wrong):
    given = {"x_seq": torch.rand(2, 5), "v0": torch.rand(5), "threshold": torch.rand(5)}
    VSN(**given)
    given[name] = DEFECTS[wrong][0](given[name])
    with pytest.raises(TypeError, match=f"^{name} must be .*; convert it with"):
        VSN(**given)
