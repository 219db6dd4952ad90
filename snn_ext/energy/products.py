"""Where a tensor meets weights: linear layers, convolutions, matrix products, and how many meet.

A product is linear in each of its two factors, so the number of operations between two tensors is the sum of
the product of ones, or of what is not zero in them.  For a convolution this is exact at borders and for every
stride, dilation and group.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

ZERO_WEIGHTS = ("count", "skip")

_CONVOLUTION = ("stride", "padding", "dilation", "groups")
_TRANSPOSED = ("stride", "padding", "output_padding", "groups", "dilation")
_AFTER = {
    "linear": (),
    **{f"conv{d}d": _CONVOLUTION for d in (1, 2, 3)},
    **{f"conv_transpose{d}d": _TRANSPOSED for d in (1, 2, 3)},
}
_MATRICES = frozenset(["matmul", "mm", "bmm", "mv", "rmatmul", "addmm", "addmv", "baddbmm", "addbmm"])
_CELLS = frozenset(["lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"])
UNKNOWN = frozenset(
    [
        "lstm",
        "gru",
        "rnn_tanh",
        "rnn_relu",
        "bilinear",
        "multi_head_attention_forward",
        "native_multi_head_attention",
        "transformer_encoder_layer_fwd",
        "scaled_dot_product_attention",
        "tensordot",
        "chain_matmul",
        "multi_dot",
        "linalg_multi_dot",
        "linalg_vecdot",
        "inner",
        "outer",
        "ger",
        "kron",
        "addcmul",
    ]
)
"""Functions that hold products, which are not looked into."""


class Product(NamedTuple):
    """Two factors, and what multiplies them."""

    label: str
    """Names it within its module."""
    factors: tuple[Tensor, Tensor]
    apply: Callable[[Tensor, Tensor], Tensor]
    summed: Callable[[Tensor], Tensor] | None = None
    """Sums numbers of weights, the second factor, over the outputs, for `apply`: less work, the same sum."""
    reduced: Callable[[Tensor, Tensor], Tensor] | None = None
    """What takes the place of `apply` then."""

    @property
    def layer(self) -> bool:
        """Whether the first factor is an input and the second are weights, by the function."""
        return self.label not in ("matmul", "einsum", "mul")

    def met(self, x: Tensor, place: int, numbers: Tensor) -> Tensor:
        """Return how often `x`, in place of factor `place`, meets the other, which counts by `numbers`.

        Each element of `x` counts by its value; the sum of what is returned is meant.
        """
        if place == 0 and self.summed is not None and self.reduced is not None:
            return self.reduced(x, self.summed(numbers))
        return self.apply(x, numbers) if place == 0 else self.apply(numbers, x)

    def numbers(self, place: int, zeros: str) -> Tensor:
        """Return what each weight, factor `place`, counts: 1, or 0 where zeros are skipped and it is one."""
        weight = self.factors[place].detach()
        return torch.ones_like(weight, dtype=torch.float32) if zeros == "count" else (weight != 0).float()

    def dense(self, place: int, zeros: str) -> float:
        """Return the multiplications of factor `place`, were nothing in it zero, with the other."""
        return self.times(torch.ones_like(self.factors[place]), place, zeros)

    def times(self, x: Tensor, place: int, zeros: str) -> float:
        """Return how many weights `x` meets in place of factor `place`, each element by its value."""
        numbers = self.numbers(1 - place, zeros)
        return _sum(self.met(x.detach().double(), place, numbers.double()))


def _sum(x: Tensor) -> float:
    return float(round(float(x.sum(dtype=torch.float64))))


def products(name: str, args: Any, kwargs: dict[str, Any]) -> list[Product]:
    """Return the products that a function of torch, by its name, makes of its arguments."""
    if name in _AFTER:
        names = ("input", "weight", "bias", *_AFTER[name])
        given = dict(zip(names, args, strict=False)) | kwargs
        options = {key: given[key] for key in names[3:] if key in given}
        return [_layer(name, name, given["input"], given["weight"], options)]
    if name in _MATRICES:
        return _matrices(name, args, kwargs)
    if name == "einsum":
        return _einsum(*args, **kwargs)
    if name in _CELLS:
        x, state, *weights = args
        state = state[0] if isinstance(state, (tuple, list)) else state
        return [_layer("ih", "linear", x, weights[0], {}), _layer("hh", "linear", state, weights[1], {})]
    return []


def _layer(label: str, name: str, x: Tensor, weight: Tensor, options: dict[str, Any]) -> Product:
    if name == "linear":
        return Product(label, (x, weight), functional.linear, lambda n: n.sum(0), torch.mul)
    groups, convolve = options.get("groups", 1), getattr(functional, name)

    def summed(numbers: Tensor) -> Tensor:
        if "transpose" in name:
            return numbers.sum(1, keepdim=True)
        return numbers.unflatten(0, (groups, -1)).sum(1)

    def apply(x: Tensor, weight: Tensor) -> Tensor:
        convolved: Tensor = convolve(x, weight, None, **options)
        return convolved

    return Product(label, (x, weight), apply, summed, apply)


def _matrices(name: str, args: Any, kwargs: dict[str, Any]) -> list[Product]:
    named = [x for key, x in kwargs.items() if key != "out"]
    operands = [x for x in (*args, *named) if isinstance(x, Tensor)]
    if len(operands) < 2:
        return []
    a, b = operands[-2:] if name != "rmatmul" else operands[::-1]
    if b.dim() < 2 or a.dim() < 1:
        return [Product("matmul", (a, b), torch.matmul)]
    return [Product("matmul", (a, b), torch.matmul, lambda n: n.sum(-1, keepdim=True), torch.matmul)]


def _einsum(equation: Any, *operands: Any, **options: Any) -> list[Product]:
    if len(operands) == 1 and isinstance(operands[0], (tuple, list)):
        operands = tuple(operands[0])
    if not isinstance(equation, str) or len(operands) != 2:
        return []
    return [Product("einsum", operands, lambda a, b: torch.einsum(equation, a, b))]


def by_spikes(product: Product, place: int, zeros: str, *, graded: bool, bursts: bool) -> Taken:
    """Return what a product takes when its input, factor `place`, holds spikes, of whatever size.

    Each is accumulated, a burst as often as its size says, and a sum of spikes, a whole number, as often as
    there are spikes in it; or multiplied, if they are `graded`.
    """
    x = product.factors[place].detach()
    events = (x != 0).double()
    whole = bool((x >= 0).all()) and bool((x == x.round()).all())
    dense = product.dense(place, zeros) * float(events.mean())
    if graded:
        return Taken(product.times(events, place, zeros), 0.0, dense)
    sent = x if whole else events * x.clamp(min=1) if bursts else events
    return Taken(0.0, product.times(sent, place, zeros), dense)


def binary(x: Tensor) -> bool:
    """Whether all of `x` is 0 or 1."""
    return bool(((x == 0) | (x == 1)).all())


class Taken(NamedTuple):
    """Operations, and what the rough figure of the field makes of the same input."""

    mac: float
    ac: float
    rough: float


def by_value(
    product: Product, place: int | None, mask: Tensor | None, zeros: str, *, events: bool = True
) -> Taken:
    """Return what a product takes when its input, factor `place`, counts by its value.

    0 and 1 are `events`, of which each 1 is accumulated; all else is multiplied, zeros included.  With a
    `mask` of the last dimensions only those elements count.  Without a place both factors are activity: of
    two that are 0 and 1 the coincidences are accumulated; if one is, each 1 accumulates what it meets.
    """
    if place is None:
        return _both(product)
    x = product.factors[place].detach()
    here = torch.ones_like(x, dtype=torch.float64)
    chosen = x if mask is None else x[mask.expand(x.shape)]
    if mask is not None:
        here = here * mask
    if not (events and binary(chosen)):
        mac = product.times(here, place, zeros)
        return Taken(mac, 0.0, mac)
    ac = product.times(x.double() * here, place, zeros)
    density = float(chosen.double().mean()) if chosen.numel() else 0.0
    return Taken(0.0, ac, density * product.times(here, place, zeros) if ac else 0.0)


def _both(product: Product) -> Taken:
    a, b = (factor.detach().double() for factor in product.factors)
    events = binary(a), binary(b)
    dense = product.dense(0, "count")
    if not any(events):
        return Taken(dense, 0.0, dense)
    if all(events):
        ac = _sum(product.apply(a, b))
    else:
        place = events.index(True)
        ac = product.times((a, b)[place], place, "count")
    rates = [float(x.mean()) for x, is_events in zip((a, b), events, strict=True) if is_events]
    return Taken(0.0, ac, dense * rates[0])
