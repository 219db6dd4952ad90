"""The neurons as the tests see them: one entry each, so that a test is written once for all of them."""

import dataclasses
import itertools

import oracle
import pytest
import torch
from hypothesis import strategies as st

import snn_ext.functional as F
from snn_ext.ops import reference
from snn_ext.surrogate import from_name

SCALES = {
    "atan": 2.0,
    "fast_sigmoid": 10.0,
    "sigmoid": 4.0,
    "triangular": 0.7,
    "rectangular": 0.9,
    "straight_through": 1.1,
    "mpr": 0.8,
}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Spec:
    """A neuron: the ranges that its parameters are drawn from, values that serve, and all its options."""

    name: str
    parameters: dict
    usual: dict
    options: dict

    def __call__(self, x_seq, v0=None, **arguments):
        """Run the function under test, with the usual value of every parameter left out."""
        return getattr(F, self.name)(x_seq, v0, **{**self.usual, **arguments})

    def oracle(self, x_seq, v0=None, **arguments):
        """Run the oracle on the same arguments."""
        v0 = torch.zeros(x_seq.shape[1:]) if v0 is None else v0
        return getattr(oracle, self.name)(x_seq, v0, **{"gain": 1.0, **self.usual, **arguments})

    @property
    def operator(self):
        return getattr(torch.ops.snn_ext, self.name)

    def __repr__(self):
        return self.name


VSN = Spec(
    "vsn",
    {"decay": (0, 1), "gain": (0, 1), "threshold": (0, 1)},
    {"decay": 0.6, "threshold": 0.4},
    {"activation": sorted(oracle.ACTIVATIONS)},
)
LIFB = Spec(
    "lifb",
    {
        "decay": (0, 1),
        "gain": (0.5, 1.5),
        "threshold": (0, 0.5),
        "burst_threshold": (0.5, 1.5),
        "burst_intensity": (1, 4),
    },
    {"decay": 0.6, "threshold": 0.4, "burst_threshold": 0.9, "burst_intensity": 2.5},
    {"v_reset": [0.0, -0.5, 0.25, None]},
)
SOFT_RESET_MPR = Spec(
    "soft_reset_mpr",
    {"decay": (0, 1), "gain": (0, 1), "threshold": (0, 1), "amplitude": (0.4, 1.6)},
    {"decay": 0.6, "threshold": 0.4, "amplitude": 0.8},
    {"v_reset": [None, 0.0, 0.25], "mpr": [True, False]},
)
SPECS = [VSN, LIFB, SOFT_RESET_MPR]

OWN = {
    VSN: {"activation": "gelu"},
    LIFB: {"reset_mode": "hard", "v_reset": 0.0},
    SOFT_RESET_MPR: {"mpr": True, "reset_mode": "soft", "v_reset": 0.0},
}
"""The options of each that operators take, in order."""

every_neuron = pytest.mark.parametrize("neuron", SPECS, ids=repr)


def arguments(
    neuron, dtype=torch.float32, *, shape=(5, 3, 4), threshold=(), v_seq=True, grad=True, **options
):
    """What an operator takes, in order."""
    state = reference.compute_dtype(dtype)
    tensors = [torch.randn(shape, dtype=dtype), torch.randn(shape[1:], dtype=state)]
    for name, (low, high) in neuron.parameters.items():
        size = threshold if name == "threshold" else ()
        tensors.append(torch.rand(size, dtype=state) * (high - low) + low)
    defaults = {
        "surrogate": "atan",
        "scale": 2.0,
        "spiking": True,
        "strict": False,
        "detach_reset": False,
        "reset_delay": False,
        "constant_start": False,
        "power": 0.0,
    }
    return (
        *(t.requires_grad_(grad) for t in tensors),
        *{**OWN[neuron], **defaults, **options}.values(),
        v_seq,
    )


def variants(neuron):
    """Every combination of the options of `neuron`, as keyword arguments."""
    for values in itertools.product(*neuron.options.values()):
        yield dict(zip(neuron.options, values, strict=True))


VARIANTS = [(neuron, options) for neuron in SPECS for options in variants(neuron)]

every_variant = pytest.mark.parametrize(("neuron", "options"), VARIANTS, ids=str)


def layouts(shape):
    """Every parameter shape that broadcasts over the trailing dimensions of one time step."""
    for length in range(len(shape) + 1):
        tail = shape[len(shape) - length :]
        yield from itertools.product(*[{1, n} for n in tail])


@st.composite
def cases(draw, neuron):
    """A case for `neuron`: shapes, parameter layouts, options, and a seed for the values."""
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=0, max_size=3)))
    parameter = st.sampled_from(sorted(set(layouts(shape))))
    return {
        "steps": draw(st.integers(1, 7)),
        "shape": shape,
        "layouts": {name: draw(parameter) for name in neuron.parameters},
        "own": {name: draw(st.sampled_from(values)) for name, values in neuron.options.items()},
        "surrogate": draw(st.sampled_from(sorted(SCALES))),
        "strict": draw(st.booleans()),
        "when": {name: draw(st.booleans()) for name in ("detach_reset", "reset_delay")},
        "initial": draw(st.booleans()),
        "seed": draw(st.integers(0, 2**31)),
        "callables": draw(st.booleans()),
    }


def inputs(neuron, case, dtype):
    """Return x_seq, v0 and the parameters of a case by name, in float64, exact in `dtype`."""
    generator = torch.Generator().manual_seed(case["seed"])

    def values(size, low, high):
        return (torch.rand(size, generator=generator) * (high - low) + low).to(dtype).double()

    shape = case["shape"]
    tensors = {"x_seq": values((case["steps"], *shape), -1.5, 2), "v0": values(shape, -1, 1)}
    if not case["initial"]:
        tensors["v0"].zero_()
    for name, limits in neuron.parameters.items():
        tensors[name] = values(case["layouts"][name], *limits)
    return tensors


def evaluate(neuron, case, dtype=torch.float64):
    """Return outputs and gradients of the function, those of the oracle, and the oracle's distances."""
    tensors = inputs(neuron, case, dtype)
    name, own, when = case["surrogate"], case["own"], case["when"]
    known = {"surrogate": from_name(name, SCALES[name], strict=case["strict"])}
    if case["callables"]:  # the differentiable reference instead of the operator
        known = {"surrogate": lambda u: from_name(name, SCALES[name], strict=case["strict"])(u)}
        if "activation" in own:
            known["activation"] = oracle.ACTIVATIONS[own["activation"]]

    def run(function, dtype, **options):
        leaves = {key: tensor.to(dtype).requires_grad_() for key, tensor in tensors.items()}
        leaves["v0"].requires_grad_(case["initial"])
        y_seq, v, v_seq, *rest = function(**leaves, **options)
        weights = [torch.linspace(-1, 1.3, max(o.numel(), 1)).view(o.shape).to(o) for o in (y_seq, v, v_seq)]
        loss = sum((o * w).sum() for o, w in zip((y_seq, v, v_seq), weights, strict=True))
        wanted = [leaf for leaf in leaves.values() if leaf.requires_grad]
        return (y_seq, v, v_seq), torch.autograd.grad(loss, wanted), rest

    def ours(x_seq, v0, **arguments):
        return neuron(x_seq, v0, **arguments, return_v_seq=True)

    stated = {"surrogate": name, "scale": SCALES[name], "strict": case["strict"]}
    return (
        run(ours, dtype, **{**own, **known}, **when),
        run(neuron.oracle, torch.float64, **own, **stated, **when),
    )
