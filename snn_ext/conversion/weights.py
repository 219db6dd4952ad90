r"""The L4 norm of weights, what it says about noise, and the rules that adjust weights by it.

A neuron that receives independent spike trains of rates :math:`r_i` through weights :math:`w_i` has, before
it fires, a potential whose variance grows in every step by

.. math::

    \sum_i w_i^2\,r_i \quad\text{(Poisson)}, \qquad \sum_i w_i^2\,r_i (1 - r_i) \quad\text{(Bernoulli: at most
    one spike a step)},

so by :math:`\lVert w \rVert_4^2 \lVert r \rVert_2 \cos(w^2, r)`: its standard deviation is proportional to
the L4 norm of its weights.  After :math:`T` steps it has grown with :math:`\sqrt T`.

Source: J. Allred and K. Roy, arXiv:2111.09446: the law, and the idea to adjust weights by the L4 norm in
conversion.  The paper's formula is not known to us, so the rules below are interpretations, each with a name
of ours.  With :math:`n_j` the L4 norm of neuron :math:`j` in units of its threshold, :math:`\bar n` the mean
over its layer, and strength :math:`c`:

=============  ====================================================================================
``none``       nothing
``scale``      weights and bias times :math:`(\bar n / n_j)^c`: noisy neurons hear less
``equalize``   the same, undone in the next layer's weights: the ReLU network's function is untouched
``threshold``  threshold times :math:`1 + c\,n_j`: noisy neurons need more
``bias``       :math:`c\,n_j` subtracted from the input of every step; a negative strength adds
=============  ====================================================================================

The factors of ``scale`` and ``equalize`` are kept between 1/4 and 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .. import checks

LIMIT = 4.0
"""By how much a row is scaled at most: training with weight decay leaves channels of next to no weights."""
RULES = ("none", "scale", "equalize", "threshold", "bias")


def l4_norm(weight: Tensor) -> Tensor:
    r"""Return the L4 norm :math:`(\sum_i w_i^4)^{1/4}` of each output neuron's weights.

    Parameters
    ----------
    weight : Tensor, shape (outputs, ...)
        Of a Linear or Conv layer.

    Returns
    -------
    Tensor, shape (outputs,)

    Raises
    ------
    TypeError, ValueError
        Not a floating-point tensor with a dimension of outputs and at least one of inputs.

    Examples
    --------
    >>> l4_norm(torch.tensor([[3.0, 0.0], [2.0, 2.0]])).tolist()
    [3.0, 2.3784141540527344]
    """
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        found = weight.dtype if isinstance(weight, Tensor) else type(weight).__name__
        raise TypeError(f"weight must be a floating-point torch.Tensor, got {found}")
    checks.floating("weight", weight)
    if weight.dim() < 2:
        raise ValueError(
            f"weight of shape {tuple(weight.shape)} has no dimension of inputs; give (outputs, inputs, ...)"
        )
    rows = weight.detach().flatten(1)
    largest = rows.abs().amax(1)  # fourth powers of small weights would vanish
    return largest * torch.linalg.vector_norm(rows / torch.where(largest > 0, largest, 1).unsqueeze(1), 4, 1)


def noise_std(weight: Tensor, rate: Tensor, steps: int = 1, *, coding: str = "bernoulli") -> Tensor:
    r"""Return the standard deviation of the potential that spikes of `rate` leave after `steps` steps.

    That of a neuron that neither leaks nor has fired:
    :math:`\sqrt{T \sum_i w_i^2 r_i}` for Poisson trains, with :math:`r_i (1 - r_i)` for Bernoulli ones.

    Parameters
    ----------
    weight : Tensor, shape (outputs, inputs)
        Weights of the neurons.
    rate : Tensor, shape (..., inputs)
        Expected spikes a step.
    steps : int, default 1
        Number of steps T.
    coding : {"bernoulli", "poisson"}, default "bernoulli"
        At most one spike a step, as ``snntorch.spikegen.rate`` and SpikingJelly's ``PoissonEncoder`` draw
        them, or any number.

    Returns
    -------
    Tensor, shape (..., outputs)

    Source: arXiv:2111.09446; the Bernoulli case by derivation.
    """
    if not checks.is_one_of(coding, ("bernoulli", "poisson")):
        raise ValueError(f"coding={checks.shown(coding)} is not known; use 'bernoulli' or 'poisson'")
    for name, value in (("weight", weight), ("rate", rate)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
        checks.floating(name, value)
    if not checks.is_whole(steps):
        raise ValueError(f"steps={checks.shown(steps)} must be a whole number of at least 1")
    if (
        weight.dim() != 2
        or rate.dim() < 1
        or rate.shape[-1] != weight.shape[1]
        or rate.device != weight.device
    ):
        raise ValueError(
            f"rate of shape {tuple(rate.shape)} on {rate.device} does not fit weight of shape "
            f"{tuple(weight.shape)} on {weight.device}; give (..., inputs) and (outputs, inputs)"
        )
    weight = checks.floating("weight", weight)
    rate = checks.floating("rate", rate).to(weight.dtype)
    variance = rate * (1 - rate) if coding == "bernoulli" else rate
    return (steps * variance @ (weight**2).T).sqrt()


class Adjustment(NamedTuple):
    """What `l4_adjust` returns, an entry a layer: weights, factors of the thresholds, offsets a step."""

    weights: list[Tensor]
    thresholds: list[Tensor]
    offsets: list[Tensor]


def l4_adjust(weights: Tensor | Sequence[Tensor], rule: str = "none", strength: float = 1.0) -> Adjustment:
    """Adjust the weights of successive layers by their L4 norms.

    Parameters
    ----------
    weights : Tensor or sequence of Tensor, each of shape (outputs, inputs, ...)
        Of successive layers, in units of the thresholds (a threshold is 1).  Each layer takes the outputs of
        the one before, channel by channel; a linear layer behind a flattened convolution is recognised by its
        number of inputs, a multiple.
    rule : {"none", "scale", "equalize", "threshold", "bias"}
        See `snn_ext.conversion.weights`.  Only ``"equalize"`` looks at the next layer; it leaves the last
        one's outputs as they are.
    strength : float, default 1.0
        See there.

    Returns
    -------
    Adjustment
        New tensors: the weights, the factor of each neuron's threshold, and what is added to its input at
        each step.  What a rule does not touch is 1 or 0.  (Biases of the ANN: times the same factors as the
        rows.)

    Raises
    ------
    TypeError, ValueError
        Naming the argument, the value and the remedy.

    Examples
    --------
    >>> layers = torch.tensor([[1.0, 0.0], [2.0, 0.0]]), torch.tensor([[1.0, 1.0]])
    >>> equal = l4_adjust(layers, "equalize", 1.0)
    >>> equal.weights[0].tolist(), [round(w, 3) for w in equal.weights[1][0].tolist()]
    ([[1.5, 0.0], [1.5, 0.0]], [0.667, 1.333])
    """
    check_rule(rule)
    strength = check_strength(strength)
    if not isinstance(weights, (Tensor, Sequence)) or isinstance(weights, (str, bytes)):
        raise TypeError(f"weights must be tensors, one for each layer, got {type(weights).__name__}")
    layers = [weights] if isinstance(weights, Tensor) else list(weights)
    if not layers:
        raise ValueError("weights is empty; give at least one layer")
    norms = [l4_norm(weight) for weight in layers]
    new = [weight.detach().clone() for weight in layers]
    thresholds = [torch.ones_like(norm) for norm in norms]
    offsets = [torch.zeros_like(norm) for norm in norms]
    for i, norm in enumerate(norms):
        if rule in ("scale", "equalize") and not (rule == "equalize" and i == len(new) - 1):
            factor = row_factor(norm, strength)
            new[i] *= _along(factor, 0, new[i])
            if rule == "equalize":
                columns = new[i + 1].shape[1]
                if columns % len(factor):
                    raise ValueError(
                        f"weights[{i + 1}] takes {columns} inputs, which is no multiple of the {len(factor)} "
                        f"outputs of weights[{i}]; give layers that follow one another"
                    )
                new[i + 1] /= _along(factor.repeat_interleave(columns // len(factor)), 1, new[i + 1])
        elif rule == "threshold":
            thresholds[i] = threshold_factor(norm, strength)
        elif rule == "bias":
            offsets[i] = -strength * norm
    return Adjustment(new, thresholds, offsets)


def row_factor(norm: Tensor, strength: float) -> Tensor:
    """Return (mean / norm) ** strength, between 1 / `LIMIT` and `LIMIT`; 1 where there are no weights."""
    mean = norm[norm > 0].mean() if bool((norm > 0).any()) else norm.new_tensor(1.0)
    factor = torch.where(norm > 0, mean / torch.where(norm > 0, norm, mean), 1.0) ** strength
    return factor.clamp(1 / LIMIT, LIMIT)


def threshold_factor(norm: Tensor, strength: float) -> Tensor:
    """Return 1 + strength * norm, or raise where that is no threshold."""
    factor = 1 + strength * norm
    if not bool((factor > 0).all()):
        raise ValueError(
            f"strength={strength:g} makes the threshold of the neuron with L4 norm {norm.max().item():.3g} "
            f"{factor.min().item():.3g}; use a strength above {-1 / norm.max().item():.3g}"
        )
    return factor


def check_rule(rule: str) -> None:
    """Raise unless `rule` is one of `RULES`."""
    if not checks.is_one_of(rule, RULES):
        raise ValueError(f"rule={checks.shown(rule)} is not known; use one of {', '.join(map(repr, RULES))}")


def check_strength(strength: float) -> float:
    """Return `strength` as a finite float, or raise."""
    value = checks.number_or_tensor("strength", strength)
    if isinstance(value, Tensor):
        raise TypeError("strength must be a number, got a Tensor; give one strength for all layers")
    if not math.isfinite(value):
        raise ValueError(f"strength={value:g} must be finite")
    return value


def _along(vector: Tensor, dim: int, like: Tensor) -> Tensor:
    shape = [1] * like.dim()
    shape[dim] = -1
    return vector.reshape(shape)
