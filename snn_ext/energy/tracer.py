"""Spikes followed through a network as it runs, from the layers that emit them to the weights they meet.

Nothing is asked of the tensors themselves: what arrives in a tensor is kept by its memory, so every view of
it, and what is written into it in place, is known by what made it.  A `Trace` says which spikes arrive in
each element, and where there is something else.  The count is a gradient: beside the values runs a graph in
which each spike is one, whatever its size, so the gradient of all that meets weights is the number of
synapses.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

from . import layers
from .layers import Layer
from .products import UNKNOWN, Product, binary, products

_ALIASES = {
    "iadd": "add",
    "radd": "add",
    "isub": "sub",
    "subtract": "sub",
    "imul": "mul",
    "rmul": "mul",
    "multiply": "mul",
    "truediv": "div",
    "itruediv": "div",
    "idiv": "div",
    "divide": "div",
    "true_divide": "div",
    "negative": "neg",
    "imatmul": "matmul",
}
"""Other names of functions, without the underscores of operators and of those that work in place."""
_MOVES = frozenset(
    [
        "T",
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
        "getitem",
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
_ADDS = frozenset(["add", "sub", "rsub"])
_SCALES = frozenset(["mul", "div", "neg"])
_PASSES = frozenset(
    [
        "abs",
        "alpha_dropout",
        "batch_norm",
        "bool",
        "celu",
        "clamp",
        "cpu",
        "cuda",
        "detach",
        "double",
        "dropout",
        "dropout1d",
        "dropout2d",
        "dropout3d",
        "elu",
        "feature_alpha_dropout",
        "feature_dropout",
        "float",
        "gelu",
        "hardtanh",
        "int",
        "leaky_relu",
        "long",
        "relu",
        "relu6",
        "selu",
        "silu",
        "tanh",
        "to",
        "type",
        "type_as",
    ]
)
"""Element by element, zero to zero: the spike passes.  A batch norm is folded into the weights."""
_CASTS = frozenset(["to", "type", "type_as"])
_TAKES = frozenset(["getitem", "gather", "index_select", "take_along_dim"])
_WRITES = {
    "setitem": 2,
    "copy": 1,
    "index_add": 3,
    "index_copy": 3,
    "index_put": 2,
    "masked_fill": 2,
    "masked_scatter": 2,
    "scatter": 3,
    "scatter_add": 3,
}
"""What puts values into a part of a tensor, and which of its arguments they are."""
_SILENT = frozenset(["zeros", "zeros_like", "new_zeros", "zero", "empty", "empty_like", "new_empty"])
_FILLED = frozenset(["full", "full_like", "new_full"])
_LIKE = frozenset(["ones_like", "rand_like", "randn_like", "randint_like", "new_ones", "new_tensor", "fill"])
_GIVEN = frozenset(["tensor", "as_tensor", "asarray", "from_numpy", "frombuffer"])
_DRAWN = frozenset(["rand", "randn", "randint", "randperm", "normal", "bernoulli", "poisson", "multinomial"])
"""What makes tensors of what is not seen, or of chance: no constants."""
_KEEPS = _MOVES | _ADDS | _SCALES | _PASSES | frozenset(["mean"])
"""What leaves products of activity and weights, element by element, to be added up."""
REMEDY = "write it with the layers listed in snn_ext.energy.synapses, or count the parts around it"
_LONGEST = 32
"""Calls for which spikes may stay in the states between layers, such as delays."""


class Trace(NamedTuple):
    """What arrives in the elements of a tensor, or of its memory."""

    arrived: Tensor | None
    """A sum over spikes, for its gradient; None if no spike arrives as such."""
    other: Tensor | bool
    """Which elements hold something else than spikes; True is all of them."""
    sources: frozenset[str]
    """The layers whose spikes arrive in whatever form."""
    why: str = ""
    """What has made something else of spikes, if anything."""
    bound: bool = False
    """Whether each spike that arrives counts at most: some are held back, and a measurement tells."""


DATA = Trace(None, True, frozenset())
"""What depends on the input of the network, and not on spikes."""
SILENCE = Trace(None, False, frozenset())
"""Zeros, into which spikes may be put."""


class _Traces:
    """Traces by the memory of the tensors, so that views of one see the same."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Any, int, Trace]] = {}

    def of(self, x: Tensor) -> Trace | None:
        """Return the trace of a tensor, or None for a constant."""
        storage = _storage(x)
        found = None if storage is None else self._known.get(storage._cdata)
        if found is None:
            return None
        _, size, trace = found
        if size != x.element_size():
            return Trace(None, True, trace.sources, trace.why or "a view as another type")
        with torch.enable_grad():
            arrived = None if trace.arrived is None else _seen(trace.arrived, x)
        other = trace.other
        if isinstance(other, Tensor):
            other = _seen(other, x)
            other = True if bool(other.all()) else other if bool(other.any()) else False
        return trace._replace(arrived=arrived, other=other)

    def put(self, x: Tensor, trace: Trace) -> None:
        """Note what arrives in a tensor, and leave the rest of its memory as it was."""
        storage = _storage(x)
        if storage is None:
            return
        length = storage.nbytes() // x.element_size()
        found = self._known.get(storage._cdata)
        before = found[2] if found else Trace(None, True, frozenset())
        whole = x.numel() == length
        with torch.enable_grad():
            arrived: Tensor | None = None
            rest = None if whole else before.arrived
            if trace.arrived is not None or rest is not None:
                flat = x.new_zeros(length, dtype=torch.float32) if rest is None else rest
                here = x.new_zeros(x.shape, dtype=torch.float32) if trace.arrived is None else trace.arrived
                arrived = _scattered(flat, here, x)
            other: Tensor | bool = trace.other
            if not isinstance(other, bool) or not (whole or before.other is other):
                flags = torch.full((length,), True, device=x.device)
                if not whole:
                    flags = flags & before.other
                here = torch.as_tensor(other, device=x.device).expand(x.shape)
                other = _scattered(flags.float(), here.float(), x) > 0
        sources = trace.sources if whole else trace.sources | before.sources
        why = trace.why if whole else trace.why or before.why
        kept = Trace(arrived, other, sources, why, trace.bound or (before.bound and not whole))
        self._known[storage._cdata] = storage, x.element_size(), kept


class _Weights:
    """What is made of parameters and buffers alone, and what activity is where it is multiplied by such.

    Both are kept by memory, as traces are.
    """

    def __init__(self, net: nn.Module) -> None:
        self._constants: dict[Any, tuple[Any, bool, bool]] = {}
        """Memory, whether it is made of parameters or buffers, and whether of parameters."""
        for learned, tensors in ((False, net.buffers()), (True, net.parameters())):
            for x in tensors:
                self._constants[_memory(x)] = x, True, learned
        self._times: dict[Any, tuple[Any, Tensor]] = {}
        """Memory of products, and the number of the weight in each element."""

    def constant(self, x: Tensor) -> bool:
        """Whether a tensor is the same whatever the input."""
        return _memory(x) in self._constants

    def holds(self, x: Tensor) -> bool:
        """Whether a tensor is a parameter or a buffer, or made of such alone."""
        return self._constants.get(_memory(x), (x, False, False))[1]

    def learned(self, x: Tensor) -> bool:
        """Whether parameters are in what it is made of."""
        return self._constants.get(_memory(x), (x, False, False))[2]

    def note(self, name: str, given: list[Tensor], made: list[Tensor]) -> None:
        """Note what a function has made or written: a constant if all that it takes is one."""
        drawn = name.removesuffix("_like") in _DRAWN or (not given and name in _GIVEN)
        fixed = not drawn and all(map(self.constant, given))
        held, learned = any(map(self.holds, given)), any(map(self.learned, given))
        for x in made:
            storage = _storage(x)
            if fixed and storage is not None:
                self._constants[_memory(x)] = storage, held, learned
            else:
                self._constants.pop(_memory(x), None)

    def multiply(self, weight: Tensor, product: Tensor) -> None:
        """Note by which weight each element of a product is multiplied."""
        numbers = torch.arange(1.0, weight.numel() + 1, device=weight.device, dtype=torch.float64)
        numbers = numbers.view(weight.shape).expand(product.shape)
        before = self.numbers(product)
        self._keep(product, numbers if before is None else numbers + math.pi * before)

    def _keep(self, x: Tensor, numbers: Tensor) -> None:
        storage = _storage(x)
        if storage is not None:
            flat = numbers.new_zeros(storage.nbytes() // x.element_size())
            self._times[_memory(x)] = storage, _scattered(flat, numbers, x)

    def numbers(self, x: Tensor) -> Tensor | None:
        """Return by which weight each element is multiplied, or None."""
        found = self._times.get(_memory(x))
        if found is None or found[1].numel() * x.element_size() != found[0].nbytes():
            return None
        return _seen(found[1], x)

    def follow(self, func: Any, name: str, args: Any, kwargs: Any, target: Tensor) -> bool:
        """Follow products through a function; return whether it adds up those with different weights."""
        found = {id(x): n for x in _tensors((args, kwargs)) if (n := self.numbers(x)) is not None}
        if not found or name not in _KEEPS:
            self._times.pop(_memory(target), None)
            return False
        if name in ("sum", "mean"):
            numbers, rest = next(iter(found.values())), args[1:]
            dim = kwargs.get("dim", rest[0] if rest else None)
            dim = tuple(range(numbers.dim())) if dim is None else dim
            keep = kwargs.get("keepdim", rest[1] if len(rest) > 1 else False)
            least, most = numbers.amin(dim, keep), numbers.amax(dim, keep)
            self._keep(target, most)
            return not torch.equal(least, most)
        if name in _MOVES:

            def swap(x: Any) -> Any:
                if not isinstance(x, Tensor) or not x.is_floating_point():
                    return x
                return found.get(id(x), torch.zeros_like(x, dtype=torch.float64))

            args, kwargs = tree_map(swap, (args, kwargs))
            self._keep(target, next(_tensors(func(*args, **kwargs))))
        else:
            self._keep(target, torch.stack([n.expand(target.shape) for n in found.values()]).sum(0))
        return False


def _storage(x: Tensor) -> Any:
    try:
        return x.untyped_storage()
    except (NotImplementedError, RuntimeError):  # sparse and the like
        return None


def _seen(flat: Tensor, x: Tensor) -> Tensor:
    if x.numel() == flat.numel() and x.is_contiguous():
        return flat.view(x.shape)
    return flat.as_strided(x.size(), x.stride(), x.storage_offset())


def _scattered(flat: Tensor, here: Tensor, x: Tensor) -> Tensor:
    if x.numel() == flat.numel() and x.is_contiguous():
        return here.reshape(-1)
    flat = flat.clone()  # torch.as_strided_scatter has a wrong gradient (2.14)
    flat.as_strided(x.size(), x.stride(), x.storage_offset()).copy_(here)
    return flat


class Call(NamedTuple):
    """One use of weights in a run: what there is to be counted by its value."""

    place: int | None
    """Which factor is the input; None if both are activity."""
    value: bool
    """Whether something is counted by its value."""
    mask: Tensor | None
    """Which elements of a sample, the last dimensions of the input; None for all."""
    spikes: bool = False
    """Whether they are spikes still, of which some are held back."""


class Meeting:
    """All that meets the weights of one place while the tracer runs."""

    def __init__(self, place: str, label: str, calls: int) -> None:
        self.place, self.label, self.since = place, label, 0
        """Its module, what names it there, and the call of the network in which activity arrives first."""
        self.total: Tensor | None = None
        """The sum over all spikes that arrive, whose gradient is the number of synapses."""
        self.bound: Tensor | None = None
        """The same of those that may be held back, and are counted by their value."""
        self.sources: frozenset[str] = frozenset()
        """Layers whose spikes are counted by their value."""
        self.why = ""
        """Why their number of synapses is not fixed, if it is not."""
        self.calls: list[list[Call]] = [[] for _ in range(calls)]
        """By call of the network, and call within it."""
        self.dense: list[tuple[float, torch.Size]] = []
        """Multiplications in one call of the network, were nothing sparse, and the input's shape."""
        self.before: list[tuple[int, tuple[float, torch.Size]]] = []
        """The same of what is no activity, such as a state at first, and the call of the network."""

    def arrive(self, met: Tensor, bound: bool) -> None:
        """Add to what arrives."""
        with torch.enable_grad():
            if bound:
                self.bound = met if self.bound is None else self.bound + met
            else:
                self.total = met if self.total is None else self.total + met


class Placed(TorchFunctionMode):
    """Knows the module whose forward is running."""

    def __init__(self, net: nn.Module, spiking: list[Layer]) -> None:
        super().__init__()
        self.net = net
        self._places: list[tuple[str, nn.Module | None]] = [("", None)]
        self._spiking = {layer.module for layer in spiking}
        self._parameters = {_memory(parameter): name for name, parameter in net.named_parameters()}

    @contextlib.contextmanager
    def placed(self) -> Iterator[None]:
        """Follow the modules that run, and what they call."""
        hooks = []
        for name, module in self.net.named_modules():
            hooks.append(module.register_forward_pre_hook(self._entering(name), with_kwargs=True))
            hooks.append(module.register_forward_hook(self._left, with_kwargs=True, always_call=True))
        try:
            with self:
                yield
        finally:
            for hook in hooks:
                hook.remove()

    def _entering(self, name: str) -> Callable[..., None]:
        return lambda module, inputs, named: self._places.append((name, module))

    def _left(self, module: nn.Module, inputs: Any, named: Any, output: Any) -> None:
        self._places.pop()

    @property
    def place(self) -> str:
        return self._places[-1][0]

    def found(self, name: str, args: Any, kwargs: dict[str, Any]) -> list[Product]:
        """Return the products of a function, but of none of a neuron's own dynamics or a parametrisation."""
        if self._places[-1][1] in self._spiking or "parametrizations" in self.place.split("."):
            return []
        return products(name, args, kwargs)

    def key(self, product: Product) -> tuple[str, str]:
        """Return where the product is, and what names its weights there."""
        inside = f"{self.place}." if self.place else ""
        for factor in product.factors[::-1]:
            name = self._parameters.get(_memory(factor), "")
            own = name.removeprefix(inside) if name.startswith(inside) else ""
            if own and "." not in own and product.label not in ("ih", "hh"):
                return self.place, own
        return self.place, product.label


class Tracer(Placed):
    """Follows spikes; the values of the network are those that it has anyway."""

    def __init__(self, net: nn.Module, spiking: list[Layer], zeros: str) -> None:
        super().__init__(net, spiking)
        self.leaves: list[list[tuple[Layer, int, Tensor]]] = []
        """What each layer emits, by call of the network."""
        self.meetings: dict[tuple[str, str], Meeting] = {}
        self.consumed: set[str] = set()
        """Layers whose spikes arrive somewhere."""
        self.unknown: list[str] = []
        """Products that are not looked into, and meet no spikes."""
        self._layers, self._zeros = spiking, zeros
        self._traces = _Traces()
        self._weights = _Weights(net)
        self._inside = 0
        self._silent = False
        """Whether nothing has arrived yet at some weights, as from a state that has just been reset."""
        self._paused = False

    def run(self, inputs: tuple[Any, ...]) -> None:
        """Run the network, again as long as its first spikes are held in states between its layers."""
        for layer in self._layers:
            self._wrap(layer, "forward", None)
            for method in layer.over_steps:
                self._wrap(layer, method, 2)
        for module in self.net.modules():
            if (pooled := layers.pooling(module)) is not None:
                self._pool(module, pooled)
        device = next((x.device.type for x in _tensors(inputs)), "cpu")
        devices: list[int] | None = [] if device == "cpu" else None
        with (
            torch.random.fork_rng(devices=devices),
            torch.no_grad(),
            torch.autocast(device, enabled=False),
        ):
            for _ in range(_LONGEST):
                self.leaves.append([])
                for meeting in self.meetings.values():
                    meeting.calls.append([])
                for x in _tensors(inputs):
                    self._traces.put(x, DATA)
                with self.placed():
                    result = self.net(*inputs)
                for x in _tensors(result):
                    self._consume(self._traces.of(x))
                silent, self._silent = self._silent, False
                if not (holder := self._holder()) and not (silent and len(self.leaves) == 1):
                    return
        self._refuse("its state", "spikes stay in it, so they drive no fixed number of synapses", holder)

    def _holder(self) -> str | None:
        """Return the module in whose state spikes of the first call are, if any."""
        first = [leaf for *_, leaf in self.leaves[0]]
        kept = ("_buffers", *(name for face in layers.faces() for name in face.STATES))
        for name, module in self.net.named_modules():
            for x in _tensors([module.__dict__.get(key) for key in kept]):
                trace = self._traces.of(x)
                if trace is None or trace.arrived is None or not trace.arrived.requires_grad:
                    continue
                with torch.enable_grad():
                    found = torch.autograd.grad(
                        trace.arrived.sum(), first, retain_graph=True, allow_unused=True
                    )
                if any(grad is not None and bool(grad.any()) for grad in found):
                    return name or type(module).__name__
        return None

    def _left(self, module: nn.Module, inputs: Any, named: Any, output: Any) -> None:
        """Leave a module; what it returns and made unseen is no constant if its input was none."""
        name = self.place
        super()._left(module, inputs, named, output)
        if self._paused or self._inside:
            return
        lost = [x for x in _tensors(output) if self._traces.of(x) is None]
        if not lost:
            return
        traces = [t for x in _tensors((inputs, named)) if (t := self._traces.of(x)) is not None]
        if traces:
            kind = type(module).__name__
            why = f"{kind} in {name or 'the network'!r}: what it does with spikes cannot be seen"
            for x in lost:
                self._traces.put(x, _mixed(traces, why))

    def _wrap(self, layer: Layer, method: str, leading: int | None) -> None:
        """Make spikes of a layer leaves; `layers.untouched` takes the wrapper away."""
        inner = getattr(layer.module, method)

        def run(*args: Any, **kwargs: Any) -> Any:
            if self._inside or self._paused:
                return inner(*args, **kwargs)
            for x in _tensors((args, kwargs)):
                self._consume(self._traces.of(x))
            self._inside += 1
            try:
                output = inner(*args, **kwargs)
            finally:
                self._inside -= 1
            y, *rest = output if isinstance(output, tuple) else (output,)
            for x in _tensors(rest):
                self._traces.put(x, DATA)
            y = self._leaf(layer, y, layer.leading if leading is None else leading)
            return (y, *rest) if isinstance(output, tuple) else y

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
        if self._traces.of(y) is not None:  # what came in, handed on
            y = y.clone()
        leaf = torch.ones(y.shape, device=y.device, requires_grad=True)
        self.leaves[-1].append((layer, leading, leaf))
        self._traces.put(y, Trace(leaf, False, frozenset([layer.name])))
        return y

    def _pool(self, module: nn.Module, pooled: Callable[[Tensor], Tensor]) -> None:
        """Let spikes through a pooling that holds some of them back, as through the pooling it is made of."""
        inner = module.forward

        def run(x: Tensor) -> Tensor:
            self._paused = True
            try:
                y: Tensor = inner(x)
            finally:
                self._paused = False
            trace = self._traces.of(pooled(x))
            if trace is not None:
                self._traces.put(y, trace._replace(bound=True))
            return y

        object.__setattr__(module, "forward", run)

    def _consume(self, trace: Trace | None) -> None:
        if trace is not None:
            self.consumed |= trace.sources

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._paused:
            return func(*args, **kwargs)
        name = plain_name(func)
        given = list(_tensors((args, kwargs)))
        known = {id(x): trace for x in given if (trace := self._traces.of(x)) is not None}
        found = self.found(name, args, kwargs) or self._one_to_one(name, args, known)
        for product in found:
            self._meet(product, known)
        several = name == "einsum" and not found and len(given) > 2
        if (name in UNKNOWN or several) and not self._inside and not all(map(self._weights.constant, given)):
            self._look_away(name, known)
        versions = [(x, x._version) for x in given if not x.is_inference()]
        value = func(*args, **kwargs)
        changed = {_memory(x): x for x, version in reversed(versions) if x._version != version}
        written = list(changed.values())[::-1]  # the first of those that share memory, and hence a version
        memories = {_memory(x) for x in given}
        results = [x for x in _tensors(value) if _memory(x) not in memories]
        if (results or written) and (known or name in _SILENT or name in _FILLED):
            with torch.enable_grad():
                made = [DATA]
                if not found:
                    made = self._made(func, name, args, kwargs, known, (results or written)[0])
                self._note(results, written, made)
        if (results or written) and known and not self._inside:
            self._multiply(func, name, args, kwargs, known, (results or written)[0])
        self._weights.note(name, given, results + written)
        return value

    def _multiply(
        self, func: Any, name: str, args: Any, kwargs: Any, known: dict[int, Trace], target: Tensor
    ) -> None:
        """Look away from a product with weights that is written as a multiplication and a sum.

        A factor for each element, or for some alike, is a scale; what it multiplies anew for several
        outputs, or is added up over it, is multiplied by weights.
        """
        weights = self._weights
        if weights.follow(func, name, args, kwargs, target):
            self._look_away(f"a product with weights, added up by {name}", known)
        factors = list(_tensors((args, kwargs)))
        if name not in ("mul", "div") or len(factors) != 2:
            return
        for x, weight in (factors, factors[::-1]):
            if id(x) not in known or weights.holds(x) or not weights.holds(weight):
                continue
            if weights.learned(weight) and x.dim() > 0 and x.numel() < target.numel():
                self._look_away(f"a product with weights, written as {name}", {id(x): known[id(x)]})
            elif weight.numel() > 1 and (weights.learned(weight) or not binary(weight)):
                weights.multiply(weight, target)

    def _note(self, results: list[Tensor], written: list[Tensor], made: list[Trace]) -> None:
        """Note what arrives in new results of a function, or in what it has written in place."""
        if not made:
            return
        for i, x in enumerate(results):
            self._traces.put(x, made[min(i, len(made) - 1)])
        for i, x in enumerate(written):
            first = not results and i == 0
            self._traces.put(x, made[0] if first else _mixed(made, "it is written beside a result"))

    def _made(
        self, func: Any, name: str, args: Any, kwargs: Any, traces: dict[int, Trace], target: Tensor
    ) -> list[Trace]:
        """Return what arrives in the results of a function; nothing for constants."""
        if self._inside and name not in _MOVES:
            return []  # a neuron ends what arrives: all but its own synapses is its dynamics
        if name in _SILENT or (name in _FILLED and _filling(args, kwargs) == 0):
            return [SILENCE]
        if not traces or name in _LIKE or name in _FILLED:
            return []
        known = _Known(traces, f"{name} in {self.place or 'the network'!r}")
        try:
            return _through(func, name, args, kwargs, known, target)
        except _UnknownError as unknown:
            return [_mixed(known.traces.values(), f"{known.site}: {unknown}")]

    def _one_to_one(self, name: str, args: Any, known: dict[int, Trace]) -> list[Product]:
        """Return the product of a neuron's own spikes with one weight each, in a module of its own."""
        if name != "mul" or not self._inside or self._places[-1][1] in self._spiking:
            return []
        x, weight = args
        trace = known.get(id(x))
        if trace is None or trace.arrived is None:
            return []
        return [Product("mul", (x, torch.as_tensor(weight, device=x.device)), torch.mul)]

    def _look_away(self, name: str, known: dict[int, Trace]) -> None:
        if not any(trace.sources for trace in known.values()):
            self.unknown.append(f"{name} in {self.place or 'the network'!r}")
        elif name.startswith("a product"):
            self._refuse(name, "it is not counted in this form; use functional.linear or matmul")
        elif "attention" in name:
            self._refuse(name, "attention multiplies spikes by spikes; write its products as such, q @ k")
        else:
            self._refuse(name, "it is not known how many synapses a spike drives through it")

    def _refuse(self, name: str, why: str, place: str | None = None) -> None:
        place = self.place if place is None else place
        raise NotImplementedError(f"{name} in {place or 'the network'!r}: {why}; {REMEDY}")

    def _meet(self, product: Product, known: dict[int, Trace]) -> None:
        """Note that the factors of a product meet."""
        traces = [known.get(id(factor)) for factor in product.factors]
        for trace in filter(None, traces):
            self.consumed |= trace.sources
        place = self._input(product, traces)
        key = self.key(product)
        if key not in self.meetings:
            self.meetings[key] = Meeting(*key, calls=len(self.leaves))
        if self._makes_weights(product, traces):
            if product.layer:
                dense = product.dense(0, self._zeros), product.factors[0].shape
                self.meetings[key].before.append((len(self.leaves), dense))
            self.meetings[key].calls[-1].append(Call(0, False, None))
            self._silent = True  # a buffer may be a state, in which something is after the first call
            return
        meeting, site = self.meetings[key], f"{product.label} in {self.place or 'the network'!r}"
        meeting.since = meeting.since or len(self.leaves)
        if len(self.leaves) == meeting.since:
            meeting.dense.append((product.dense(place or 0, self._zeros), product.factors[place or 0].shape))
        if place is None:
            meeting.sources |= frozenset().union(*(trace.sources for trace in traces if trace))
            why = "attention and other products of spikes with spikes take an operation for each coincidence"
            meeting.why = meeting.why or f"{site}: {why}"
            meeting.calls[-1].append(Call(None, True, None))
            return
        trace = traces[place] or DATA
        self._silent |= trace.other is False and not trace.sources
        mask = trace.other
        if isinstance(mask, Tensor):
            mask = _of_features(mask, mask.dim() - 1 if "conv" in product.label else 1)
        bound, spikes = mask is True or trace.bound, mask is False
        if trace.arrived is not None:
            with torch.enable_grad():
                met = product.met(trace.arrived, place, product.numbers(1 - place, self._zeros)).sum()
            meeting.arrive(met, bound)
        if trace.why or (bound and spikes):
            meeting.sources |= trace.sources
            meeting.why = meeting.why or ("" if spikes else trace.why)
        part = mask if isinstance(mask, Tensor) and not bound else None
        meeting.calls[-1].append(Call(place, bound or part is not None, part, spikes))

    def _makes_weights(self, product: Product, traces: list[Trace | None]) -> bool:
        """Whether no activity is in a product, but parameters and buffers, or what is made of them."""
        if self._inside and product.layer:  # what a neuron holds at first
            return False
        if any(trace is not None and trace.sources for trace in traces):
            return False
        return all(map(self._weights.holds, product.factors))

    def _input(self, product: Product, traces: list[Trace | None]) -> int | None:
        """Return which factor of a product is its input; None if both are the activity of neurons."""
        spikes = [trace is not None and bool(trace.sources) for trace in traces]
        if any(spikes):
            return None if all(spikes) else spikes.index(True)
        if product.layer:
            return 0
        if (traces[0] is None) != (traces[1] is None):
            return int(traces[0] is None)
        return int(_memory(product.factors[0]) in self._parameters)


class _UnknownError(Exception):
    """What a function does with spikes keeps no number of synapses."""


class _Known:
    """The traces of the arguments of a function, which is called at a site."""

    def __init__(self, traces: dict[int, Trace], site: str) -> None:
        self.traces, self.site = traces, site

    def of(self, x: Any) -> Trace | None:
        return self.traces.get(id(x))

    def arrived(self, x: Tensor) -> Tensor:
        """Return what arrives in an argument: nothing in a constant."""
        trace = self.of(x)
        if trace is None or trace.arrived is None:
            return torch.zeros(x.shape, device=x.device)
        return trace.arrived

    def flags(self, x: Tensor) -> Tensor:
        """Return 1 where an argument holds something else than spikes: in all of a constant."""
        trace = self.of(x)
        other = True if trace is None else trace.other
        return torch.as_tensor(other, device=x.device).float().expand(x.shape)

    def linear(self, func: Any, arguments: Any, flagged: Any = None) -> list[Trace]:
        """Return what arrives through a function that moves and adds; `flagged`: its arguments for flags."""

        def run(make: Callable[[Tensor], Tensor], arguments: Any) -> list[Tensor]:
            def swap(x: Any) -> Any:
                floats = isinstance(x, Tensor) and (self.of(x) is not None or x.is_floating_point())
                return make(x) if floats else x

            args, kwargs = tree_map(swap, arguments)
            return list(_tensors(func(*args, **kwargs)))

        arrived = run(self.arrived, arguments)
        constants = any(self.of(x) is None and x.is_floating_point() for x in _tensors(arguments))
        if flagged is None and not constants and all(t.other is False for t in self.traces.values()):
            return [self.made(a, False) for a in arrived]
        others = run(self.flags, arguments if flagged is None else flagged)
        return [self.made(a, o > 0) for a, o in zip(arrived, others, strict=True)]

    def made(self, arrived: Tensor, other: Tensor | bool) -> Trace:
        """Return the trace of a result: where spikes meet something else, they are spikes no longer."""
        traces = self.traces.values()
        sources: frozenset[str] = frozenset().union(*(trace.sources for trace in traces))
        why = next((trace.why for trace in traces if trace.why), "")
        if isinstance(other, Tensor):
            other = True if bool(other.all()) else other if bool(other.any()) else False
        if other is not False and bool(((arrived.detach() > 0) & other).any()):
            why = why or f"{self.site}: something else is added to spikes, which then are none"
        bound = any(trace.bound for trace in traces)
        if other is True or not arrived.requires_grad:
            return Trace(None, other, sources, why, bound)
        return Trace(arrived if other is False else arrived * ~other, other, sources, why, bound)


def _through(func: Any, name: str, args: Any, kwargs: Any, known: _Known, target: Tensor) -> list[Trace]:
    """Return what arrives in the results of a function, the first of which is `target`."""
    if name in _MOVES:
        if name in _TAKES and any(known.of(x) is not None for x in _tensors(args[1:])):
            raise _UnknownError("what it takes depends on the activity")
        kwargs = {key: value for key, value in kwargs.items() if key != "dtype"}
        return known.linear(func, *(_padded(args, kwargs) if name == "pad" else ((args, kwargs),)))
    if name in _POOLS:
        passed = known.linear(_POOLS[name], (args, kwargs))
        return [trace._replace(bound=trace.bound or "max" in name) for trace in passed]
    if name == "mean":
        kwargs = {key: value for key, value in kwargs.items() if key != "dtype"}
        share = next(_tensors((args, kwargs))).numel() // target.numel()
        return known.linear(lambda *a, **k: func(*a, **k) * share, (args, kwargs))
    if name == "interpolate" and kwargs.get("mode", args[3] if len(args) > 3 else "nearest") == "nearest":
        return known.linear(func, (args, kwargs))
    for names, rule in ((_ADDS, _sum), (_SCALES, _scaled), (_PASSES, _passed), (_WRITES, _written)):
        if name in names:
            return [rule(func, name, args, kwargs, known, target)]
    raise _UnknownError("it is not known how many synapses a spike drives through it")


def _sum(func: Any, name: str, args: Any, kwargs: Any, known: _Known, target: Tensor) -> Trace:
    terms = [*args[:2], *(kwargs[key] for key in ("input", "other") if key in kwargs)]
    arrived = torch.zeros(target.shape, device=target.device)
    other = torch.zeros(target.shape, dtype=torch.bool, device=target.device)
    for term in terms:
        if isinstance(term, Tensor):
            arrived, other = arrived + known.arrived(term), other | (known.flags(term) > 0)
        elif term != 0:
            other = ~other | other
    return known.made(arrived, other)


def _scaled(func: Any, name: str, args: Any, kwargs: Any, known: _Known, target: Tensor) -> Trace:
    factors = [*args[:2], *(kwargs[key] for key in ("input", "other") if key in kwargs)]
    active = [x for x in factors if known.of(x) is not None]
    if len(active) > 1:
        if all(known.traces[id(x)].sources for x in active):
            raise _UnknownError("spikes are multiplied by spikes, which is no synapse")
        raise _UnknownError("spikes are multiplied by what depends on the input")
    if name == "div" and known.of(factors[0]) is None:
        raise _UnknownError("spikes are what is divided by")
    other = known.traces[id(active[0])].other
    other = other if isinstance(other, bool) else other.expand(target.shape)
    return known.made(known.arrived(active[0]).expand(target.shape), other)


def _passed(func: Any, name: str, args: Any, kwargs: Any, known: _Known, target: Tensor) -> Trace:
    active = [x for x in _tensors((args, kwargs)) if known.of(x) is not None]
    if len(active) > 1 and name not in _CASTS:
        raise _UnknownError("what it does to spikes depends on the activity")
    x = active[0]
    if name != "batch_norm" and name not in _CASTS:
        zeros = torch.zeros_like(x)
        args, kwargs = tree_map(lambda y: zeros if y is x else y, (args, kwargs))
        if bool(func(*args, **kwargs).any()):
            raise _UnknownError("it makes something of what is no spike")
    return known.made(known.arrived(x), known.traces[id(x)].other)


def _written(func: Any, name: str, args: Any, kwargs: Any, known: _Known, target: Tensor) -> Trace:
    """Return what is in a tensor when values have been put into a part of it."""
    into, rest = args[0], [*args[1:], *kwargs.values()]
    at = _WRITES[name] - 1
    if any(known.of(x) is not None for x in _tensors(rest[:at])):
        raise _UnknownError("where it writes depends on the activity")

    def put(make: Callable[[Tensor], Tensor], scalar: float) -> Tensor:
        value = make(rest[at]) if isinstance(rest[at], Tensor) else scalar
        copy = make(into).clone()
        result = func(copy, *rest[:at], value, *rest[at + 1 :])
        return result if isinstance(result, Tensor) else copy

    constant = not isinstance(rest[at], Tensor) and rest[at] != 0
    return known.made(put(known.arrived, 0.0), put(known.flags, float(constant)) > 0)


def _padded(args: Any, kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Return the arguments of a padding with nothing, and those for its flags."""
    named = dict(zip(("input", "pad", "mode", "value"), args, strict=False)) | kwargs
    if named.get("mode", "constant") != "constant":
        return ((), named), None
    return ((), {**named, "value": 0.0}), ((), {**named, "value": float(bool(named.get("value")))})


def _mixed(traces: Iterable[Trace], why: str) -> Trace:
    """Return the trace of what is made of others, and is spikes no longer."""
    sources: frozenset[str] = frozenset().union(*(trace.sources for trace in traces))
    first = next((trace.why for trace in traces if trace.why), why)
    return Trace(None, True, sources, first if sources else "")


def _of_features(mask: Tensor, dims: int) -> Tensor | bool:
    """Return a mask of the last dimensions alone, or all if those before differ."""
    first = mask.flatten(0, mask.dim() - dims - 1)[0] if mask.dim() > dims else mask
    return first if bool((mask == first).all()) else True


def plain_name(func: Any) -> str:
    """Return the name of a function of torch, the same for operators and what works in place."""
    name = getattr(func, "__name__", str(func)).strip("_")
    return _ALIASES.get(name, name)


def _filling(args: Any, kwargs: dict[str, Any]) -> Any:
    return kwargs.get("fill_value", args[1] if len(args) > 1 else None)


def _memory(x: Tensor) -> Any:
    storage = _storage(x)
    return id(x) if storage is None else storage._cdata


def _tensors(tree: Any) -> Iterator[Tensor]:
    return (x for x in tree_flatten(tree)[0] if isinstance(x, Tensor))


def _windows(dims: int) -> Callable[..., Tensor]:
    """Return what sums up the windows of pooling over `dims` dimensions."""

    def pooled(
        input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, *rest: Any, **options: Any
    ) -> Tensor:
        names = (
            ("dilation", "ceil_mode", "return_indices") if options.pop("maximum", False) else ("ceil_mode",)
        )
        options = dict(zip(names, rest, strict=False)) | options
        dilation = options.get("dilation", 1)
        if any(d != 1 for d in (dilation if isinstance(dilation, (tuple, list)) else (dilation,))):
            raise _UnknownError("pooling with dilation is not known here")
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

    def pooled(input: Tensor, output_size: Any, *rest: Any, **options: Any) -> Tensor:
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
