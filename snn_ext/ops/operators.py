"""The operators ``snn_ext::<neuron>`` and ``snn_ext::<neuron>_backward``: schema, shapes and autograd.

`declare` makes both from a neuron of `snn_ext.neurons`, with its `parameters` as tensors and its
`options`.  The operators are strict about their arguments (`gate.check`), unlike `snn_ext.functional`, which
prepares them: `v0` has the shape of one time step, the state and every parameter share one dtype
(`gate.compute_dtype`) and every tensor shares one device.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch._decomp import register_decomposition

from ..neurons.leaky import Leaky, Parameters
from ..neurons.lifb import LIFB
from ..neurons.soft_reset_mpr import SoftResetMPR
from ..neurons.vsn import VSN
from ..surrogate import Surrogate, from_name
from . import dispatch, gate, reference

NEURONS: tuple[type[Leaky], ...] = (VSN, LIFB, SoftResetMPR)

_COMMON = (
    "str surrogate, float scale, bool spiking, bool strict, bool detach_reset, bool reset_delay, "
    "bool constant_start, float power"
)


def plain(*tensors: Tensor | None) -> bool:
    """Whether an operator may be passed by: nobody watches, and all `tensors` are of torch's own types."""
    return not (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._is_torch_function_mode_enabled()
        or torch.jit.is_tracing()
    ) and _OWN.issuperset(map(type, tensors))


_OWN = {Tensor, torch.nn.Parameter, type(None)}


def run(
    neuron: Leaky,
    x_seq: Tensor,
    v0: Tensor | None,
    p: Parameters,
    surrogate: Surrogate,
    *,
    detach_reset: bool,
    reset_delay: bool,
    constant_start: bool,
    return_v_seq: bool,
    power: float = 0.0,
    wanted: str | None = None,
    single: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Run `neuron`, whose parameters stand in `p` under their names.

    With `single`, what goes in and is emitted is one step, without the dimension of time.

    By its operator, or without the cost of dispatching one where nobody could tell the difference (`plain`),
    and then on the implementation that is `wanted`.  On "meta"
    tensors, the operator gives shapes alone.
    """
    values = [p[name] for name in neuron.parameters]
    if not x_seq.is_meta and plain(x_seq, v0, *values):
        when = {"detach_reset": detach_reset, "reset_delay": reset_delay, "constant_start": constant_start}
        chosen = _choose(x_seq.device, surrogate, power, wanted)
        if torch.is_grad_enabled() and any(
            tensor is not None and tensor.requires_grad for tensor in (x_seq, v0, *values)
        ):
            how = chosen, neuron, surrogate, when, power, single
            return _Eager.apply(how, return_v_seq, x_seq, v0, *values)
        x_seq = x_seq.unsqueeze(0) if single else x_seq
        y_seq, v, v_seq, sent = chosen.forward(
            neuron, x_seq, v0, p, surrogate, **when, return_v_seq=return_v_seq, power=power
        )
        return y_seq.squeeze_(0) if single else y_seq, v, v_seq, sent
    x_seq = x_seq.unsqueeze(0) if single else x_seq
    if v0 is None:
        v0 = torch.zeros_like(x_seq[0], dtype=reference.compute_dtype(x_seq.dtype))
    y_seq, v, v_seq, sent = _operator(neuron)(
        x_seq,
        v0,
        *values,
        *_options(neuron, surrogate, detach_reset, reset_delay, constant_start, power),
        return_v_seq,
    )
    return only_step(y_seq) if single else y_seq, v, v_seq, sent if power else None


def _operator(neuron: Leaky) -> Any:
    """Return the operator of `neuron`; for the ONNX exporter by tracing, which asks no table, plain ones."""
    if torch.jit.is_tracing() and torch.onnx.is_in_onnx_export():
        return torch._decomp.decomposition_table[getattr(torch.ops.snn_ext, neuron.name).default]
    return getattr(torch.ops.snn_ext, neuron.name)


def only_step(y_seq: Tensor) -> Tensor:
    """Return the one step of `y_seq`, as no view of it: whoever gets it may change it in place."""
    if torch.jit.is_tracing():  # the exporter of ONNX by tracing does not know the other
        return y_seq.squeeze(0)
    return torch.ops.aten._unsafe_view.default(y_seq, y_seq.shape[1:])


def _choose(device: torch.device, surrogate: Surrogate, power: float, wanted: str | None = None) -> Any:
    """Return who runs a call: the reference if smooth events are raised to a power, which no kernel does."""
    chosen = dispatch.choose(device, wanted)
    return chosen if power in (0, 1) or surrogate.spiking else reference


def _options(neuron: Leaky, surrogate: Surrogate, *when: float) -> tuple[Any, ...]:
    own = (getattr(neuron, name) for name in neuron.options)
    return *own, surrogate.name, surrogate.scale, surrogate.spiking, surrogate.strict, *when


class _Eager(torch.autograd.Function):
    """An operator without ``torch.library``: the same implementations, and the same gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        how: tuple[Any, Leaky, Surrogate, dict[str, bool], float, bool],
        return_v_seq: bool,
        x_seq: Tensor,
        v0: Tensor | None,
        *values: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        ctx.save_for_backward(x_seq, v0, *values)
        ctx.set_materialize_grads(False)
        ctx.how = how
        chosen, neuron, surrogate, when, power, single = how
        p = dict(zip(neuron.parameters, values, strict=True))
        x_seq = x_seq.unsqueeze(0) if single else x_seq
        y_seq, v, v_seq, sent = chosen.forward(
            neuron, x_seq, v0, p, surrogate, **when, return_v_seq=return_v_seq, power=power
        )
        return y_seq.squeeze_(0) if single else y_seq, v, v_seq, sent

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        x_seq, v0, *values = _as_they_were(ctx, type(ctx.how[1]))
        chosen, neuron, surrogate, when, power, single = ctx.how
        needs_x, needs_v0, *needed = ctx.needs_input_grad[2:]
        wanted = [name for name, needs in zip(neuron.parameters, needed, strict=True) if needs]
        grad_y_seq, grad_v, grad_v_seq, grad_sent = grads
        if grad_y_seq is None:
            grad_y_seq = x_seq.new_zeros(()).expand_as(x_seq)
        if single:
            x_seq, grad_y_seq = x_seq.unsqueeze(0), grad_y_seq.unsqueeze(0)
        if torch.is_grad_enabled() or not plain(x_seq, v0, *values, *grads):
            start = reference.start(v0, x_seq)
            grad_x, grad_v0, *grad_values = getattr(torch.ops.snn_ext, f"{neuron.name}_backward")(
                grad_y_seq,
                torch.zeros_like(start) if grad_v is None else grad_v,
                x_seq.new_empty(0, dtype=start.dtype) if grad_v_seq is None else grad_v_seq,
                x_seq.new_empty(0, dtype=start.dtype) if grad_sent is None else grad_sent,
                x_seq,
                start,
                *values,
                *_options(neuron, surrogate, *when.values(), power),
                bool(wanted),
            )
        else:
            p = dict(zip(neuron.parameters, values, strict=True))
            grad_x, grad_v0, grad_p = chosen.backward(
                neuron,
                grad_y_seq,
                grad_v,
                grad_v_seq,
                x_seq,
                v0,
                p,
                surrogate,
                **when,
                wanted=wanted,
                power=power,
                grad_sent=grad_sent,
            )
            grad_values = [grad_p.get(name) for name in p]
        return (
            None,
            None,
            (grad_x.squeeze(0) if single else grad_x) if needs_x else None,
            grad_v0 if needs_v0 else None,
            *(grad if needs else None for grad, needs in zip(grad_values, needed, strict=True)),
        )


def _as_they_were(ctx: Any, neuron: type[Leaky]) -> tuple[Tensor, ...]:
    """Return what was saved for the backward pass; if it has been changed in place, say what to do."""
    try:
        return ctx.saved_tensors
    except RuntimeError as error:
        what, found, _ = str(error).partition("modified by an inplace operation: ")
        if not found:
            raise
        changed = str(error)[len(what + found) :].partition(". ")[0]
        raise RuntimeError(
            f"{neuron.__name__}: what went into a step has been changed in place before the backward pass, "
            f"which needs it as it was ({changed}); change a copy, as in x = x + lif(x) for x += lif(x), or "
            "call backward() first"
        ) from error


def declare(neuron: type[Leaky]) -> None:
    """Register the operators of `neuron`: declaration, dispatch to an implementation, and autograd."""
    name, count = f"snn_ext::{neuron.name}", len(neuron.parameters)
    tensors = ", ".join(f"Tensor {tensor}" for tensor in ("x_seq", "v0", *neuron.parameters))
    own = "".join(f"{type(getattr(neuron, option)).__name__} {option}, " for option in neuron.options)
    options = own + _COMMON
    grads = ", ".join(f"Tensor grad_{tensor}" for tensor in ("x_seq", "v0", *neuron.parameters))
    torch.library.define(
        name,
        f"({tensors}, {options}, bool return_v_seq) -> (Tensor y_seq, Tensor v, Tensor v_seq, Tensor sent)",
    )
    torch.library.define(
        f"{name}_backward",
        "(Tensor grad_y_seq, Tensor grad_v, Tensor grad_v_seq, Tensor grad_sent, "
        f"{tensors}, {options}, bool parameter_grads)"
        f" -> ({grads})",
    )

    def unpack(
        arguments: tuple[Any, ...],
    ) -> tuple[Leaky, Tensor, Tensor, dict[str, Tensor], Surrogate, dict[str, Any]]:
        x_seq, v0, *rest = arguments
        *own, surrogate, scale, spiking, strict, detach_reset, reset_delay, constant_start, power = rest[
            count:
        ]
        equations, p = neuron(*own), dict(zip(neuron.parameters, rest[:count], strict=True))
        gate.check(equations, x_seq, v0, p, power)
        return (
            equations,
            x_seq,
            v0,
            p,
            from_name(surrogate, scale, spiking=spiking, strict=strict),
            {
                "detach_reset": detach_reset,
                "reset_delay": reset_delay,
                "constant_start": constant_start,
                "power": power,
            },
        )

    @torch.library.impl(name, "CompositeExplicitAutograd")
    def forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        equations, x_seq, v0, p, surrogate, when = unpack(arguments[:-1])
        run_by = _choose(x_seq.device, surrogate, when["power"])
        y_seq, v, *asked = run_by.forward(
            equations, x_seq, v0, p, surrogate, **when, return_v_seq=arguments[-1]
        )
        v_seq, sent = (x_seq.new_empty(0, dtype=v0.dtype) if each is None else each for each in asked)
        return y_seq, v, v_seq, sent

    @torch.library.impl(f"{name}_backward", "CompositeExplicitAutograd")
    def backward(
        grad_y_seq: Tensor, grad_v: Tensor, grad_v_seq: Tensor, grad_sent: Tensor, *arguments: Any
    ) -> tuple[Tensor, ...]:
        equations, x_seq, v0, p, surrogate, when = unpack(arguments[:-1])
        gate.check_grads(x_seq, v0, grad_y_seq, grad_v, grad_v_seq, grad_sent)
        run_by = _choose(x_seq.device, surrogate, when["power"])
        grad_x, grad_v0, grad_p = run_by.backward(
            equations,
            grad_y_seq,
            grad_v,
            grad_v_seq,
            x_seq,
            v0,
            p,
            surrogate,
            **when,
            wanted=neuron.parameters if arguments[-1] else (),
            grad_sent=grad_sent if grad_sent.numel() else None,
        )
        return grad_x, grad_v0, *(grad_p[name] if grad_p else torch.zeros_like(p[name]) for name in p)

    @torch.library.register_fake(name)
    def forward_fake(x_seq: Tensor, v0: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        unpack((x_seq, v0, *rest[:-1]))
        none, step = x_seq.new_empty(0), x_seq[0]
        v_seq = torch.empty_like(x_seq if rest[-1] else none, dtype=v0.dtype)
        sent = torch.empty_like(step if rest[-2] else none, dtype=v0.dtype)
        return torch.empty_like(x_seq), torch.empty_like(step, dtype=v0.dtype), v_seq, sent

    @torch.library.register_fake(f"{name}_backward")
    def backward_fake(
        grad_y_seq: Tensor, grad_v: Tensor, grad_v_seq: Tensor, grad_sent: Tensor, *arguments: Any
    ) -> tuple[Tensor, ...]:
        _, x_seq, v0, *_ = unpack(arguments[:-1])
        gate.check_grads(x_seq, v0, grad_y_seq, grad_v, grad_v_seq, grad_sent)
        return tuple(torch.empty_like(tensor) for tensor in arguments[: 2 + count])

    def plain_operators(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        equations, x_seq, v0, p, surrogate, when = unpack(arguments[:-1])
        return _unrolled(equations, x_seq, v0, p, surrogate, **when, return_v_seq=arguments[-1])

    register_decomposition(getattr(torch.ops.snn_ext, neuron.name).default)(plain_operators)
    # Shapes come from the fake, whatever the decomposition would say: it unrolls the steps.
    register_decomposition(getattr(torch.ops.snn_ext, neuron.name).default, type="meta")(forward_fake)

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs[: 2 + count])
        ctx.options = inputs[2 + count : -1]

    def autograd(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        parameter_grads = any(ctx.needs_input_grad[2 : 2 + count])
        operator = getattr(torch.ops.snn_ext, f"{neuron.name}_backward")
        gradients = operator(*grads, *_as_they_were(ctx, neuron), *ctx.options, parameter_grads)
        return *gradients, *(None for _ in ctx.options), None

    def no_double_backward(ctx: Any, *grads: Tensor) -> None:
        raise RuntimeError(
            f"{name} cannot be differentiated twice by autograd; for second derivatives use torch.func "
            "(grad, hessian, jvp), which takes the differentiable reference"
        )

    torch.library.register_autograd(name, autograd, setup_context=setup_context)
    torch.library.register_autograd(f"{name}_backward", no_double_backward)


def decompositions() -> dict[Any, Any]:
    """Return the table by which an exported program is brought to plain operators, some for each step.

    As in ``ep.run_decompositions({**torch.export.default_decompositions(), **decompositions()})`` with an
    ``ep = torch.export.export(net, (x,))``, for inference: events have no surrogate gradient then.  Exporters
    that go through ``torch._decomp``, as ``torch.onnx.export`` does, find it by themselves.
    """
    return torch._decomp.get_decompositions([getattr(torch.ops.snn_ext, neuron.name) for neuron in NEURONS])


def _unrolled(
    neuron: Leaky,
    x_seq: Tensor,
    v0: Tensor,
    p: Parameters,
    surrogate: Surrogate,
    *,
    return_v_seq: bool,
    reset_delay: bool,
    power: float,
    **when: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what the operator of `neuron` does, by plain operators, a few for each step."""
    spike = surrogate.step if surrogate.spiking else surrogate.primitive
    steps = list(reference.unroll(neuron, x_seq, v0, p, spike, reset_delay=reset_delay, **when))
    states = [step.h if reset_delay else step.v_next for step in steps]
    y_seq = torch.stack([step.y.to(x_seq.dtype) for step in steps])
    none = x_seq.new_empty(0, dtype=v0.dtype)
    counts = [neuron.transmitted(step.h, step.o, p, spike, power) for step in steps] if power else [none]
    v_seq = torch.stack(states) if return_v_seq else none
    return y_seq, states[-1], v_seq, functools.reduce(torch.add, counts)


for _neuron in NEURONS:
    declare(_neuron)
