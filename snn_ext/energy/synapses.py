r"""How many synapses each neuron drives, counted on the network as it runs.

The network runs once on a sample.  What a spiking layer emits is followed through everything that only moves,
merges or scales spikes, up to the layers that multiply it by weights; there each weight that a neuron meets
is one synapse.  For a convolution this is a transposed convolution of ones, so borders, stride, dilation and
groups count as they are.

==============================  ================================================================
on the way                      a spike of one neuron
==============================  ================================================================
Linear, convolutions            meets each of its weights there: these are counted, and it ends
pooling, averages               arrives in every window that it lies in
batch norm, dropout, factors    passes
ReLU and alike, :math:`f(0)=0`  passes
moved, copied, concatenated     goes where it is put, as often as it is put there
added (residuals)               goes on with the others; several consumers add up
another spiking layer           ends without a synapse
==============================  ================================================================

Zero weights count too.  Anything else is refused, with its name and place.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

from . import layers
from .layers import Layer

__all__ = ["fan_out"]

_MOVES = frozenset(
    [
        "T",
        "__get__",
        "__getitem__",
        "broadcast_tensors",
        "broadcast_to",
        "cat",
        "chunk",
        "clone",
        "concat",
        "concatenate",
        "contiguous",
        "channel_shuffle",
        "expand",
        "expand_as",
        "flatten",
        "flip",
        "gather",
        "hstack",
        "index_select",
        "mT",
        "movedim",
        "moveaxis",
        "narrow",
        "pad",
        "permute",
        "pixel_shuffle",
        "pixel_unshuffle",
        "repeat",
        "repeat_interleave",
        "reshape",
        "reshape_as",
        "roll",
        "select",
        "split",
        "split_with_sizes",
        "squeeze",
        "stack",
        "sum",
        "swapaxes",
        "swapdims",
        "t",
        "take_along_dim",
        "tensor_split",
        "tile",
        "transpose",
        "unbind",
        "unflatten",
        "unfold",
        "unsqueeze",
        "view",
        "view_as",
        "vstack",
    ]
)
"""What puts elements elsewhere or adds them up: its own gradient counts."""
_ADDS = frozenset(
    [
        "add",
        "__add__",
        "__radd__",
        "__iadd__",
        "sub",
        "__sub__",
        "__rsub__",
        "__isub__",
        "rsub",
        "subtract",
    ]
)
_SCALES = frozenset(
    [
        "mul",
        "mul_",
        "__mul__",
        "__rmul__",
        "__imul__",
        "multiply",
        "div",
        "div_",
        "__div__",
        "__truediv__",
        "__itruediv__",
        "divide",
        "true_divide",
        "neg",
        "__neg__",
        "negative",
    ]
)
_PASSES = frozenset(
    [
        "abs",
        "alpha_dropout",
        "batch_norm",
        "celu",
        "clamp",
        "clamp_",
        "detach",
        "detach_",
        "double",
        "dropout",
        "dropout1d",
        "dropout2d",
        "dropout3d",
        "dropout_",
        "elu",
        "feature_alpha_dropout",
        "feature_dropout",
        "float",
        "gelu",
        "hardtanh",
        "leaky_relu",
        "relu",
        "relu6",
        "relu_",
        "requires_grad_",
        "selu",
        "silu",
        "tanh",
        "to",
        "type",
        "type_as",
    ]
)
"""Element by element, zero to zero: the spike passes."""
_SYNAPSES = frozenset(
    ["linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"]
)
_WRITES = frozenset(
    [
        "__setitem__",
        "add_",
        "sub_",
        "copy_",
        "index_add_",
        "index_copy_",
        "index_put_",
        "scatter_",
        "scatter_add_",
    ]
)
_PRODUCTS = frozenset(
    ["matmul", "mm", "bmm", "__matmul__", "__rmatmul__", "baddbmm", "addmm", "einsum", "bilinear"]
)
_REMEDY = "write it with the layers listed in snn_ext.energy.synapses, or count the parts around it"


def fan_out(net: nn.Module, sample_input: Any) -> dict[str, Tensor]:
    """Count the synapses that each neuron of `net` drives.

    Parameters
    ----------
    net : nn.Module
        A network with spiking layers of snnTorch, SpikingJelly or this package, single- or multi-step, as it
        is; it is run once in evaluation mode, and left as it was found.
    sample_input : Tensor, or tuple of arguments
        What `net` is called with; one sample is enough.

    Returns
    -------
    dict of str to Tensor
        For each spiking layer by its name in `net`, the number of synapses of each neuron: a tensor of the
        shape of the neurons of one sample, e.g. (C, H, W).  Where the steps of the sample differ (a
        recurrent connection drives nothing after the last), the largest counts.

    Warns
    -----
    UserWarning
        The spikes of a layer go nowhere: into no synapse, no other layer, and not out of the network.

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        `net` has no spiking layer, does not take the sample, or does with spikes what cannot be counted
        (attention, products of spikes, neurons with synapses of their own), by name and place.

    Notes
    -----
    See `snn_ext.energy.synapses` for what a spike meets on its way.  Psi in arXiv:2302.01500; counting
    through pooling and additions is inferred.

    Examples
    --------
    With a layer ``"1"`` of neurons before a 3 x 3 convolution of 8 channels::

        psi = fan_out(net, images[:1])["1"]  # 72 inside, 48 at the borders, 32 in the corners
    """
    return Wiring(net, sample_input).fan_out()


class Synapse:
    """The connections of one layer of weights: how many each neuron drives, by spiking layer."""

    def __init__(self, name: str, kind: str) -> None:
        self.name, self.kind = name, kind
        self.total: Tensor | None = None
        """The sum over all that has arrived, whose gradient is the number of synapses."""
        self.dense = 0
        """Multiplications of a run on the sample, were nothing sparse."""
        self.drives: dict[str, Tensor] = {}
        self.places = 0
        """How often the weights were used on the sample, as a whole."""
        self._weight: tuple[Tensor, dict[str, Any]] | None = None

    def arrive(self, x: Tensor, weight: Tensor, options: dict[str, Any]) -> None:
        """Note that `x` meets the weights."""
        self._weight = weight, options
        self.places += x.numel() // weight.shape[1] if self.kind == "linear" else len(x)
        self.dense += self.meets(torch.ones_like(x))

    def meets(self, x: Tensor) -> int:
        """Return how many weights `x` meets, each of its elements counted by its value; steps may lead it."""
        assert self._weight is not None
        weight, options = self._weight
        x = x.double()
        if self.kind != "linear" and x.dim() > weight.dim():
            x = x.flatten(0, x.dim() - weight.dim())
        return round(float(_met(self.kind, x, weight, options).sum()))


class Wiring:
    """The synapses of a network, found by running it on a sample."""

    def __init__(self, net: nn.Module, sample_input: Any, needed: bool = True) -> None:
        self.layers = layers.spiking(net, needed)
        net = getattr(net, "_orig_mod", net)
        inputs = sample_input if isinstance(sample_input, tuple) else (sample_input,)
        inputs = tree_map(lambda x: x.detach() if isinstance(x, Tensor) else x, inputs)
        tracer = _Tracer(net)
        self.batch = next((len(x) for x in _tensors(inputs) if x.dim()), 1)  # until a spiking layer tells
        with layers.untouched(net):
            layers.reset(net)
            net.eval()
            returned = tracer.run(net, self.layers, inputs)
            self.synapses = list(tracer.synapses.values())
            self._count(tracer, returned)

    def _count(self, tracer: _Tracer, returned: list[Tensor]) -> None:
        self.shapes: dict[str, torch.Size] = {}
        consumed = set(tracer.consumed)
        steps: dict[str, int] = {}
        for layer, leading, leaf in tracer.leaves:
            self.shapes.setdefault(layer.name, leaf.shape[leading:])
            steps[layer.name] = steps.get(layer.name, 0) + (leaf.shape[0] if leading == 2 else 1)
            self.batch = leaf.shape[leading - 1]
        self.steps = max(steps.values(), default=1)
        leaves = [leaf for *_, leaf in tracer.leaves]
        for synapse in self.synapses:
            if synapse.total is None:
                continue
            found = torch.autograd.grad(synapse.total, leaves, retain_graph=True, allow_unused=True)
            for (layer, leading, _), grad in zip(tracer.leaves, found, strict=True):
                if grad is None:
                    continue
                consumed.add(layer.name)
                most = grad.round().flatten(0, leading - 1).amax(0)
                before = synapse.drives.get(layer.name)
                synapse.drives[layer.name] = most if before is None else torch.maximum(before, most)
            synapse.total = None
        for tensor in returned:
            with torch.enable_grad():
                found = torch.autograd.grad(tensor.sum(), leaves, retain_graph=True, allow_unused=True)
            consumed |= {
                layer.name for (layer, *_), g in zip(tracer.leaves, found, strict=True) if g is not None
            }
        for name in self.shapes.keys() - consumed:
            warnings.warn(
                f"layer {name!r}: nothing consumes its spikes, so they are counted as driving no synapse",
                stacklevel=4,
            )

    def twin(self, synapse: Synapse) -> float:
        """Return the multiplications of a sample in a network without spikes and time."""
        whole = self.batch * self.steps
        return synapse.dense / (whole if synapse.places % whole == 0 else self.batch)

    def fan_out(self) -> dict[str, Tensor]:
        """Return the number of synapses of each neuron, by layer."""
        found = {name: torch.zeros(shape) for name, shape in self.shapes.items()}
        for synapse in self.synapses:
            for name, psi in synapse.drives.items():
                found[name] = found[name].to(psi.device) + psi
        return found


class _Tracer(TorchFunctionMode):
    """Follows spikes by autograd: values are those of the network, gradients count synapses."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.leaves: list[tuple[Layer, int, Tensor]] = []
        self.synapses: dict[str, Synapse] = {}
        self.consumed: list[str] = []
        self._weights = {id(parameter): name for name, parameter in net.named_parameters()}
        self._places: list[str] = []
        self._paused = False

    def run(self, net: nn.Module, spiking: list[Layer], inputs: tuple[Any, ...]) -> list[Tensor]:
        """Run `net`, and return the tensors of its result that carry spikes."""
        hooks = []
        for name, module in net.named_modules():
            hooks.append(module.register_forward_pre_hook(self._enter(name)))
            hooks.append(module.register_forward_hook(self._leave, always_call=True))
        for layer in spiking:
            self._wrap(layer, "forward", None)
            for method in layer.over_steps:
                self._wrap(layer, method, 2)
        device = next((x.device.type for x in tree_flatten(inputs)[0] if isinstance(x, Tensor)), "cpu")
        devices: list[int] | None = [] if device == "cpu" else None
        try:
            with (
                torch.random.fork_rng(devices=devices),
                torch.no_grad(),
                torch.autocast(device, enabled=False),
                self,
            ):
                result = net(*inputs)
        finally:
            for hook in hooks:
                hook.remove()
        return [tensor for tensor in tree_flatten(result)[0] if _followed(tensor)]

    def _enter(self, name: str) -> Callable[..., None]:
        return lambda module, inputs: self._places.append(name)

    def _leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._places.pop()

    def _wrap(self, layer: Layer, method: str, leading: int | None) -> None:
        """Make spikes of a layer leaves; `layers.untouched` takes the wrapper away."""
        inner = getattr(layer.module, method)

        def run(*args: Any, **kwargs: Any) -> Any:
            if self._paused:
                return inner(*args, **kwargs)
            self._paused = True  # also for the questions asked here
            try:
                for x in filter(_followed, _tensors((args, kwargs))):
                    self._reached(x)
                output = inner(*_plain(args), **_plain(kwargs))
            finally:
                self._paused = False
            y = output[0] if isinstance(output, tuple) else output
            leaf = self._leaf(layer, y, layer.leading if leading is None else leading)
            return (leaf, *output[1:]) if isinstance(output, tuple) else leaf

        object.__setattr__(layer.module, method, run)

    def _leaf(self, layer: Layer, y: Tensor, leading: int) -> Tensor:
        if y.dtype in (torch.float16, torch.bfloat16):
            raise TypeError(
                f"layer {layer.name!r} emits {y.dtype}, in which synapses cannot be counted exactly; give a "
                "network and a sample in float32"
            )
        if y.dim() <= leading:
            raise ValueError(
                f"layer {layer.name!r} emits a tensor of shape {tuple(y.shape)}, of which the first "
                f"{leading} dimension(s) are taken for {'steps and ' if leading == 2 else ''}batch; give the "
                "sample a batch dimension"
            )
        leaf = y.detach().clone().requires_grad_()
        self.leaves.append((layer, leading, leaf))
        return leaf

    def _reached(self, x: Tensor) -> None:
        """Note the layers whose spikes another spiking layer takes in."""
        leaves = [leaf for *_, leaf in self.leaves]
        with torch.enable_grad():
            found = torch.autograd.grad(x.sum(), leaves, retain_graph=True, allow_unused=True)
        self.consumed += [
            layer.name for (layer, *_), g in zip(self.leaves, found, strict=True) if g is not None
        ]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._paused:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", str(func))
        followed = [x for x in _tensors((args, kwargs)) if _followed(x)]
        if name in _SYNAPSES:
            return self._synapse(func, name, args, kwargs)
        if not followed or name.endswith("_like") or name.startswith("new_"):
            return func(*_plain(args), **_plain(kwargs))
        if name == "multi_head_attention_forward" or name == "scaled_dot_product_attention":
            self._refuse(name, "attention multiplies spikes by spikes, and is left out of the count")
        if name in _PRODUCTS:
            return self._product(func, name, args, kwargs)
        if name in _WRITES:
            self._refuse(name, "spikes are written in place, where they cannot be followed (try x = x + y)")
        value = func(*_plain(args), **_plain(kwargs))
        if not any(_counts(x) for x in _tensors(value)):
            return value
        with torch.enable_grad():
            return self._followed(func, name, args, kwargs, followed, value)

    def _followed(
        self, func: Any, name: str, args: Any, kwargs: Any, followed: list[Tensor], value: Any
    ) -> Any:
        if name in _MOVES:
            return func(*args, **kwargs)
        if name in _ADDS:
            return _with_gradient(value, sum(x.expand(value.shape) for x in followed))  # type: ignore[arg-type]
        if name in _SCALES:
            if len(followed) > 1:
                self._refuse(name, "spikes are multiplied by spikes, which is no synapse")
            return _with_gradient(value, followed[0].expand(value.shape))
        if name in _PASSES:
            return _with_gradient(value, followed[0])
        if name in _POOLS:
            first = value[0] if isinstance(value, tuple) else value
            passed = _with_gradient(first, _POOLS[name](self, *args, **kwargs))
            return (passed, *value[1:]) if isinstance(value, tuple) else passed
        if name == "mean":
            summed = func(*args, **kwargs)
            return _with_gradient(value, summed * (followed[0].numel() // summed.numel()))
        if name == "interpolate" and kwargs.get("mode", args[3] if len(args) > 3 else "nearest") == "nearest":
            return func(*args, **kwargs)
        self._refuse(name, "it is not known how many synapses a spike drives through it")

    def _synapse(self, func: Any, name: str, args: Any, kwargs: Any) -> Tensor:
        names = ("input", "weight", "bias", *_AFTER.get(name, _AFTER["conv"]))
        given = dict(zip(names, args, strict=False)) | kwargs
        x, weight = given["input"], given["weight"]
        value = func(*_plain(args), **_plain(kwargs))
        if _followed(weight):
            self._refuse(name, "spikes serve as weights, which is left out of the count")
        options = {key: given[key] for key in names[3:] if key in given}
        synapse = self._at(weight, name)
        synapse.arrive(x.detach(), weight, options)
        if _followed(x):
            with torch.enable_grad():
                met = _met(name, x, weight, options).sum()
                synapse.total = met if synapse.total is None else synapse.total + met
        return value

    def _product(self, func: Any, name: str, args: Any, kwargs: Any) -> Tensor:
        """Count a product with a matrix of weights, on its right, as a linear layer."""
        x, weight = args[:2] if len(args) > 1 else (None, None)
        fits = name in ("matmul", "mm", "__matmul__") and isinstance(weight, Tensor) and weight.dim() == 2
        if not fits or _followed(weight):
            self._refuse(name, "attention and other products of spikes are left out of the count")
        assert isinstance(weight, Tensor)
        synapse = self._at(weight, "linear")
        synapse.arrive(x.detach(), weight.t(), {})  # type: ignore[union-attr]
        with torch.enable_grad():
            met = x.sum() * weight.shape[1]  # type: ignore[union-attr]
            synapse.total = met if synapse.total is None else synapse.total + met
        return func(*_plain(args), **_plain(kwargs))

    def _at(self, weight: Tensor, name: str) -> Synapse:
        """Return the synapses of a weight, by the name of its layer."""
        place = self._places[-1] if self._places else ""
        known = self._weights.get(id(weight))
        path = f"{place}.{name}".lstrip(".") if known is None else known.removesuffix("weight").rstrip(".")
        return self.synapses.setdefault(path or name, Synapse(path or name, name))

    def _refuse(self, name: str, why: str) -> None:
        place = self._places[-1] if self._places else ""
        raise NotImplementedError(f"{name} in {place or 'the network'!r}: {why}; {_REMEDY}")


_CONVOLUTION = ("stride", "padding", "dilation", "groups")
_AFTER = {
    "linear": (),
    "conv": _CONVOLUTION,
    **{
        f"conv_transpose{d}d": ("stride", "padding", "output_padding", "groups", "dilation")
        for d in (1, 2, 3)
    },
}


def _met(name: str, x: Tensor, weight: Tensor, options: dict[str, Any]) -> Tensor:
    """Return the weights that `x` meets, where each of its elements counts by its value."""
    if name == "linear":
        return x * weight.shape[0]
    groups = options.get("groups", 1)
    if "transpose" in name:
        ones = x.new_ones(weight.shape[0], 1, *weight.shape[2:])
        alike = weight.shape[1]
    else:
        ones = x.new_ones(groups, *weight.shape[1:])
        alike = weight.shape[0] // groups
    return getattr(functional, name)(x, ones, None, **options) * alike


def _tensors(tree: Any) -> Iterator[Tensor]:
    return (x for x in tree_flatten(tree)[0] if isinstance(x, Tensor))


def _followed(x: Any) -> bool:
    """Whether spikes arrive in `x`: without gradients, nothing else has a graph."""
    return isinstance(x, Tensor) and x.requires_grad and not isinstance(x, nn.Parameter)


def _counts(x: Tensor) -> bool:
    return x.is_floating_point()


def _plain(tree: Any) -> Any:
    return tree_map(lambda x: x.detach() if _followed(x) else x, tree)


def _with_gradient(value: Tensor, passed: Tensor) -> Tensor:
    """Return `value` with the gradient of `passed`."""
    return value.detach() + (passed - passed.detach()).to(value.dtype)


def _windows(dims: int) -> Callable[..., Tensor]:
    """Return what sums up the windows of pooling over `dims` dimensions."""

    def pooled(
        tracer: _Tracer,
        input: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        *rest: Any,
        **options: Any,
    ) -> Tensor:
        names = (
            ("dilation", "ceil_mode", "return_indices") if options.pop("maximum", False) else ("ceil_mode",)
        )
        options = dict(zip(names, rest, strict=False)) | options
        dilation = options.get("dilation", 1)
        if any(d != 1 for d in (dilation if isinstance(dilation, (tuple, list)) else (dilation,))):
            tracer._refuse("max_pool", "pooling with dilation is not known here")
        ceil = options.get("ceil_mode", False)
        sizes = (kernel_size, kernel_size if stride is None or stride == [] else stride, padding)
        if dims == 1:  # there is no divisor_override
            k, s, p = ((1, _one(size)) if i < 2 else (0, _one(size)) for i, size in enumerate(sizes))
            return functional.avg_pool2d(input.unsqueeze(-2), k, s, p, ceil, divisor_override=1).squeeze(-2)
        pool = functional.avg_pool2d if dims == 2 else functional.avg_pool3d
        return pool(input, *sizes, ceil, divisor_override=1)

    return pooled


def _one(size: Any) -> int:
    return size if isinstance(size, int) else size[0]


def _maxima(dims: int) -> Callable[..., Tensor]:
    windows = _windows(dims)
    return lambda *args, **options: windows(*args, **options, maximum=True)


def _adaptive(dims: int) -> Callable[..., Tensor]:
    """Return what sums up the windows of adaptive pooling over `dims` dimensions."""

    def pooled(tracer: _Tracer, input: Tensor, output_size: Any, *rest: Any, **options: Any) -> Tensor:
        sizes = [output_size] * dims if isinstance(output_size, int) else list(output_size)
        for place, size in enumerate(sizes):
            dim = input.dim() - dims + place
            length = input.shape[dim]
            size = length if size is None else size
            window = input.new_zeros(size, length)
            for i in range(size):
                window[i, i * length // size : math.ceil((i + 1) * length / size)] = 1
            input = (input.movedim(dim, -1) @ window.T).movedim(-1, dim)
        return input

    return pooled


_POOLS: dict[str, Callable[..., Tensor]] = {}
for _dims in (1, 2, 3):
    _POOLS[f"avg_pool{_dims}d"] = _windows(_dims)
    _POOLS[f"max_pool{_dims}d"] = _POOLS[f"max_pool{_dims}d_with_indices"] = _maxima(_dims)
    _POOLS[f"adaptive_avg_pool{_dims}d"] = _POOLS[f"adaptive_max_pool{_dims}d"] = _adaptive(_dims)
    _POOLS[f"adaptive_max_pool{_dims}d_with_indices"] = _adaptive(_dims)
