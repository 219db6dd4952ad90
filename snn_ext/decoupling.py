r"""Lossless decoupling of bursts into two spike trains: who takes them, and with which weights.

A LIFB neuron emits :math:`y_t = a_t + (\kappa - 1)\,b_t`, where :math:`a_t = H(h_t - \theta)` is an event and
:math:`b_t = H(h_t - \theta_b)` a burst.  Replace it by two LIF neurons that fire at :math:`\theta` and at
:math:`\theta_b`.

**Claim.**  If both have the same potential :math:`h_t` at every step, every following linear layer receives
what it received before: :math:`W y_t = W a_t + W\,(\kappa - 1)\,b_t`, where :math:`\kappa - 1` is a number,
or a diagonal matrix with one entry for each neuron.

**Proof.**  Let the neuron *regular* be the LIF neuron with the decay, input, reset and start of the LIFB.
The event :math:`o_t` alone resets a LIFB, and *regular* has the same event, so by induction over :math:`t`
it has the same :math:`h_t` and :math:`a_t = o_t`.  Let *burst* fire at :math:`\theta_b` on that same
potential: either it shares the potential of *regular*, or it integrates the same input and is set to the
potential of *regular* after every step (again by induction, the same :math:`h_t`).  Then its spike is
:math:`b_t` by definition.  The identity is linearity of :math:`W`.  ∎

The coupling cannot be left out: on a regular spike (:math:`\theta \le h_t < \theta_b`) an independent
*burst* would not be reset, and its potential would differ from then on.  With one step only it is moot.

Also exact, though not linear, is max pooling within channels, if all neurons of a channel share one
:math:`\kappa`: since :math:`b \le a` and :math:`\kappa \ge 1`,
:math:`\max y = \max a + (\kappa - 1) \max b`.

This module is framework-free: it follows the output of each LIFB through a network (`find_synapses`) and
doubles the synaptic layers that take it (`folded`).  The faces bring the pairs.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from . import checks

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
SYNAPSES = (nn.Linear, *CONVOLUTIONS)
POOLING = {
    getattr(nn, f"{kind}Pool{n}d"): n
    for kind in ("Avg", "Max", "AdaptiveAvg", "AdaptiveMax")
    for n in (1, 2, 3)
}
PASSING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
READOUTS = {"stack", "cat", "mean", "sum", "getitem", "unsqueeze", "squeeze", "permute", "transpose", "float"}
"""Functions between a bursting layer and the network's output that leave the layer the last one."""
LOOKS = {"size", "dim", "shape", "ndim", "dtype", "device"}
"""What a forward may ask of a tensor without using its values."""


@dataclasses.dataclass(frozen=True)
class Kinds:
    """What a framework's layers are: bursting neurons, all neurons, layers to fold into, layers to pass."""

    bursting: type[nn.Module]
    neurons: tuple[type, ...]
    synapses: tuple[type, ...] = SYNAPSES
    passing: tuple[type, ...] = PASSING
    opaque: Callable[[nn.Module], bool] = lambda module: False
    """Which other modules are not to be looked into."""


@dataclasses.dataclass(frozen=True)
class Synapse:
    """A synaptic layer on its way from a bursting one: its name, and what lies in between."""

    name: str
    flattened_from: int | None = None
    pooled: int = 0
    """Over how many of the last dimensions, if at all."""
    max_pooled: bool = False


class _Tracer(fx.Tracer):
    def __init__(self, kinds: Kinds) -> None:
        super().__init__()
        self.kinds = kinds

    def is_leaf_module(self, m: nn.Module, qualname: str) -> bool:
        return is_leaf(m, self.kinds)


def is_leaf(module: nn.Module, kinds: Kinds) -> bool:
    """Whether a module counts as one layer, whatever is in it."""
    leaves = (kinds.bursting, *kinds.neurons, *SYNAPSES)
    return isinstance(module, leaves) or next(module.children(), None) is None or kinds.opaque(module)


def plain_type(module: nn.Module) -> type:
    """Return the class of a module, that of the original if it is parametrised."""
    return type(module).__bases__[0] if parametrize.is_parametrized(module) else type(module)


def trace(net: nn.Module, kinds: Kinds) -> fx.Graph:
    """Return the graph of `net` with its layers as leaves; tracing runs forward, so hand in a copy."""
    return _Tracer(kinds).trace(net)


def find_synapses(
    net: nn.Module,
    kinds: Kinds,
    returns_tuple: Callable[[Any], bool],
    time_first: Callable[[Any], bool],
) -> dict[str, list[Synapse]]:
    """Return the synaptic layers that take the output of each bursting layer of `net`, by its name.

    An empty list: the layer ends the network (its output is returned, perhaps stacked or averaged).

    Raises
    ------
    ValueError
        `net` cannot be traced, or the output of a bursting layer goes elsewhere: says what and where.
    """
    if isinstance(net, kinds.bursting):
        return {"": []}
    net = copy_of(net)  # a forward may change the network while it is traced
    try:
        graph = trace(net, kinds)
    except Exception as error:
        raise ValueError(
            f"{type(net).__name__} cannot be traced by torch.fx, so the layers after its bursts are not "
            f"known ({type(error).__name__}: {error}); use decouple(net, fold=False), or make its forward "
            "free of loops and branches that depend on the input"
        ) from error
    modules = dict(net.named_modules(remove_duplicate=False))
    found: dict[str, list[Synapse]] = {}
    reached: dict[str, dict[str, set[fx.Node]]] = {}
    for node in graph.nodes:
        if node.op == "call_module" and isinstance(modules[node.target], kinds.bursting):
            walk = _Walk(node.target, modules, kinds, time_first(modules[node.target]))
            walk.follow(node, returns_tuple(modules[node.target]), Synapse(""))
            if walk.ends and walk.synapses:
                raise walk.refusal("is returned as well as passed on", walk.ends[0])
            found.setdefault(node.target, [])
            found[node.target] += [s for s in walk.synapses if s not in found[node.target]]
            for synapse, nodes in walk.reached.items():
                reached.setdefault(node.target, {}).setdefault(synapse, set()).update(nodes)
    for name, synapses in reached.items():
        for synapse, nodes in synapses.items():
            calls = {n for n in graph.nodes if n.op == "call_module" and n.target == synapse}
            if calls - nodes:
                raise ValueError(
                    f"the layer {synapse!r} takes more than the bursts of {name!r}, so its weights cannot be "
                    "doubled for them; use decouple(net, fold=False)"
                )
    return found


class _Walk:
    """Follows one output of a bursting layer through the graph."""

    def __init__(self, name: str, modules: dict[str, nn.Module], kinds: Kinds, time_first: bool) -> None:
        self.name, self.modules, self.kinds, self.time_first = name, modules, kinds, time_first
        self.synapses: list[Synapse] = []
        self.reached: dict[str, set[fx.Node]] = {}
        self.ends: list[fx.Node] = []

    def refusal(self, what: str, node: fx.Node) -> ValueError:
        return ValueError(
            f"the output of {self.name!r} {what} ({self.describe(node)}), so its bursts cannot be folded "
            "into the weights of the next layer; use decouple(net, fold=False), which changes no other layer"
        )

    def describe(self, node: fx.Node) -> str:
        if node.op == "call_module":
            return f"{type(self.modules[str(node.target)]).__name__} at {node.target!r}"
        return f"{_name(node)} in forward"

    def follow(self, node: fx.Node, is_tuple: bool, so_far: Synapse) -> None:
        for user in node.users:
            if is_tuple:
                if user.op == "output":
                    self.ends.append(user)
                elif user.args[1:] == (0,):
                    self.follow(user, False, so_far)
            elif user.op == "call_module":
                self._module(user, so_far)
            elif _name(user) in LOOKS or (_name(user) == "getattr" and user.args[1] in LOOKS):
                continue
            elif (start := _flatten_start(user)) is not None and so_far.flattened_from is None:
                self._flatten(user, start - 1 if self.time_first else start, so_far)
            elif self._only_ends(user):
                self.ends.append(user)
            else:
                raise self.refusal("feeds something that is not linear, or not known to be", user)

    def _flatten(self, user: fx.Node, start: int, so_far: Synapse) -> None:
        self.follow(user, False, dataclasses.replace(so_far, flattened_from=start))

    def _module(self, user: fx.Node, so_far: Synapse) -> None:
        name = str(user.target)
        module = self.modules[name]
        pooled = next((n for kind, n in POOLING.items() if isinstance(module, kind)), 0)
        if plain_type(module) in self.kinds.synapses:
            synapse = dataclasses.replace(so_far, name=name)
            if so_far.pooled and so_far.flattened_from is None and isinstance(module, nn.Linear):
                raise self.refusal("is pooled along the features that it feeds into a linear layer", user)
            if synapse not in self.synapses:
                self.synapses.append(synapse)
            self.reached.setdefault(name, set()).add(user)
        elif isinstance(module, nn.Flatten) and so_far.flattened_from is None:
            multi_step = getattr(module, "step_mode", "s") == "m"
            start = module.start_dim - 1 if self.time_first and not multi_step else module.start_dim
            if start < 0 or module.end_dim != -1:
                raise self.refusal("is flattened otherwise than from the channels on", user)
            self._flatten(user, start, so_far)
        elif pooled and so_far.flattened_from is None:
            max_pooled = so_far.max_pooled or "Max" in type(module).__name__
            pooled = max(pooled, so_far.pooled)
            self.follow(user, False, dataclasses.replace(so_far, pooled=pooled, max_pooled=max_pooled))
        elif isinstance(module, self.kinds.passing):
            self.follow(user, False, so_far)
        else:
            raise self.refusal("feeds something that is not linear, or not known to be", user)

    def _only_ends(self, node: fx.Node) -> bool:
        """Whether nothing but a readout lies between `node` and the network's output."""
        if node.op == "output":
            return True
        known = node.op in ("call_function", "call_method") and _name(node) in READOUTS
        return known and all(self._only_ends(user) for user in node.users)


def _name(node: fx.Node) -> str:
    return str(getattr(node.target, "__name__", node.target))


def _flatten_start(node: fx.Node) -> int | None:
    """Return where a call of ``flatten`` starts, or None if `node` is none."""
    if (node.op, node.target) not in (("call_method", "flatten"), ("call_function", torch.flatten)):
        return None
    start = node.args[1] if len(node.args) > 1 else node.kwargs.get("start_dim", 0)
    end = node.args[2] if len(node.args) > 2 else node.kwargs.get("end_dim", -1)
    return start if isinstance(start, int) and start >= 0 and end == -1 else None


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the two spike trains of a pair are laid side by side: along which dimension, in how many groups.

    `rank` is how many dimensions the trains must have from `dim` on, where the folded weights rely on it.
    """

    dim: int
    groups: int = 1
    rank: int | None = None

    def join(self, regular: Tensor, burst: Tensor) -> Tensor:
        """Return both trains as one tensor with twice the channels, ``[regular, burst]`` in each group."""
        if self.rank is not None and regular.dim() - self.dim != self.rank:
            raise ValueError(
                f"the spikes have shape {tuple(regular.shape)}, but their burst intensities were folded for "
                f"{self.rank} dimensions after the first {self.dim}; use decouple(net, fold=False)"
            )
        if self.groups == 1:
            return torch.cat([regular, burst], self.dim)
        dim = self.dim % regular.dim()
        pair = [train.unflatten(dim, (self.groups, -1)) for train in (regular, burst)]
        return torch.cat(pair, dim + 1).flatten(dim, dim + 1)


def layout(name: str, net: nn.Module, synapses: list[Synapse], intensity: Tensor, factor: Tensor) -> Layout:
    """Return the layout that all `synapses` of the bursting layer `name` can take."""
    layouts = []
    varied = factor * (intensity - 1)
    for synapse in synapses:
        module = net.get_submodule(synapse.name)
        if synapse.max_pooled and bool((factor < 0).any()):
            raise ValueError(
                f"{name!r} has a negative graded_spikes_factor and is followed by max pooling, which picks "
                "other spikes then; use decouple(net, fold=False)"
            )
        if isinstance(module, nn.Linear):
            start = synapse.flattened_from
            rank = synapse.pooled + 1 if synapse.pooled else None
            if varied.numel() > 1:
                rank = len(_stripped(varied))
            layouts.append(Layout(-1) if start is None else Layout(start, rank=rank))
        else:
            assert isinstance(module, CONVOLUTIONS)
            layouts.append(Layout(-1 - len(module.kernel_size), module.groups))
    if len(set(layouts)) > 1:
        raise ValueError(
            f"the output of {name!r} feeds {' and '.join(repr(s.name) for s in synapses)}, which would need "
            "its two spike trains in different orders; use decouple(net, fold=False)"
        )
    return layouts[0]


def folded(name: str, layer: nn.Module, synapse: Synapse, intensity: Tensor, factor: Tensor) -> nn.Module:
    """Return a copy of the synaptic `layer` that takes both spike trains of the bursting layer `name`.

    Its weights are ``[W, (intensity - 1) W]``, both times `factor`, along the input channels.
    """
    new = settled(layer)
    weight = new.weight
    assert isinstance(weight, Tensor)
    groups = layer.groups if isinstance(layer, CONVOLUTIONS) else 1
    inputs = weight.shape[1] * groups
    spatial = weight.dim() - 2 if isinstance(layer, CONVOLUTIONS) else 0
    blocks = []
    for coefficient in torch.broadcast_tensors(factor, factor * (intensity - 1)):
        per_input = _per_input(coefficient.to(weight), inputs, spatial, synapse)
        if per_input is None:
            raise ValueError(
                f"{name!r} has burst intensities of shape {tuple(intensity.shape)}, which differ between "
                f"neurons that {synapse.name!r} weighs alike; use decouple(net, fold=False)"
            )
        rows = per_input.view(groups, 1, -1).expand(-1, weight.shape[0] // groups, -1)
        blocks.append(weight * rows.reshape(weight.shape[0], -1, *[1] * (weight.dim() - 2)))
    new.weight = nn.Parameter(torch.cat(blocks, 1).detach(), requires_grad=weight.requires_grad)
    for attribute in ("in_features", "in_channels"):
        if hasattr(new, attribute):
            setattr(new, attribute, 2 * getattr(new, attribute))
    return new


def _per_input(value: Tensor, inputs: int, spatial: int, synapse: Synapse) -> Tensor | None:
    """Return one coefficient per input channel of a layer, or None if there is not just one."""
    value = value.detach()
    if value.numel() == 1:
        return value.reshape(1).expand(inputs)
    shape = _stripped(value)
    if synapse.flattened_from is None and not synapse.pooled:
        per_channel = shape[0] == inputs and all(n == 1 for n in shape[1:]) and len(shape) == 1 + spatial
        return value.reshape(inputs) if per_channel else None
    if len(shape) > 1 and all(n == 1 for n in shape[1:]) and inputs % shape[0] == 0:  # one per channel
        return value.reshape(-1).repeat_interleave(inputs // shape[0])
    return value.reshape(inputs) if value.numel() == inputs and not synapse.pooled else None


def _stripped(value: Tensor) -> list[int]:
    """Return the shape of `value` without leading ones."""
    shape = list(value.shape)
    while len(shape) > 1 and shape[0] == 1:
        shape.pop(0)
    return shape


def replace(net: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` wherever `net` has the submodule `name`, under other names too."""
    old = net.get_submodule(name)
    for place, present in list(net.named_modules(remove_duplicate=False)):
        if present is old:
            parent, _, child = place.rpartition(".")
            setattr(net.get_submodule(parent), child, module)


def refuse_shared(net: nn.Module, layers: Mapping[str, nn.Module]) -> None:
    """Raise if one of `layers` of `net` stands at two places, which an export cannot say."""
    for name, module in net.named_modules(remove_duplicate=False):
        if name not in layers and any(module is layer for layer in layers.values()):
            raise NotImplementedError(
                f"the layer {name!r} stands at two places; export a network without sharing"
            )


def copy_of(net: nn.Module) -> nn.Module:
    """Return a deep copy whose states and computed weights have left their graph behind."""
    memo: dict[int, Any] = {}
    for module in net.modules():
        for value in _tensors(list(vars(module).values())):
            if value.grad_fn is not None:
                memo[id(value)] = value.detach().clone()
    try:
        return copy.deepcopy(net, memo)
    except RuntimeError as error:
        raise RuntimeError(
            f"{type(net).__name__} holds a live graph, which cannot be copied ({error}); reset the network, "
            "and let it keep no tensors of a forward in objects of its own"
        ) from error


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested containers."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple, set, Mapping)):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(inner)


def settled(layer: nn.Module) -> nn.Module:
    """Return a copy of `layer` with its weights as parameters, if they were pruned, normalised or computed.

    They keep the values that they have now.
    """
    new = copy_of(layer)
    if parametrize.is_parametrized(new):  # by hand, for torch would take the class of the original apart
        values = {name: getattr(new, name).detach() for name in new.parametrizations}  # type: ignore[union-attr]
        new.__class__ = plain_type(new)
        del new.parametrizations
        for name, value in values.items():
            new.register_parameter(name, nn.Parameter(value))
    for hook in list(new._forward_pre_hooks.values()):
        if isinstance(hook, prune.BasePruningMethod):
            prune.remove(new, hook._tensor_name)
        elif isinstance(hook, WeightNorm):
            nn.utils.remove_weight_norm(new, hook.name)
        elif isinstance(hook, SpectralNorm):
            nn.utils.remove_spectral_norm(new, hook.name)
    return new


def decoupled(
    net: nn.Module,
    pair: Callable[[Any, Layout | None], nn.Module],
    kinds: Kinds,
    fold: bool,
    returns_tuple: Callable[[Any], bool] = lambda module: False,
    time_first: Callable[[Any], bool] = lambda module: False,
    factor: Callable[[Any], Tensor] = lambda module: torch.ones(()),
) -> nn.Module:
    """Return a copy of `net` with a `pair` for each bursting layer; see the faces' `decouple`."""
    checks.network("net", net)
    fold = checks.flag("fold", fold)
    names = [name for name, module in net.named_modules() if isinstance(module, kinds.bursting)]
    if not names:
        raise ValueError(f"{type(net).__name__} has no {kinds.bursting.__name__} layer to decouple")
    synapses = find_synapses(net, kinds, returns_tuple, time_first) if fold else {}
    missing = [name for name in names if fold and name not in synapses]
    if missing:
        raise ValueError(f"forward does not use the layer {missing[0]!r}; use decouple(net, fold=False)")
    replacements: dict[str, nn.Module] = {}
    for name in names:
        layer: Any = net.get_submodule(name)
        taken = synapses.get(name, [])
        intensity, scale = layer.burst_intensity.detach(), factor(layer).detach()
        replacements[name] = pair(layer, layout(name, net, taken, intensity, scale) if taken else None)
        for synapse in taken:
            if synapse.name in replacements:
                raise ValueError(
                    f"the layer {synapse.name!r} takes the bursts of several layers, so its weights cannot "
                    "be doubled for them; use decouple(net, fold=False)"
                )
            replacements[synapse.name] = folded(
                name, net.get_submodule(synapse.name), synapse, intensity, scale
            )
    if names == [""]:
        return replacements[""]
    new = copy_of(net)
    for name, module in replacements.items():
        replace(new, name, module)
    return new
