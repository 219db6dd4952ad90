"""Reading a trained ReLU network: its graph in few kinds of layers, batch norm folded.

What is read, and as what:

===========================  ===================================================================
in the network               as
===========================  ===================================================================
Linear, Conv1d, Conv2d       themselves; a layer called twice becomes two with the same weights
BatchNorm1d, BatchNorm2d     folded into the layer before; `Affine` where there is none
ReLU, ``relu``, ``relu_``    `Rectifier`, one for each call: each will be neurons of its own
ReLU6, ``Hardtanh(0, c)``    a `Rectifier` with a limit, above which no neuron's rate can stand
average pooling              itself (linear, so it averages spikes); ``mean`` over space likewise
max pooling                  itself (`snn_ext.conversion.spiking` says how it treats spikes)
Dropout, Identity            left out
Flatten, ``view``, ...       Flatten, if it flattens all but the batch
``+``, ``add``               an addition
``cat`` over channels        ``torch.cat``, its dimension counted from the end: steps may lead
Softmax, Sigmoid, ... last   the readout: left out, as they change no order of the outputs
===========================  ===================================================================

Anything else is refused, with its name and place.  The graph that was read must compute what the network
computes on a batch; that is checked.
"""

from __future__ import annotations

import contextlib
import copy
import math
import operator
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)
SYNAPSES = (nn.Linear, *CONVOLUTIONS)
AVERAGES = (nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)
MAXIMA = (nn.MaxPool1d, nn.MaxPool2d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
OMITTED = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d)

_POOLS: dict[Any, tuple[type[nn.Module], tuple[str, ...]]] = {
    functional.avg_pool1d: (
        nn.AvgPool1d,
        ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad"),
    ),
    functional.avg_pool2d: (
        nn.AvgPool2d,
        ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"),
    ),
    functional.adaptive_avg_pool1d: (nn.AdaptiveAvgPool1d, ("output_size",)),
    functional.adaptive_avg_pool2d: (nn.AdaptiveAvgPool2d, ("output_size",)),
    functional.max_pool1d: (nn.MaxPool1d, ("kernel_size", "stride", "padding", "dilation", "ceil_mode")),
    functional.max_pool2d: (nn.MaxPool2d, ("kernel_size", "stride", "padding", "dilation", "ceil_mode")),
}
READOUTS = (nn.Softmax, nn.LogSoftmax, nn.Sigmoid, nn.LogSigmoid, nn.Tanh)
"""What changes no order of the outputs of a sample, so that the prediction is the same without."""
_READOUTS = {
    functional.softmax: "softmax",
    torch.softmax: "softmax",
    "softmax": "softmax",
    functional.log_softmax: "log_softmax",
    torch.log_softmax: "log_softmax",
    "log_softmax": "log_softmax",
    functional.sigmoid: "sigmoid",
    torch.sigmoid: "sigmoid",
    "sigmoid": "sigmoid",
    functional.logsigmoid: "logsigmoid",
    functional.tanh: "tanh",
    torch.tanh: "tanh",
    "tanh": "tanh",
}
_RELUS = (functional.relu, functional.relu_, torch.relu, torch.relu_, "relu", "relu_")
_ADDS = (operator.add, operator.iadd, torch.add, "add", "add_")
_RESHAPES = (torch.flatten, torch.reshape, torch.squeeze, "flatten", "view", "reshape", "squeeze")
_DROPOUTS = (functional.dropout, functional.dropout1d, functional.dropout2d)
_MEANS = (torch.mean, "mean")
_COPIES = ("contiguous", "clone")
_CATS = (torch.cat, torch.concat, torch.concatenate)
_CLIPS = (functional.relu6, functional.hardtanh, functional.hardtanh_)

REMEDY = "use the layers listed in snn_ext.conversion.graph, or convert the parts around it"


class Rectifier(nn.Module):
    """A ReLU of the network, up to `limit`; `path` says where it stood."""

    def __init__(self, path: str, limit: float = math.inf) -> None:
        super().__init__()
        self.path, self.limit = path, limit

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x) if self.limit == math.inf else x.clamp(0, self.limit)

    def extra_repr(self) -> str:
        return self.path


class Affine(nn.Module):
    """Channel by channel ``factor * x + shift``, for inputs of shape (N, C, ...)."""

    factor: Tensor
    shift: Tensor

    def __init__(self, factor: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("factor", factor.detach().clone())
        self.register_buffer("shift", shift.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        return (x.movedim(1, -1) * self.factor + self.shift).movedim(-1, 1)


def per_channel(value: Tensor, dims: int) -> Tensor:
    """Return a number, or a vector over channels, shaped to broadcast over (N, C, ...), `dims` of them."""
    return value if value.dim() == 0 else value.reshape(-1, *[1] * (dims - 2))


@contextlib.contextmanager
def watching(reading: fx.GraphModule, see: Callable[[str, Tensor], None]) -> Iterator[None]:
    """While it lasts, show `see` the name and the output of every `Rectifier` that runs."""

    def hook_for(name: str) -> Callable[[Any, Any, Tensor], None]:
        return lambda module, inputs, output: see(name, output)

    hooks = [
        layer.register_forward_hook(hook_for(name))
        for name, layer in reading.named_children()
        if isinstance(layer, Rectifier)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def read(ann: nn.Module, batch: Tensor) -> fx.GraphModule:
    """Return the graph of `ann` in evaluation mode, with copies of its weights; `ann` is not touched.

    Nodes of layers carry ``meta["path"]``, where the layer stood, and every node ``meta["shape"]``, the shape
    of what it gave for `batch`.

    Warns
    -----
    UserWarning
        The network ends in a softmax or the like, which is left out.

    Raises
    ------
    NotImplementedError
        A layer, function or forward that cannot be converted; names it and its place.
    ValueError
        `ann` does not take the batch, has no ReLU, or weights that are no numbers.
    """
    try:
        net = copy.deepcopy(ann).eval()
        for layer in net.modules():
            layer._forward_hooks.clear()  # of the copy: whoever watches the network is not to see this
    except RuntimeError as error:
        raise RuntimeError(
            f"{type(ann).__name__} cannot be copied ({error}); make pruned or normalised weights "
            "permanent, e.g. by torch.nn.utils.remove_weight_norm"
        ) from error
    try:
        traced = fx.Tracer().trace(net)
    except Exception as error:
        raise NotImplementedError(
            f"{type(ann).__name__} cannot be traced by torch.fx ({type(error).__name__}: {error}); give it a "
            "forward without branches on values, or convert the part of it that has one"
        ) from error
    module = fx.GraphModule(net, traced)
    with torch.no_grad():
        try:
            expected = net(batch.clone())  # what is done in place must not reach the user's images
            ShapeProp(module).propagate(batch.clone())
        except Exception as error:
            raise ValueError(
                f"{type(ann).__name__} does not take a batch of shape {tuple(batch.shape)} of the "
                f"calibration loader ({type(error.__cause__ or error).__name__}: {error.__cause__ or error})"
            ) from error
        reader = _Reader(module)
        reading = reader.graph_module()
        if not any(isinstance(layer, Rectifier) for layer in reading.children()):
            raise ValueError(f"{type(ann).__name__} has no ReLU, so there is nothing to convert to neurons")
        found = reader.readout(reading(batch))
    if not bool(torch.isfinite(expected).all()):
        raise ValueError(
            f"{type(ann).__name__} gives NaN or infinity for a batch of the calibration loader, though its "
            "weights are finite; look at the scale of its weights and inputs"
        )
    close = max(1e-3, 8 * torch.finfo(expected.dtype).eps)
    if not torch.allclose(expected, found, rtol=close, atol=close * float(expected.abs().max())):
        raise NotImplementedError(
            f"{type(ann).__name__} computes something else than its layers do one after another (a hook, an "
            "operation in place on a shared tensor, or dropout that does not ask self.training?); write it "
            "without"
        )
    return reading


class _Reader:
    """Builds the graph of one network, node by node."""

    def __init__(self, source: fx.GraphModule) -> None:
        self.source = source
        self.modules = dict(source.named_modules())
        self.root = nn.Module()
        self.graph = fx.Graph()
        self.known: dict[fx.Node, fx.Node] = {}
        self.readouts: list[fx.Node] = []
        """What follows the outputs of the reading, the last first."""

    def readout(self, outputs: Tensor) -> Tensor:
        """Return what the network makes of the reading's outputs."""
        for node in reversed(self.readouts):
            if node.op == "call_module":
                outputs = self.modules[str(node.target)](outputs)
            elif node.op == "call_method":
                outputs = getattr(outputs, str(node.target))(*node.args[1:], **node.kwargs)
            else:
                outputs = node.target(outputs, *node.args[1:], **node.kwargs)  # type: ignore[operator]
        return outputs

    def graph_module(self) -> fx.GraphModule:
        inputs = [node for node in self.source.graph.nodes if node.op == "placeholder"]
        used = [node for node in inputs if node.users]
        if len(used) != 1:
            raise NotImplementedError(
                f"a network of {len(used)} inputs cannot be converted; give it one tensor"
            )
        self._find_readout()
        for node in self.source.graph.nodes:
            if node in self.readouts:
                self.known[node] = self._input(node)
            elif node.op == "placeholder":
                if node in used:
                    self.known[node] = self._noted(self.graph.placeholder("x"), node)
            elif node.op == "output":
                if not isinstance(node.args[0], fx.Node) or not _is_tensor(node.args[0]):
                    raise NotImplementedError(
                        "a network that returns anything but one tensor cannot be converted; return the "
                        "prediction"
                    )
                self.graph.output(self._input(node))
            elif _is_tensor(node):
                self._read(node)
        return fx.GraphModule(self.root, self.graph)

    def _find_readout(self) -> None:
        """Note the softmax or the like that the network ends in, and say that it is left out."""
        node = next(node for node in self.source.graph.nodes if node.op == "output").args[0]
        while isinstance(node, fx.Node) and len(node.users) == 1 and node.args:
            layer = self.modules.get(str(node.target)) if node.op == "call_module" else None
            name = type(layer).__name__ if isinstance(layer, READOUTS) else _READOUTS.get(node.target)
            if name is None and not isinstance(layer, OMITTED):
                break
            if name is not None:
                self._by_class(node, name, layer)
                self.readouts.append(node)
                warnings.warn(
                    f"{name} {_where(node)} is left out of the spiking network: the prediction (argmax) is "
                    "the same; for its values, apply it to the mean of the outputs over steps",
                    stacklevel=7,
                )
            node = node.args[0]

    def _by_class(self, node: fx.Node, name: str, layer: nn.Module | None) -> None:
        """Refuse a softmax over anything but the classes of a sample."""
        if "softmax" not in name.lower():
            return
        dims = len(_shape(node))
        dim: Any = layer.dim if layer is not None else node.kwargs.get("dim", (*node.args[1:], None)[0])
        if dim is None:  # as in torch
            dim = 0 if dims in (1, 3) else 1
        if dim % dims != 1:
            self._refuse(node, f"a {name} over dimension {dim} of {tuple(_shape(node))}, not over classes,")

    def _read(self, node: fx.Node) -> None:
        if node.op == "call_module":
            self._layer(node, str(node.target), self.modules[str(node.target)])
        elif node.op in ("call_function", "call_method"):
            self._function(node)
        else:
            self._refuse(node, f"the tensor {node.target!r} of the module itself")

    def _layer(self, node: fx.Node, path: str, layer: nn.Module) -> None:
        if isinstance(layer, OMITTED):
            self.known[node] = self._input(node)
        elif isinstance(layer, nn.ReLU):
            self._rectify(node, path, layer.inplace)
        elif isinstance(layer, nn.Hardtanh) and layer.min_val == 0:  # ReLU6 is one
            self._rectify(node, path, layer.inplace, layer.max_val)
        elif isinstance(layer, SYNAPSES):
            self._expect(node, layer)
            _finite(path, layer)
            self._module(node, path, _fresh(layer))
        elif isinstance(layer, NORMS):
            _finite(path, layer)
            self._normalise(node, path, layer)
        elif isinstance(layer, (*AVERAGES, *MAXIMA)):
            if getattr(layer, "return_indices", False):
                self._refuse(node, "max pooling that returns indices")
            self._expect(node, layer)
            self._module(node, path, copy.deepcopy(layer))
        elif isinstance(layer, nn.Flatten):
            self._flatten(node, path)
        else:
            self._refuse(node, type(layer).__name__)

    def _function(self, node: fx.Node) -> None:
        target = node.target
        if target in _RELUS:
            inplace = target in (functional.relu_, torch.relu_, "relu_") or bool(node.kwargs.get("inplace"))
            self._rectify(node, _place(node), inplace or node.args[1:2] == (True,))
        elif target in _CLIPS:
            self._clip(node)
        elif target in _ADDS:
            self._add(node)
        elif target in _CATS:
            self._concatenate(node)
        elif target in _RESHAPES:
            self._flatten(node, node.name)
        elif target in _DROPOUTS or target in _COPIES:
            self.known[node] = self._input(node)
        elif target in _MEANS:
            self._mean(node)
        elif target in _POOLS:
            kind, names = _POOLS[target]
            options = {**dict(zip(names, node.args[1:], strict=False)), **node.kwargs}
            options.pop("input", None)
            if options.pop("return_indices", False) or len(node.args) > 1 + len(names):
                self._refuse(node, "max pooling that returns indices")
            pool = kind(**options)
            self._expect(node, pool)
            self._module(node, node.name, pool)
        else:
            self._refuse(node, getattr(target, "__name__", str(target)))

    def _expect(self, node: fx.Node, layer: nn.Module) -> None:
        """Refuse a layer whose input has other dimensions than samples, channels and space."""
        dims = 2 if isinstance(layer, nn.Linear) else 3 if "1d" in type(layer).__name__ else 4
        shape = tuple(self._input(node).meta["shape"])
        if len(shape) != dims:
            self._refuse(
                node, f"{type(layer).__name__} on an input of shape {shape}, not of {dims} dimensions,"
            )

    def _rectify(self, node: fx.Node, path: str, inplace: bool, limit: float = math.inf) -> None:
        before = self._input(node)
        self._module(node, path, Rectifier(path, limit))
        if inplace:
            self._overwrite(before, self.known[node])

    def _clip(self, node: fx.Node) -> None:
        """Read relu6 and hardtanh as functions."""
        given = dict(zip(("input", "min_val", "max_val", "inplace"), node.args, strict=False)) | node.kwargs
        if node.target is functional.relu6:
            given = dict(zip(("input", "inplace"), node.args, strict=False)) | node.kwargs
            given |= {"min_val": 0.0, "max_val": 6.0}
        if given.get("min_val", -1.0) != 0:
            self._refuse(node, "hardtanh")
        inplace = node.target is functional.hardtanh_ or bool(given.get("inplace", False))
        self._rectify(node, _place(node), inplace, float(given.get("max_val", 1.0)))  # type: ignore[arg-type]

    def _concatenate(self, node: fx.Node) -> None:
        terms: Any = node.kwargs.get("tensors", node.args[0] if node.args else ())
        dim: Any = node.kwargs.get("dim", node.kwargs.get("axis", node.args[1] if len(node.args) > 1 else 0))
        dims = len(_shape(node))
        if not all(isinstance(term, fx.Node) and _is_tensor(term) for term in terms):
            self._refuse(node, "a concatenation of anything but tensors")
        if dim % dims != 1:
            self._refuse(node, f"a concatenation along dimension {dim}, not along channels (1),")
        known = tuple(self.known[term] for term in terms)
        new = self._noted(self.graph.call_function(torch.cat, (known, 1 - dims)), node)
        new.meta["path"] = _place(node)
        self.known[node] = new

    def _add(self, node: fx.Node) -> None:
        terms = [node.kwargs.get("input", node.args[0] if node.args else None)]
        terms.append(node.kwargs.get("other", node.args[-1]))
        if node.kwargs.get("alpha", 1) != 1 or not all(
            isinstance(t, fx.Node) and _is_tensor(t) for t in terms
        ):
            self._refuse(node, "an addition of anything but two tensors")
        if terms[0].meta["tensor_meta"].shape != terms[1].meta["tensor_meta"].shape:  # type: ignore[union-attr]
            self._refuse(node, "an addition that broadcasts")
        before, other = (self.known[term] for term in terms)  # type: ignore[index]
        new = self._noted(self.graph.call_function(operator.add, (before, other)), node)
        new.meta["path"] = _place(node)
        self.known[node] = new
        if node.target in (operator.iadd, "add_"):
            self._overwrite(before, new)

    def _normalise(self, node: fx.Node, path: str, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        if norm.running_mean is None or norm.running_var is None:
            self._refuse(node, f"{type(norm).__name__} without running statistics")
        mean: Any = norm.running_mean
        variance: Any = norm.running_var
        weight = torch.ones_like(mean) if norm.weight is None else norm.weight.detach()
        bias = torch.zeros_like(mean) if norm.bias is None else norm.bias.detach()
        source: Any = node.args[0] if node.args else next(iter(node.kwargs.values()))
        before = self._input(node)
        layer = getattr(self.root, str(before.target), None) if before.op == "call_module" else None
        alone = sum(node is before for node in self.known.values()) == len(source.users) == 1
        if isinstance(layer, SYNAPSES) and alone and not before.users:
            fuse: Any = fuse_linear_bn_weights if isinstance(layer, nn.Linear) else fuse_conv_bn_weights
            layer.weight, layer.bias = fuse(layer.weight, layer.bias, mean, variance, norm.eps, weight, bias)
            layer.requires_grad_(False)
            self.known[node] = before
            return
        factor = weight / (variance + norm.eps).sqrt()
        self._module(node, path, Affine(factor, bias - mean * factor))

    def _flatten(self, node: fx.Node, path: str) -> None:
        before = self._input(node)
        shape = before.meta["shape"]
        if _shape(node) == shape:
            self.known[node] = before
        elif _shape(node) == (shape[0], shape[1:].numel()):
            self._module(node, path, nn.Flatten())
        else:
            self._refuse(node, f"a reshape from {tuple(shape)} to {tuple(_shape(node))}")

    def _mean(self, node: fx.Node) -> None:
        before = self._input(node)
        shape = before.meta["shape"]
        dims = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
        dims = [dims] if isinstance(dims, int) else list(dims or ())  # type: ignore[arg-type]
        space = list(range(2, len(shape)))
        if sorted(int(d) % len(shape) for d in dims) != space or len(shape) not in (3, 4):  # type: ignore[arg-type]
            self._refuse(node, "a mean over anything but space")
        pool = nn.AdaptiveAvgPool1d(1) if len(shape) == 3 else nn.AdaptiveAvgPool2d(1)
        pooled = self._call(f"{node.name}_pool", pool, before)
        pooled.meta.update(path=node.name, shape=torch.Size([*shape[:2], *[1] * len(dims)]))
        if len(_shape(node)) == 2:
            self.known[node] = pooled
            pooled = self._call(node.name, nn.Flatten(), pooled)
            pooled.meta.update(path=node.name)
        self.known[node] = self._noted(pooled, node)

    def _input(self, node: fx.Node) -> fx.Node:
        source = node.args[0] if node.args else next(iter(node.kwargs.values()))
        assert isinstance(source, fx.Node)
        return self.known[source]

    def _module(self, node: fx.Node, path: str, module: nn.Module) -> None:
        new = self._call(path, module, self._input(node))
        new.meta["path"] = path
        self.known[node] = self._noted(new, node)

    def _call(self, path: str, module: nn.Module, before: fx.Node) -> fx.Node:
        name = wanted = (
            path.replace(".", "_") if not path[:1].isdigit() else f"layer_{path.replace('.', '_')}"
        )
        number = 1
        while hasattr(self.root, name):
            number += 1
            name = f"{wanted}_{number}"
        self.root.add_module(name, module)
        return self.graph.call_module(name, (before,))

    def _noted(self, new: fx.Node, old: fx.Node) -> fx.Node:
        new.meta["shape"] = _shape(old)
        return new

    def _overwrite(self, before: fx.Node, after: fx.Node) -> None:
        """After an operation in place, whoever asks for the old tensor gets the new one."""
        for source, node in self.known.items():
            if node is before:
                self.known[source] = after

    def _refuse(self, node: fx.Node, what: str) -> Any:
        layer = self.modules.get(str(node.target)) if node.op == "call_module" else None
        name = type(layer).__name__ if layer is not None else what
        remedy = _REMEDIES.get(name.lower().replace("_", ""), REMEDY)
        raise NotImplementedError(f"{what} {_where(node)} cannot be converted; {remedy}")


_NEGATIVE = [
    "celu",
    "elu",
    "gelu",
    "hardtanh",
    "hardswish",
    "leakyrelu",
    "mish",
    "prelu",
    "rrelu",
    "selu",
    "silu",
]
_LAST = ["logsigmoid", "logsoftmax", "sigmoid", "softmax", "tanh"]
_ONLY = "only ReLU and ReLU6 have spiking neurons for their equal; train the network with nn.ReLU"
_REMEDIES = {name.lower(): _ONLY for name in dir(nn.modules.activation) if name[:1].isupper()}
_REMEDIES |= {
    name: f"below zero it gives values that firing rates cannot stand for; {_ONLY}" for name in _NEGATIVE
}
_REMEDIES |= {name: f"it can be left out as the last layer alone; {_ONLY}" for name in _LAST}


def _where(node: fx.Node) -> str:
    return f"at {str(node.target)!r}" if node.op == "call_module" else f"in the forward ({_place(node)})"


def _finite(path: str, layer: nn.Module) -> None:
    """Raise, naming the layer, where its weights or statistics are no numbers."""
    for name in ("weight", "bias", "running_mean", "running_var"):
        value = getattr(layer, name, None)
        if isinstance(value, Tensor) and not bool(torch.isfinite(value).all()):
            raise ValueError(
                f"{name} of {type(layer).__name__} at {path!r} contains NaN or infinity, as after a training "
                "that diverged; give a network that was trained to the end"
            )
        if name == "running_var" and isinstance(value, Tensor) and bool((value < 0).any()):
            raise ValueError(f"running_var of {type(layer).__name__} at {path!r} is negative; train it anew")


def _fresh(layer: nn.Module) -> nn.Module:
    """Return a layer of the same weights without hooks, parametrisations or gradients."""
    assert isinstance(layer, SYNAPSES)
    bias = layer.bias
    new: Any
    if isinstance(layer, nn.Linear):
        new = nn.Linear(layer.in_features, layer.out_features, bias is not None)
    else:
        kind: Any = nn.Conv1d if isinstance(layer, nn.Conv1d) else nn.Conv2d
        new = kind(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,
            layer.stride,
            layer.padding,
            layer.dilation,
            layer.groups,
            bias is not None,
            layer.padding_mode,
        )
    new.weight = nn.Parameter(layer.weight.detach().clone(), requires_grad=False)
    if bias is not None:
        new.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return new.eval()


def _is_tensor(node: fx.Node) -> bool:
    return hasattr(node.meta.get("tensor_meta"), "shape")


def _shape(node: fx.Node) -> torch.Size:
    return node.meta["tensor_meta"].shape


def _place(node: fx.Node) -> str:
    """Say where a function is called: its name in the graph, and the module around it."""
    stack = node.meta.get("nn_module_stack")
    around = list(stack.values())[-1] if stack else None
    path = around[0] if isinstance(around, tuple) else ""
    return f"{path}.{node.name}" if path else node.name
