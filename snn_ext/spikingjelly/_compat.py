"""What differs between SpikingJelly's generations, found by feature; and its surrogates, recognised.

`Node` is the base of this package's neurons.  A neuron says only how it runs a sequence
(`Node._simulate`); `Node` gives it the shape that the installed generation expects:

* SpikingJelly 2.0: functional transitions over explicit, materialised states;
* SpikingJelly 0.0.0.0.14: ``single_step_forward`` / ``multi_step_forward`` and ``backend``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

try:
    from spikingjelly.activation_based import base, neuron
    from spikingjelly.activation_based import surrogate as sj_surrogate
except ModuleNotFoundError as error:
    if error.name != "spikingjelly.activation_based":
        raise
    raise ImportError(
        "this SpikingJelly has no spikingjelly.activation_based and is not supported; "
        "upgrade with: pip install 'spikingjelly>=0.0.0.0.14'"
    ) from error

from .. import checks, transient
from ..checkpoints import Checkpoints, hold
from ..ops.reference import compute_dtype
from ..surrogate import ATan, Rectangular, Sigmoid, Surrogate, Triangular

FUNCTIONAL = hasattr(neuron.BaseNode, "single_step_functional_forward")
HAS_BACKEND = hasattr(base.MemoryModule, "backend")

if FUNCTIONAL == HAS_BACKEND:
    raise ImportError(
        "this SpikingJelly is a pre-release between the 0.0.0.0.14 and the 2.0 designs and is not "
        "supported; install spikingjelly==0.0.0.0.14 or spikingjelly>=2.0.0"
    )

try:
    from spikingjelly.activation_based import ann2snn

    _no_converter = ""
except ImportError as missing:  # 0.0.0.0.14 does not declare what its ann2snn imports
    _no_converter = (
        f"SpikingJelly's ann2snn cannot be imported ({missing}); install with: pip install requests"
    )

try:
    from spikingjelly.activation_based import op_counter
except ImportError:  # 0.0.0.0.14 has none
    op_counter = None

_NAMED: dict[str, Callable[[float], Surrogate]] = {
    "ATan": lambda alpha: ATan(alpha=alpha),
    "Sigmoid": lambda alpha: Sigmoid(slope=alpha),
    "PiecewiseQuadratic": lambda alpha: Triangular(width=1 / alpha),
    "Rect": lambda alpha: Rectangular(width=1 / alpha),
}
_KNOWN: dict[type, Callable[[float], Surrogate]] = {
    getattr(sj_surrogate, name): ours for name, ours in _NAMED.items() if hasattr(sj_surrogate, name)
}


def default_surrogate() -> Any:
    """Return a new instance of the surrogate that SpikingJelly's own neurons default to."""
    return sj_surrogate.Sigmoid()


def as_surrogate(surrogate_function: Any) -> Surrogate | Callable[[Tensor], Tensor]:
    """Return the fused surrogate equal to `surrogate_function`, or that itself if there is none."""
    ours = _KNOWN.get(type(surrogate_function))
    if ours is None or not surrogate_function.spiking:
        return surrogate_function
    return ours(float(surrogate_function.alpha))


def native_positions(init: Callable[..., None]) -> Callable[..., None]:
    """Give a neuron's ``__init__`` the positional order of the installed generation's neurons.

    SpikingJelly 0.0.0.0.14 has ``backend`` between ``step_mode`` and ``store_v_seq``; 2.0 has none.
    """
    if not HAS_BACKEND:
        return init
    parameters = list(inspect.signature(init).parameters.values())
    place = [parameter.name for parameter in parameters].index("store_v_seq")
    backend = inspect.Parameter("backend", inspect.Parameter.POSITIONAL_OR_KEYWORD, default="torch")

    @functools.wraps(init)
    def with_backend(*args: Any, **kwargs: Any) -> None:
        bound = signature.bind(*args, **kwargs)
        init(**bound.arguments)

    signature = inspect.Signature([*parameters[:place], backend, *parameters[place:-1]])
    with_backend.__signature__ = signature  # type: ignore[attr-defined]
    return with_backend


_STEP = (
    "neuronal_charge",
    "neuronal_fire",
    "neuronal_reset",
    "jit_hard_reset",
    "jit_soft_reset",
    "apply_hard_reset",
    "apply_soft_reset",
    "v_float_to_tensor",
)
"""What a step of SpikingJelly's own neurons is made of, in either generation."""


class _NodeBase(Checkpoints, neuron.BaseNode):
    """What both generations share: no symbolic tracing, a state of the right dtype, light copies."""

    _held: tuple[transient.Held, ...] = ()

    not_in_nir: ClassVar[str]
    """What NIR has no node for, which is why SpikingJelly's own exporter must not trace the neuron."""
    nir_remedy: ClassVar[str] = "export it with snn_ext.spikingjelly.export_to_nir"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        checks.overrides(cls, neuron.BaseNode, _STEP, "single_step_forward", "a subclass of neuron.LIFNode")

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        name = "x" if self.step_mode == "s" else "x_seq"
        args = tuple([checks.concrete_tensor(self, name, x) for x in args])
        kwargs = {key: checks.concrete_tensor(self, key, x) for key, x in kwargs.items()}
        x = args[0] if args else next(iter(kwargs.values()), None)
        if transient.at_work(x):
            run, before = super().forward, self.__dict__.get("v_seq")
            try:
                return transient.run(
                    self, self._memories, tuple(self._memories), x, lambda: run(*args, **kwargs)
                )
            finally:
                if "v_seq" in self.__dict__:  # in 0.0.0.0.14 it is a memory
                    self.__dict__["v_seq"] = before
        return super().forward(*args, **kwargs)

    def reset(self) -> None:
        """As natively; what a transform has left is gone, too."""
        transient.forget(self)
        super().reset()

    def _simulate(
        self, x_seq: Tensor, v: Tensor | None, return_v_seq: bool = False, single: bool = False
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the emitted sequence, the final potential and, if asked, the potential sequence.

        With `single`, what goes in and is emitted is one step, without the dimension of time.
        """
        raise NotImplementedError

    def _hold(self, name: str, value: float | Tensor, learn: bool) -> None:
        """Keep `value` as a parameter if it is learned, as a buffer if it is a tensor, else as it is."""
        self.__dict__.pop(name, None)
        if learn:
            setattr(self, name, torch.nn.Parameter(torch.as_tensor(value).detach().clone()))
        elif isinstance(value, Tensor):
            hold(self, name, value)
        else:
            setattr(self, name, value)

    def _implementation(self, x: Tensor) -> str | None:
        """Return the name of the implementation to run on, ``None`` for the fastest."""
        return None

    def _initial(self, v: Any, x: Tensor, shape: torch.Size) -> Tensor:
        """Return the potential to start from: the number that the memory holds, everywhere, or zero."""
        value = 0.0 if isinstance(v, Tensor) else float(v)
        like = x.new_empty(shape, dtype=compute_dtype(x.dtype))
        return torch.full_like(like, value)  # as natively: by this, counters know a state

    def extra_repr(self) -> str:
        shown = {
            name: checks.brief(getattr(self, name)) for name in ("v_threshold", "v_reset", "detach_reset")
        }
        shown["step_mode"] = self.step_mode
        if HAS_BACKEND:
            shown["backend"] = self.backend
        return ", ".join(f"{name}={value}" for name, value in shown.items())

    def __getstate__(self) -> dict[str, Any]:
        """Leave the graph behind: a copy or pickle taken during training carries the bare states."""
        state = self.__dict__.copy()
        state.pop("_observer", None)
        state.pop("_taps", None)
        state.pop("_held", None)
        state["_memories"] = {name: _detached(value) for name, value in self._memories.items()}
        if "v_seq" in state:
            state["v_seq"] = _detached(state["v_seq"])
        return state


def _is_zero(v: Any) -> bool:
    """Whether a memory holds the number zero, as after a reset: then no potential needs to be made of it."""
    return not isinstance(v, Tensor) and v == 0


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


if FUNCTIONAL:

    class Node(_NodeBase):
        """Base node in SpikingJelly 2.0's design."""

        def materialize_states(
            self, inputs: tuple[Tensor, ...], states: tuple[Any, ...], step_mode: str
        ) -> tuple[Any, ...]:
            """Return the states as tensors; another shape than the input's starts anew, as natively."""
            x, v = inputs[0], states[0]
            shape = x.shape[1:] if step_mode == "m" else x.shape
            if not isinstance(v, Tensor) or v.shape != shape:
                v = self._initial(v, x, shape)
            return (v.to(dtype=compute_dtype(x.dtype), device=x.device), *states[1:])

        def single_step_functional_forward(
            self, inputs: tuple[Tensor, ...], states: tuple[Any, ...], **kwargs: Any
        ) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
            y, v, _ = self._simulate(inputs[0], states[0], single=True)
            return (y,), (v, *states[1:])

        def multi_step_functional_forward(
            self, inputs: tuple[Tensor, ...], states: tuple[Any, ...], **kwargs: Any
        ) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
            if type(self).single_step_functional_forward is not Node.single_step_functional_forward:
                return super().multi_step_functional_forward(inputs, states, **kwargs)  # step by step
            y_seq, v, _ = self._simulate(inputs[0], states[0])
            return (y_seq,), (v, *states[1:])

        # The same in short, unless a class derived from the neuron has transitions or memories of its own.

        def single_step_forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
            own = type(self).single_step_functional_forward is Node.single_step_functional_forward
            if self.store_v_seq or not own or len(self._memories) > 1:
                return super().single_step_forward(x, *args, **kwargs)
            y, self.v, _ = self._simulate(x, self._state(x, "s"), single=True)
            return y

        def multi_step_forward(self, x_seq: Tensor, *args: Any, **kwargs: Any) -> Any:
            cls = type(self)
            if cls.single_step_forward is not Node.single_step_forward:
                return torch.stack([self.single_step_forward(x, *args, **kwargs) for x in x_seq])
            own = cls.single_step_functional_forward is Node.single_step_functional_forward
            own = own and cls.multi_step_functional_forward is Node.multi_step_functional_forward
            if not own or len(self._memories) > 1:
                return super().multi_step_forward(x_seq, *args, **kwargs)
            y_seq, self.v, v_seq = self._simulate(x_seq, self._state(x_seq, "m"), self.store_v_seq)
            if self.store_v_seq:
                self.v_seq = v_seq
            return y_seq

        def _state(self, x: Tensor, step_mode: str) -> Tensor | None:
            if _is_zero(self.v):
                return None
            return self.materialize_states((x,), (self.v,), step_mode)[0]

else:

    class Node(_NodeBase):  # type: ignore[no-redef]
        """Base node in SpikingJelly 0.0.0.0.14's design."""

        @property
        def supported_backends(self) -> tuple[str, ...]:
            return ("torch", "cupy") if self.step_mode == "m" else ("torch",)

        def _implementation(self, x: Tensor) -> str | None:
            """What the backend asks for: as natively, ``"torch"`` runs no CuPy, ``"cupy"`` nothing else."""
            if self.backend == "cupy" and self.step_mode == "m":
                if x.device.type != "cuda":
                    raise ValueError(
                        f"backend='cupy' runs on a CUDA device, but the input is on {x.device}; move it with "
                        ".to('cuda'), or set backend='torch'"
                    )
                return "cupy"
            return "reference" if x.device.type == "cuda" else None

        def single_step_forward(self, x: Tensor) -> Tensor:
            y, self.v, _ = self._simulate(x, self._state(x, x.shape), single=True)
            return y

        def multi_step_forward(self, x_seq: Tensor) -> Tensor:
            if type(self).single_step_forward is not Node.single_step_forward:
                return super().multi_step_forward(x_seq)  # step by step
            v = self._state(x_seq, x_seq.shape[1:])
            y_seq, self.v, v_seq = self._simulate(x_seq, v, self.store_v_seq)
            if self.store_v_seq:
                self.v_seq = v_seq
            return y_seq

        def _state(self, x: Tensor, shape: torch.Size) -> Tensor | None:
            if _is_zero(self.v):
                return None
            if not isinstance(self.v, Tensor):
                return self._initial(self.v, x, shape)
            if self.v.dim() and self.v.shape != shape:
                raise ValueError(
                    f"{self._get_name()} holds a potential of shape {tuple(self.v.shape)}, but one step of "
                    f"the input has shape {tuple(shape)}; call functional.reset_net(net) between batches"
                )
            return self.v


if not _no_converter and hasattr(ann2snn, "ConversionRecipe"):
    Recipe = ann2snn.ConversionRecipe
    Converter = ann2snn.Converter

else:

    class Recipe:  # type: ignore[no-redef]
        """What a recipe is in SpikingJelly 2.0, for releases without."""

        def __init__(self) -> None:
            if _no_converter:
                raise ImportError(_no_converter)

    class Converter(object if _no_converter else ann2snn.Converter):  # type: ignore[no-redef, misc]
        """The converter of SpikingJelly 2.0, ``Converter(recipe).convert(ann)``, for releases without.

        The native ``Converter(dataloader)(ann)`` is its base class.
        """

        device: Any

        def __init__(self, recipe: Any, device: torch.device | str | None = None) -> None:
            if not isinstance(recipe, Recipe):
                raise TypeError(
                    f"recipe must be a recipe such as L4Recipe(dataloader), got {type(recipe).__name__}; for "
                    "the native conversion use spikingjelly.activation_based.ann2snn.Converter"
                )
            super().__init__(recipe.dataloader, device)
            self.recipe = recipe

        def convert(self, ann: torch.nn.Module) -> torch.nn.Module:
            """Return the converted network; `ann` is not touched."""
            configured = self.device
            first = next(ann.parameters(), None)
            self.device = torch.device(configured or ("cpu" if first is None else first.device))
            try:
                with torch.no_grad():
                    self.recipe.before_trace(self, ann)
                    return self.recipe.finalize(self, self.recipe.replace(self, None))
            finally:
                self.device = configured

        def forward(self, ann: torch.nn.Module) -> torch.nn.Module:
            """As natively: ``Converter(recipe)(ann)``."""
            return self.convert(ann)
