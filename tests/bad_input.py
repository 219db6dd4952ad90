"""What every public name is given wrongly: a working call of each, and the values for each argument."""

import importlib
import inspect
import traceback
from pathlib import Path

import numpy as np
import torch
from torch import nn

import snn_ext

PACKAGE = str(Path(snn_ext.__file__).parent)

WRONG = {
    "nothing": lambda: None,
    "a text": lambda: "wrong",
    "bytes": lambda: b"wrong",
    "an object": object,
    "a class": lambda: int,
    "a list of text": lambda: ["a"],
    "an empty list": list,
    "a dictionary": lambda: {"x": 1},
    "zero": lambda: 0,
    "minus one": lambda: -1,
    "two": lambda: 2,
    "a half": lambda: 0.5,
    "NaN": lambda: float("nan"),
    "infinity": lambda: float("inf"),
    "a huge number": lambda: 10**400,
    "a complex number": lambda: 1j,
    "a truth value": lambda: True,
    "an array of text": lambda: np.array(["a"]),
    "an array": lambda: np.full(7, 0.5),
    "a tensor of truth values": lambda: torch.ones(4, 3, dtype=torch.bool),
    "whole numbers": lambda: torch.ones(4, 3, dtype=torch.int64),
    "complex numbers": lambda: torch.ones(4, 3, dtype=torch.complex64),
    "another shape": lambda: torch.full((2, 7), 0.5),
    "many dimensions": lambda: torch.full((1, 1, 2, 1, 1, 7), 0.5),
    "no dimension": lambda: torch.tensor(0.5),
    "nothing inside": lambda: torch.zeros(0, 3),
    "NaN inside": lambda: torch.full((4, 3), float("nan")),
    "sparse": lambda: torch.ones(4, 3).to_sparse(),
    "meta": lambda: torch.ones(4, 3, device="meta"),
    "float8": lambda: torch.ones(4, 3).to(torch.float8_e4m3fn),
    "a layer": lambda: nn.Linear(3, 3),
    "a function": lambda: len,
}
"""Types, values, shapes, dtypes, layouts and devices; where one is right, the call has to work."""


def ours(error, *words):
    """Whether an error is one of ours: raised by this package, and one of the words is in it."""
    if not isinstance(error, (TypeError, ValueError, NotImplementedError, RuntimeError, ImportError)):
        return False
    innermost = traceback.extract_tb(error.__traceback__)[-1].filename
    return innermost.startswith(PACKAGE) and any(word in str(error) for word in words)


def state(*nets):
    """What must not change: values, training flags, hooks."""
    found = []
    for net in nets:
        for name, module in net.named_modules():
            hooks = [
                len(h) for key, h in vars(module).items() if key.endswith("_hooks") and hasattr(h, "__len__")
            ]
            found.append((name, module.training, hooks))
        found += [
            (name, value.detach().clone())
            for name, value in (*net.named_parameters(), *net.named_buffers())
            if not name.endswith("mem")
        ]
    return found


def same(one, other):
    """Whether two states are equal."""
    return len(one) == len(other) and all(
        torch.equal(a[1], b[1]) if isinstance(a[1], torch.Tensor) else a == b
        for a, b in zip(one, other, strict=True)
    )


def relu_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


class Row:
    """A working call: `call(**good())`; `words` are what an error may say in place of the argument's name.

    `theirs` are pairs of argument and kind of value that the network of the user refuses by itself.
    """

    def __init__(self, call, good, after=None, words=(), theirs=()):
        self.call, self.good, self.after, self.words, self.theirs = call, good, after, words, theirs


def numbers_of(name):
    shared = {"decay": 0.5, "threshold": 0.5}
    own = {"lifb": {"burst_threshold": 1.0, "burst_intensity": 2.0}}
    return lambda: {"x_seq": torch.rand(5, 4, 3), **shared, **own.get(name, {})}


def rows_of_core():
    from snn_ext import conversion, energy, events, functional, surrogate

    rows = {
        ("functional", name): Row(getattr(functional, name), numbers_of(name)) for name in functional.__all__
    }
    for name in surrogate.__all__:
        if name != "Surrogate":
            rows["surrogate", name] = Row(getattr(surrogate, name), dict, lambda s: s(torch.zeros(2)))
    rows["energy", "ConstantLambda"] = Row(energy.ConstantLambda, lambda: {"lam": 1e-6}, lambda s: s(0))
    rows["energy", "LinearRamp"] = Row(energy.LinearRamp, lambda: {"lam": 1e-6, "steps": 5}, lambda s: s(0))
    rows["energy", "WhenLearning"] = Row(energy.WhenLearning, dict)
    rows["conversion", "Options"] = Row(conversion.Options, dict)
    rows["conversion", "l4_norm"] = Row(conversion.l4_norm, lambda: {"weight": torch.rand(4, 3)})
    rows["conversion", "l4_adjust"] = Row(
        conversion.l4_adjust, lambda: {"weights": [torch.rand(4, 3)]}, None, ("weight",)
    )
    rows["conversion", "noise_std"] = Row(
        conversion.noise_std, lambda: {"weight": torch.rand(4, 3), "rate": torch.rand(3)}
    )
    rows["conversion", "poisson"] = Row(
        conversion.poisson, lambda: {"images": torch.rand(4, 3), "steps": 2}, lambda made: list(made)
    )
    rows["events", "saccades"] = Row(events.saccades, lambda: {"images": torch.rand(2, 6, 6)})
    return rows


def rows_of_face(face):
    """The rows of a face, as of `faces`, and those of `snn_ext.energy` that need a spiking network."""
    ext, hidden = face.ext, face.name == "snntorch"
    x = torch.rand(4, 3)
    rows = {}

    def spiking():
        torch.manual_seed(0)
        return nn.Sequential(face.linear(3, 4), face.lifb(), face.linear(4, 2), face.lif())

    def step(neuron):
        neuron(x)

    names = ("LIFB", "VSN", "SoftResetMPR") if hidden else ("LIFBNode", "VSNNode", "SoftResetMPRNode")
    for name in names:
        first = {"beta": 0.5} if hidden else {"tau": 2.0}
        rows[name] = Row(getattr(ext, name), lambda first=first: dict(first), step)

    def watched(made):
        made.remove()

    penalties = ("BalancedSpikePenalty", "SynapticPenalty", "TotalSpikePenalty", "SpikingActivityLoss")
    from snn_ext import energy

    def net_and_sample():
        return {"net": spiking(), "sample_input": x}

    for name in penalties:
        good = net_and_sample if name != "SpikingActivityLoss" else lambda: {"net": spiking()}
        words = ("network", "layer", "sample")
        rows["energy", name] = Row(getattr(ext, name, getattr(energy, name)), good, watched, words)
        if hasattr(ext, name):
            rows[name] = rows["energy", name]
    for name in ("balanced_spike_reg", "synaptic_reg", "total_spike_reg"):
        if hasattr(ext, name):
            rows[name] = Row(getattr(ext, name), net_and_sample, None, ("network", "layer", "sample"))
    rows["energy", "Weighted"] = Row(
        energy.Weighted,
        lambda: {"penalty": energy.TotalSpikePenalty(spiking())},
        lambda w: w.penalty.remove(),
        ("lam",),
    )
    rows["energy", "fan_out"] = Row(energy.fan_out, net_and_sample, None, ("network", "layer"))
    rows["energy", "measure_energy"] = Row(
        energy.measure_energy,
        lambda: {"net": spiking(), "loader": [x], "progress": False},
        None,
        ("network", "layer", "batch"),
    )
    rows["observe"] = rows["observe", "observe"] = Row(
        ext.observe, lambda: {"net": spiking()}, lambda seen: seen.__enter__(), ("network", "neuron", "layer")
    )
    rows["decouple"] = Row(ext.decouple, lambda: {"net": spiking()}, None, ("network", "LIFB"))
    rows["events"] = Row(ext.events, lambda: {"spk": torch.rand(4, 3)})
    if hidden:
        rows["reset"] = Row(ext.reset, lambda: {"net": spiking()})
        rows["convert"] = Row(
            ext.convert,
            lambda: {"ann": relu_net(), "calibration": [x], "progress": False},
            None,
            ("calibration",),
        )

        net = ext.convert(relu_net(), [x], progress=False, num_steps=2)

    else:
        for name in ("ac_rules", "mac_rules", "state_rules", "synop_rules"):
            rows[name] = Row(getattr(ext, name), lambda: {"net": spiking()}, None, ("network", "2.0.0"))
        rows["as_native"] = Row(
            ext.as_native, lambda: {"net": spiking()}, lambda c: c.__enter__(), ("network", "2.0.0")
        )
        rows["L4Recipe"] = Row(
            ext.L4Recipe,
            lambda: {"dataloader": [x], "progress": False},
            lambda recipe: ext.Converter(recipe).convert(relu_net()),
            ("calibration",),
        )

        net = ext.Converter(ext.L4Recipe([x], progress=False, T=2)).convert(relu_net())

    steps, labels = ("num_steps" if hidden else "T"), torch.zeros(4, dtype=torch.int64)
    rows["multi_step"] = Row(
        ext.multi_step,
        lambda: {"net": net, "x_seq": torch.rand(2, 4, 3)},
        theirs=[("x_seq", "many dimensions")],  # the first linear layer answers
    )
    rows["accuracy_curve"] = Row(
        ext.accuracy_curve,
        lambda: {"net": net, "loader": [(x, labels)], steps: 2, "progress": False},
        None,
        ("batch", "label", "image", "number of steps"),
    )
    rows["conversion_report"] = Row(
        ext.conversion_report,
        lambda: {"net": net, "images": x, "labels": labels},
        None,
        ("label", "number of steps"),
        theirs=[("images", "another shape"), ("images", "many dimensions")],  # the first linear layer answers
    )
    return rows


LEFT_OUT = {
    ("functional", "decompositions"): "takes nothing",
    ("conversion", "RULES"): "a tuple of names",
    ("conversion", "Adjustment"): "what l4_adjust returns",
    ("conversion", "Report"): "what conversion_report returns",
    ("energy", "EnergyReport"): "what measure_energy returns",
    ("energy", "EnergyReports"): "what measure_energy returns",
    ("surrogate", "Surrogate"): "the base class, which refuses to be made",
    "register": "takes nothing",
    "unregister": "takes nothing",
    "register_neurobench": "takes nothing",
    "unregister_neurobench": "takes nothing",
    "Converter": "SpikingJelly's own in 2.0; its recipe is checked there",
    "export_to_nir": "traces with nirtorch: what it refuses is in test_nir.py",
    "estimate_simple_energy": "SpikingJelly's own estimator with our rules: see energy/test_counters.py",
}
"""Public names without a row, and why."""


def arguments(row):
    """The arguments of a row's call that a wrong value can be put into."""
    found = []
    for name, parameter in inspect.signature(row.call).parameters.items():
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            found.append(name)
    return found


def public(module):
    return importlib.import_module(f"snn_ext.{module}").__all__
