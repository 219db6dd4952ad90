"""Networks as graphs of NIR, the same for both frameworks: what is written, what is folded, what is refused.

======================================  =====================================================================
layer                                   in NIR
======================================  =====================================================================
Linear                                  Affine, without a bias one of zeros
Conv1d, Conv2d                          the same, square kernels, zero padding; groups as a weight with zeros
AvgPool2d, AdaptiveAvgPool2d            AvgPool2d, where windows are equal and whole
AvgPool2d(divisor_override=1),          SumPool2d, without padding
LPPool2d(1)
Flatten                                 Flatten
Identity                                nothing
addition in a forward                   several edges into one node
BatchNorm1d, BatchNorm2d, Dropout       refused; with ``fold``, folded into the weights before, and left out
a neuron's gain and what it emits       resistance, or factors in the weights before or after where there are
anything else                           refused by name
======================================  =====================================================================

Weights are written as a forward computes them: pruned, normalised and parametrised ones too.  The faces bring
the neurons.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import nir
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from . import decoupling
from .nir import Neurons, Scale, Shape, expand, per_channel, weights

LAYERS = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.LPPool2d,
    nn.Flatten,
)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout)
RANKS = {nn.Linear: 1, nn.Conv1d: 2, nn.Conv2d: 3, nn.AvgPool2d: 3, nn.LPPool2d: 3, nn.AdaptiveAvgPool2d: 3}
"""How many dimensions a sample has before a layer, which tells how many are batch and time."""
ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_")
WEIGHTS = (nir.Affine, nir.Conv1d, nir.Conv2d)
POOLS = (nir.AvgPool2d, nir.SumPool2d)

Edges = list[tuple[str, str]]
Refuse = Callable[[str, str], Exception]


@dataclasses.dataclass(frozen=True)
class Dialect:
    """What the writer has to know of a framework.

    `kinds` says which modules are not to be looked into, `own` are the framework's subclasses of `LAYERS`
    and `NORMS`, `dropouts` its dropouts, `neuron` describes a neuron or raises, `leading` is how many
    dimensions a network may have before those of a sample, and `sample` what an export calls its sample.
    """

    kinds: decoupling.Kinds
    own: tuple[type, ...]
    dropouts: tuple[type, ...]
    neuron: Callable[[Any, Refuse], Neurons | nir.NIRNode]
    leading: Callable[[nn.Module], int]
    sample: str


def export(
    net: nn.Module,
    sample: Tensor,
    arguments: Sequence[Any],
    dialect: Dialect,
    *,
    ignored: Sequence[int] = (),
    dt: float,
    unit_resistance: bool,
    fold: bool,
) -> nir.NIRGraph:
    """Return `net` as a graph; it is left untouched.

    Parameters
    ----------
    sample : Tensor
        What `net` takes in one call, with or without batch (and time).
    arguments : sequence
        What its forward takes beside.
    ignored : sequence of int
        Dimensions of `sample` that are batch or time; none: found by the layers.
    fold : bool
        Fold batch norms, and leave out dropout.

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        Naming the argument or the layer, and what would do.
    """
    _check(net, sample, ignored, dt, dialect)
    used = decoupling.copy_of(net).eval()
    layers = dict(_leaves(used, dialect))
    try:
        shapes = _run(used, layers, sample, arguments, dialect.sample)
        layers = {name: layer for name, layer in layers.items() if name in shapes}
    finally:  # what is unknown may be why it does not run
        for name, layer in layers.items():
            _refuse_unknown(name, layer, fold, dialect)
    leading = _leading(used, layers, shapes, sample, tuple(ignored), dialect)
    decoupling.refuse_shared(used, layers)
    described = {
        name: dialect.neuron(layer, _refusal(name, layer))
        for name, layer in layers.items()
        if isinstance(layer, dialect.kinds.neurons)
    }
    graph = _traced(used, dialect.kinds)
    writer = _Writer(layers, described, shapes, leading, dt, unit_resistance)
    return writer.write(graph, type(net).__name__, sample)


def _check(net: Any, sample: Any, ignored: Sequence[int], dt: float, dialect: Dialect) -> None:
    if not isinstance(net, nn.Module):
        raise TypeError(f"only a network can be exported, a torch.nn.Module, got {type(net).__name__}")
    if isinstance(net, dialect.kinds.neurons):
        raise NotImplementedError(
            f"a single {type(net).__name__} is no network to export; put it into nn.Sequential behind a layer"
        )
    if not isinstance(sample, Tensor):
        raise TypeError(
            f"{dialect.sample} must be a tensor that the network takes in one call, such as a batch "
            f"(N, ...), got {type(sample).__name__}"
        )
    listed = isinstance(ignored, (list, tuple))
    if not listed or any(not isinstance(d, int) or not -sample.dim() <= d < sample.dim() for d in ignored):
        raise ValueError(
            f"ignore_dims={ignored!r} is no list of dimensions of {dialect.sample}, which has shape "
            f"{tuple(sample.shape)}; leave it out to have them found"
        )
    if not (isinstance(dt, (int, float)) and 0 < dt < float("inf")):
        raise ValueError(f"dt={dt!r}: a time step in seconds is a positive number, such as 1e-4")


def _leaves(net: nn.Module, dialect: Dialect, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules that are not to be looked into, as they are traced."""
    for child, module in net.named_children():
        place = f"{name}.{child}" if name else child
        if decoupling.is_leaf(module, dialect.kinds):
            yield place, module
        else:
            yield from _leaves(module, dialect, place)


def _run(
    net: nn.Module, layers: dict[str, nn.Module], sample: Tensor, arguments: Sequence[Any], what: str
) -> dict[str, tuple[Shape, Shape]]:
    """Return the shapes that go into and come out of all `layers` that run on `sample`, in order."""
    shapes: dict[str, tuple[Shape, Shape]] = {}

    def hook_for(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, named: Any, output: Any) -> None:
            first = next(iter((*inputs, *named.values())), None)
            result = output[0] if isinstance(output, tuple) else output
            if isinstance(result, Tensor) and isinstance(first, Tensor):
                shapes[name] = (tuple(first.shape), tuple(result.shape))

        return hook

    hooks = [layer.register_forward_hook(hook_for(n), with_kwargs=True) for n, layer in layers.items()]
    try:
        with torch.no_grad():
            net(sample, *arguments)
    except Exception as error:
        raise ValueError(
            f"{type(net).__name__} does not run on {what} of shape {tuple(sample.shape)} and {sample.dtype} "
            f"({type(error).__name__}: {error}); give what it takes in one call, such as a batch (N, ...)"
        ) from error
    finally:
        for handle in hooks:
            handle.remove()
    return shapes


def _leading(
    net: nn.Module,
    layers: dict[str, nn.Module],
    shapes: dict[str, tuple[Shape, Shape]],
    sample: Tensor,
    ignored: tuple[int, ...],
    dialect: Dialect,
) -> tuple[int, ...]:
    """Return which dimensions are batch or time."""
    if ignored:
        return tuple(sorted(d % sample.dim() for d in ignored))
    most = dialect.leading(net)
    for name, layer in layers.items():
        rank = next((n for kind, n in RANKS.items() if isinstance(layer, kind)), None)
        if rank is not None:
            before = len(shapes[name][0]) - rank
            if before > most:
                raise ValueError(
                    f"{dialect.sample} has shape {tuple(sample.shape)}, so {name!r} ({_called(layer)}) gets "
                    f"{shapes[name][0]}, more than a sample and its batch; give what one call takes, (N, ...)"
                )
            return tuple(range(max(before, 0)))
    return tuple(range(min(most, sample.dim() - 1)))


def _known(layer: nn.Module, kinds: tuple[type, ...], dialect: Dialect) -> bool:
    """Whether a layer is one of `kinds`, and has no forward of its own."""
    plain = decoupling.plain_type(layer)
    return plain in kinds or (plain in dialect.own and issubclass(plain, kinds))


def _refuse_unknown(name: str, layer: Any, fold: bool, dialect: Dialect) -> None:
    if _known(layer, (*LAYERS, nn.Identity), dialect) or isinstance(layer, dialect.kinds.neurons):
        return
    refuse = _refusal(name, layer)
    if _known(layer, NORMS, dialect):
        if not fold:
            raise refuse("batch norm", "export with fold=True, which folds it into the weights before")
        if layer.running_mean is None:
            raise refuse("the statistics of a batch", "build it with track_running_stats=True")
    elif _known(layer, DROPOUTS, dialect) or decoupling.plain_type(layer) in dialect.dropouts:
        if not fold:
            raise refuse("dropout", "export with fold=True, which leaves it out, as evaluation does")
    elif hasattr(layer, "not_in_nir"):
        raise refuse(layer.not_in_nir, layer.nir_remedy)
    elif "MaxPool" in _called(layer):
        raise refuse("max pooling", "use AvgPool2d, or leave it out of what is exported")
    elif "Container" in _called(layer):
        raise refuse(
            "a container of a framework's own, recurrent or over time",
            "put its layers into nn.Sequential, without recurrence",
        )
    else:
        raise refuse(
            "what it does",
            "leave it out of what is exported, or use Linear, Conv1d, Conv2d, AvgPool2d or Flatten",
        )


def _called(layer: nn.Module) -> str:
    return decoupling.plain_type(layer).__name__


def _refusal(name: str, layer: nn.Module) -> Refuse:
    def refuse(what: str, remedy: str) -> NotImplementedError:
        return NotImplementedError(
            f"{_called(layer)} at {name!r} cannot be exported to NIR, which has no node for {what}; {remedy}"
        )

    return refuse


def _traced(net: nn.Module, kinds: decoupling.Kinds) -> fx.Graph:
    try:
        return decoupling.trace(net, kinds)
    except Exception as error:
        raise NotImplementedError(
            f"{type(net).__name__} cannot be traced by torch.fx, so what its forward does between the "
            f"layers is not known ({type(error).__name__}: {error}); export a network of layers alone, as "
            "nn.Sequential"
        ) from error


class _Writer:
    """Writes the nodes and edges of a traced network."""

    def __init__(
        self,
        layers: dict[str, nn.Module],
        neurons: dict[str, Neurons | nir.NIRNode],
        shapes: dict[str, tuple[Shape, Shape]],
        leading: tuple[int, ...],
        dt: float,
        unit_resistance: bool,
    ) -> None:
        self.layers, self.neurons, self.leading = layers, neurons, leading
        self.shapes = {name: (self._bare(a), self._bare(b)) for name, (a, b) in shapes.items()}
        self.dt, self.unit_resistance = dt, unit_resistance
        self.nodes: dict[str, Any] = {}
        self.edges: Edges = []
        self.left: dict[str, str] = {}
        """By which node a layer is left."""
        self.written: dict[str, tuple[str, ...]] = {}
        """What each layer takes."""

    def _bare(self, shape: Sequence[int]) -> Shape:
        return tuple(n for d, n in enumerate(shape) if d not in self.leading)

    def write(self, graph: fx.Graph, network: str, sample: Tensor) -> nir.NIRGraph:
        start, end = self._free("input"), self._free("output")
        self.nodes[start] = nir.Input({"input": np.array(self._bare(sample.shape))})
        found: dict[fx.Node, tuple[str, ...] | None] = {}
        for node in graph.nodes:
            if node.op == "placeholder":
                found[node] = None if found else (start,)
            elif node.op == "get_attr":
                found[node] = None
            elif node.op == "output":
                self._finish(end, self._first(node.args[0], found), network)
            elif node.op == "call_module":
                taken = next(iter((*node.args, *node.kwargs.values())), None)
                found[node] = self._layer(str(node.target), self._first(taken, found))
            elif node.target is operator.getitem and _calls_module(node.args[0]):
                found[node] = found[node.args[0]] if node.args[1] == 0 else None
            elif node.target in ADDITIONS and not node.kwargs and len(node.args) == 2:
                parts = [found.get(a) if isinstance(a, fx.Node) else None for a in node.args]
                if None in parts or set(parts[0]) & set(parts[1]):  # type: ignore[arg-type]
                    raise self._lost(node, network)
                found[node] = (*parts[0], *parts[1])  # type: ignore[misc]
            else:
                raise self._lost(node, network)
        _absorb(self.nodes, self.edges)
        return self._typed()

    def _free(self, name: str) -> str:
        while name in self.layers:
            name += "_"
        return name

    def _first(self, value: Any, found: dict[fx.Node, Any]) -> tuple[str, ...] | None:
        while isinstance(value, (tuple, list)) and value:
            value = value[0]
        return found.get(value) if isinstance(value, fx.Node) else None

    def _lost(self, node: fx.Node, network: str) -> NotImplementedError:
        what = getattr(node.target, "__name__", node.target)
        return NotImplementedError(
            f"{what} in the forward of {network} is not a layer, and the export would lose it; export a "
            "network of layers alone, as nn.Sequential"
        )

    def _finish(self, end: str, sources: tuple[str, ...] | None, network: str) -> None:
        shapes = {place: self.shapes[name][1] for name, place in self.left.items()}
        if not sources or sources[0] not in shapes:
            raise NotImplementedError(
                f"the forward of {network} does not return first what comes out of a layer; export a network "
                "that returns it"
            )
        self.nodes[end] = nir.Output({"output": np.array(shapes[sources[0]])})
        self.edges += [(source, end) for source in sources]

    def _layer(self, name: str, sources: tuple[str, ...] | None) -> tuple[str, ...]:
        """Write a layer, and return what it is left by."""
        layer = self.layers[name]
        if sources is None:
            raise NotImplementedError(
                f"{_called(layer)} at {name!r} takes something else than the input or the output of a layer; "
                "export a network of layers alone, as nn.Sequential"
            )
        if self.written.setdefault(name, sources) != sources:
            raise NotImplementedError(
                f"the layer {name!r} stands at two places; export a network without sharing"
            )
        if name in self.left:
            return (self.left[name],)
        nodes, edges, first, last = self._nodes(name, layer)
        if not nodes:  # nothing to write
            return sources
        self.nodes |= nodes
        self.edges += [*((source, first) for source in sources), *edges]
        self.left[name] = last
        return (last,)

    def _nodes(self, name: str, layer: nn.Module) -> tuple[dict[str, Any], Edges, str, str]:
        before, after = self.shapes[name]
        if name in self.neurons:
            described = self.neurons[name]
            if isinstance(described, Neurons):
                return expand(name, described, after, dt=self.dt, unit_resistance=self.unit_resistance)
            return self._foreign(name, described, after)
        node = self._node(name, layer, before, after)
        return ({} if node is None else {name: node}), [], name, name

    def _foreign(self, name: str, node: nir.NIRNode, shape: Shape) -> tuple[dict[str, Any], Edges, str, str]:
        """Return what a framework's own exporter wrote of a neuron, as a part of the graph."""
        if not isinstance(node, nir.NIRGraph):
            return {name: _spread(node, shape)}, [], name, name
        inner = {k: n for k, n in node.nodes.items() if not isinstance(n, (nir.Input, nir.Output))}
        nodes = {f"{name}.{k}": _spread(n, shape) for k, n in inner.items()}
        edges = [(f"{name}.{a}", f"{name}.{b}") for a, b in node.edges if a in inner and b in inner]
        first, last = (
            next(f"{name}.{edge[k]}" for edge in node.edges if isinstance(node.nodes[edge[1 - k]], kind))
            for k, kind in ((1, nir.Input), (0, nir.Output))
        )
        lif = nodes[first]
        if self.unit_resistance and isinstance(lif, nir.LIF):
            place = f"{first}_scale"
            nodes[place] = Scale(per_channel(name, lif.r.astype(np.float64), shape), None, shape)
            edges = [(a, place if b == first else b) for a, b in edges] + [(place, first)]
            lif.r, first = np.ones_like(lif.r), place
        return nodes, edges, first, last

    def _node(self, name: str, layer: Any, before: Shape, after: Shape) -> Any:
        refuse = _refusal(name, layer)
        if isinstance(layer, nn.Linear):
            if len(before) != 1:
                raise refuse(f"a linear layer over samples of shape {before}", "flatten them before")
            return weights(_array(layer.weight), _optional(layer.bias), after)
        if isinstance(layer, (nn.Conv1d, nn.Conv2d)):
            node = _convolution(layer, before, refuse)
            if tuple(node.output_type["output"]) != after:
                raise refuse(f"a kernel of shape {layer.kernel_size}", "use a square one")
            return node
        if isinstance(layer, (nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.LPPool2d)):
            return _pool(layer, before, after, refuse)
        if isinstance(layer, nn.Flatten):
            return self._flatten(layer, before, after, refuse)
        if hasattr(layer, "running_var"):  # batch norm
            factor = 1 / np.sqrt(_array(layer.running_var) + layer.eps)
            factor = factor if layer.weight is None else factor * _array(layer.weight)
            offset = -_array(layer.running_mean) * factor
            return Scale(factor, offset if layer.bias is None else offset + _array(layer.bias), after)
        return None  # what does nothing

    def _flatten(self, layer: nn.Flatten, before: Shape, after: Shape, refuse: Refuse) -> Any:
        leading = len(self.leading)
        if getattr(layer, "step_mode", None) == "m":  # time is not seen
            leading -= 1
        rank = len(before) + leading
        start, end = layer.start_dim % rank - leading, layer.end_dim % rank - leading
        if start < 0:
            raise refuse("flattening a batch", "use Flatten(1), or Flatten(2) over time")
        return None if before == after else nir.Flatten({"input": np.array(before)}, start, end)

    def _typed(self) -> nir.NIRGraph:
        """Return the graph, with all shapes as NIR infers them."""
        try:
            return nir.NIRGraph(self.nodes, self.edges)
        except ValueError as error:
            raise NotImplementedError(f"NIR cannot say this network: {error}") from error


def _calls_module(node: Any) -> bool:
    return isinstance(node, fx.Node) and node.op == "call_module"


def _array(value: Tensor) -> NDArray[Any]:
    return value.detach().cpu().double().numpy()


def _optional(value: Tensor | None) -> NDArray[Any] | None:
    return None if value is None else _array(value)


def _convolution(layer: Any, before: Shape, refuse: Refuse) -> nir.NIRNode:
    if layer.padding_mode != "zeros":
        raise refuse(f"padding_mode={layer.padding_mode!r}", "use padding_mode='zeros'")
    weight = np.zeros((layer.out_channels, layer.in_channels, *layer.kernel_size), np.float32)
    n, m = layer.out_channels // layer.groups, layer.in_channels // layer.groups
    for g, part in enumerate(np.split(_array(layer.weight), layer.groups)):
        weight[g * n : (g + 1) * n, g * m : (g + 1) * m] = part
    bias = np.zeros(len(weight)) if layer.bias is None else _array(layer.bias)
    places = (layer.stride, layer.padding, layer.dilation)
    if isinstance(layer, nn.Conv1d):
        stride, padding, dilation = (p if isinstance(p, str) else p[0] for p in places)
        return nir.Conv1d(before[-1], weight, stride, padding, dilation, 1, bias.astype(np.float32))
    return nir.Conv2d(before[1:], weight, *places, 1, bias.astype(np.float32))


def _pool(layer: Any, before: Shape, after: Shape, refuse: Refuse) -> nir.NIRNode:
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        if any(n % m for n, m in zip(before[1:], after[1:], strict=True)):
            raise refuse(f"windows of different sizes, from {before[1:]} to {after[1:]}", "use AvgPool2d")
        kernel = tuple(n // m for n, m in zip(before[1:], after[1:], strict=True))
        return nir.AvgPool2d(np.array(kernel), np.array(kernel), np.array((0, 0)))
    kernel = _pair(layer.kernel_size)
    stride = kernel if layer.stride is None else _pair(layer.stride)
    padding = _pair(getattr(layer, "padding", 0))
    sums = isinstance(layer, nn.LPPool2d)
    if sums and layer.norm_type != 1:
        raise refuse(f"norm_type={layer.norm_type}", "use LPPool2d(1, ...), which sums, or AvgPool2d")
    if not sums and layer.divisor_override is not None:
        sums = layer.divisor_override == 1
        if not sums and layer.divisor_override != kernel[0] * kernel[1]:
            raise refuse(f"divisor_override={layer.divisor_override}", "use 1, which sums, or leave it out")
    if any(padding) and (sums or not (layer.count_include_pad or layer.divisor_override)):
        raise refuse("padding in this pooling that all readers follow", "use padding=0")
    sides = zip(before[1:], kernel, stride, padding, strict=True)
    if tuple((n + 2 * p - k) // s + 1 for n, k, s, p in sides) != after[1:]:
        raise refuse("windows that stick out", "use ceil_mode=False")
    kind = nir.SumPool2d if sums else nir.AvgPool2d
    return kind(np.array(kernel), np.array(stride), np.array(padding))


def _pair(value: Any) -> tuple[int, int]:
    first, *rest = np.atleast_1d(value).tolist()
    return (first, rest[0] if rest else first)


def _spread(node: nir.NIRNode, shape: Shape) -> nir.NIRNode:
    """Return a node of a framework's exporter with one parameter per neuron, and no ``nir.Linear``."""
    if isinstance(node, (nir.Linear, nir.Affine)):
        return weights(np.asarray(node.weight), getattr(node, "bias", None), shape)
    if not hasattr(node, "v_threshold"):
        return node
    values = {f.name: getattr(node, f.name) for f in dataclasses.fields(node) if f.name in _BY_NEURON}
    return type(node)(**{k: np.array(np.broadcast_to(v, shape), np.float32) for k, v in values.items()})


_BY_NEURON = ("tau", "tau_mem", "tau_syn", "r", "v_leak", "v_threshold", "v_reset", "w_in")


def _absorb(nodes: dict[str, Any], edges: Edges) -> None:
    """Fold every `Scale` into the weights before it, or after it, or make weights of it."""
    for name in [name for name, node in nodes.items() if isinstance(node, Scale)]:
        scale = nodes[name]
        sources = [a for a, b in edges if b == name]
        targets = [b for a, b in edges if a == name]
        if all(isinstance(nodes[a], WEIGHTS) and _after(edges, a) == [name] for a in sources):
            for source in sources:
                _scale_rows(nodes[source], scale.factor)
            if scale.offset is not None:
                nodes[sources[0]].bias = (nodes[sources[0]].bias + scale.offset).astype(np.float32)
        elif scale.offset is None and (columns := _columns(nodes, edges, name, scale.factor, scale.shape)):
            for target, factor in columns:
                _scale_columns(nodes[target], factor)
        else:
            nodes[name] = weights(np.diag(scale.factor), scale.offset, scale.shape)
            continue
        del nodes[name]
        edges[:] = [edge for edge in edges if name not in edge]
        edges += [(a, b) for a in sources for b in targets]


def _after(edges: Edges, name: str) -> list[str]:
    return [b for a, b in edges if a == name]


def _columns(
    nodes: dict[str, Any], edges: Edges, name: str, factor: NDArray[Any], shape: Shape
) -> list[tuple[str, NDArray[Any]]]:
    """Return all weights that take what `name` gives, with the factors of their inputs; or nothing."""
    found = []
    for after in _after(edges, name):
        node = nodes[after]
        alone = [a for a, b in edges if b == after] == [name]
        if not alone:
            return []
        if isinstance(node, WEIGHTS):
            found.append((after, factor))
            continue
        if isinstance(node, nir.Flatten) and node.start_dim == 0:
            spread = np.repeat(factor, np.prod(shape[1:], dtype=int))
            inner = _columns(nodes, edges, after, spread, (len(spread),))
        elif isinstance(node, POOLS):
            inner = _columns(nodes, edges, after, factor, shape)
        else:
            return []
        if not inner:
            return []
        found += inner
    return found


def _scale_rows(node: Any, factor: NDArray[Any]) -> None:
    rows = factor.reshape(-1, *[1] * (node.weight.ndim - 1))
    node.weight = (node.weight * rows).astype(np.float32)
    node.bias = (node.bias * factor).astype(np.float32)


def _scale_columns(node: Any, factor: NDArray[Any]) -> None:
    columns = factor.reshape(1, -1, *[1] * (node.weight.ndim - 2))
    node.weight = (node.weight * columns).astype(np.float32)
