r"""LIFB in the words of NIR, the exchange format of neuromorphic software: plain LIF neurons alone.

NIR has linear layers, and LIF neurons that reset *hard*; it has no neuron with two thresholds, and no
wire by which one neuron resets another.  A LIFB with a hard reset to zero can be said nevertheless, by
one recurrent layer of LIF neurons with the LIFB's own decay and one threshold :math:`\lambda > 0` for
all. Each LIFB neuron becomes seven, plus one that the whole layer shares:

==============  =========================================================================================
``A0``, ``A1``  In turn one is *active* and one is *held*; they change places at every event
``B0``, ``B1``  the same, in step with ``A0`` and ``A1``; when active, they fire for a burst
``GA``, ``GB``  event and burst of the first step; held ever after
``P``           the place of the turn
``C``           fires at every step
==============  =========================================================================================

*Active* neurons integrate the input current of the LIFB, less an offset that makes :math:`\lambda`
stand for the threshold they need: their potential is :math:`h_t - \alpha` with :math:`\alpha = \theta -
\lambda` for the event, or :math:`h_t - \beta` with :math:`\beta = \theta_b - \lambda` for the burst.
*Held* neurons get a current on top that is so strong (`HOLD`) that they fire and are reset
at every step.  So a held neuron is at rest when it becomes active, and that is the reset which a
regular spike owes to the burst neuron.  The synapses between these neurons take one step, as recurrent
ones do, and are linear. With the spikes of step :math:`t - 1`,

.. math::

    p_t = C + A_0 - A_1 - P, \qquad a_{t-1} = A_0 + A_1 - G_A, \qquad z_t = C - G_A ,

:math:`p_t` holds ``A0`` and ``B0`` and drives ``P``; :math:`C - p_t` holds ``A1`` and ``B1``; :math:`C`
holds ``GA`` and ``GB``.  Every A, B and ``GA`` gets :math:`-\alpha` at every step, and ``GB``
:math:`-\beta`.  On top, ``A0`` and ``A1`` get :math:`d\,\alpha\,(C - a_{t-1})`, and ``B0`` and ``B1``
get :math:`-(\beta - \alpha)\,C + d\,\beta\,(C - a_{t-1}) - d\,(\beta - \alpha)\,z_t`.  The output is

.. math::

    y_t = a_t + (\kappa - 1)\,b_t, \qquad a_t = A_0 + A_1 - G_A, \qquad b_t = B_0 + B_1 - 2 G_A + G_B .

**Proof** that :math:`a_t` and :math:`b_t` are the events and bursts of the LIFB.

*First step.*  No spike has been yet, nothing is held.  ``A0``, ``A1``, ``B0``, ``B1`` and ``GA`` stand
at :math:`h_1 - \alpha` and fire exactly at the event, ``GB`` at :math:`h_1 - \beta` and fires exactly
at the burst. Hence the sums are right.  ``A1`` and ``B1`` are left at 0 after an event, else at
:math:`v_1 - \alpha`.

*Second step.*  :math:`p_2 = 1`, so ``A1`` and ``B1`` are active.  After an event (:math:`a_1 = 1`,
:math:`z_2 = 0`) they start at 0 and get :math:`-\alpha` and :math:`-\alpha - (\beta - \alpha) =
-\beta`.  Without one (:math:`a_1 = 0`, :math:`z_2 = 1`) they keep :math:`d\,v_1 - d\,\alpha` and get
:math:`-\alpha + d\,\alpha` and :math:`-\beta + d\,\beta - d\,(\beta - \alpha) = -\beta + d\,\alpha`.
Either way they stand at :math:`h_2 - \alpha` and :math:`h_2 - \beta`.

*Later steps, by induction.*  ``GA`` fires, so :math:`z_t = 0`.  After an event the newly active A and B
were held: they start at 0, as the LIFB does, and get :math:`-\alpha` and :math:`-\beta`.  Without one
they keep :math:`d\,(v_{t-1} - \alpha)` and :math:`d\,(v_{t-1} - \beta)` and get :math:`-\alpha +
d\,\alpha` and :math:`-\beta + d\,\beta`.  Either way they stand at :math:`h_t - \alpha` and :math:`h_t
- \beta`.

*So from the second step on* the active A fires at the event and the active B at the burst, while the
held ones, ``GA`` and ``GB`` fire; the sums are :math:`a + 1 - 1` and :math:`b + 1 - 2 + 1`.  And the
turn changes exactly at an event: :math:`p_{t+1}` is :math:`1 + a - 1 - 0 = a` if ``A0`` was active
(:math:`p_t = 0`, so ``P`` was silent) and :math:`1 + 1 - a - 1 = 1 - a` if ``A1`` was (:math:`p_t = 1`,
``P`` fired).  ∎

Potentials are equal up to the rounding of the offsets, so a spike can differ only where a potential is
that near to a threshold; and the input must stay below `HOLD`.  A neuron without leak is
written with a decay of `SLOWEST`.  (The construction is ours.)

**Ties.**  NIR's neurons fire above their threshold.  Half of the readers fire at it, too: SpikingJelly and
sinabs do, snnTorch and Norse do not.  What stands exactly at a threshold (averages of spikes do) must not
hang on that, so `beside` writes the next float32 threshold: above for a neuron that fires strictly above,
below for one that fires at its threshold.  Then either kind of reader gives the spikes of the network, but
for a potential that stands at the written threshold itself, one unit in the last place away.

`snn_ext.nir_graph` writes whole networks.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import nir
import numpy as np
from numpy.typing import ArrayLike, NDArray

HOLD = 2.0**14
"""The current that holds a neuron, in units of the largest of its threshold and offsets."""

SLOWEST = 1 - 2.0**-24
"""The decay that stands for none: NIR has a LIF with a finite time constant only."""

COPIES = ("A0", "A1", "B0", "B1", "GA", "GB", "P")

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Neurons:
    """What a NIR graph needs to know of a layer: its parameters, each a number or an array per neuron.

    `emitted` is what a spike carries, `rest` the potential that a leak and a reset lead to, and `fires_at`
    says that a neuron fires at its threshold, too; without a burst threshold the neurons are plain LIF.
    """

    decay: Any
    gain: Any
    threshold: Any
    emitted: Any = 1.0
    burst_threshold: Any = None
    burst_intensity: Any = 1.0
    rest: float = 0.0
    fires_at: bool = False


@dataclasses.dataclass
class Scale:
    """Factors and perhaps offsets by channel: folded into weights, or written as weights of their own."""

    factor: NDArray[Any]
    offset: NDArray[Any] | None
    shape: Shape


Nodes = tuple[dict[str, Any], list[tuple[str, str]], str, str]
"""Nodes and edges, and by which nodes they are entered and left."""


def expand(name: str, neurons: Neurons, shape: Shape, *, dt: float, unit_resistance: bool) -> Nodes:
    """Return LIF neurons that do what `neurons` do, as nodes of a graph.

    Parameters
    ----------
    name : str
        Of the layer, and of its LIF node.
    shape : tuple of int
        Shape of the layer without batch: ``(n,)``, ``(channels, length)`` or ``(channels, height, width)``.
    dt : float
        Time step in seconds.
    unit_resistance : bool
        Write ``r = 1`` and put the resistance into the weights before, for readers that take no other.
    """
    if neurons.burst_threshold is None or np.isposinf(neurons.burst_threshold).all():  # never bursts
        make = _plain
    elif np.isposinf(neurons.burst_threshold).any():
        raise NotImplementedError(
            f"some neurons of {name!r} have an infinite burst threshold; give them a large one instead"
        )
    else:
        make = _bursting
    return make(name, neurons, shape, dt, unit_resistance)


def _plain(name: str, neurons: Neurons, shape: Shape, dt: float, unit_resistance: bool) -> Nodes:
    decay, gain, threshold, emitted = (
        _full(value, shape) for value in (neurons.decay, neurons.gain, neurons.threshold, neurons.emitted)
    )
    decay = np.minimum(decay, SLOWEST)
    resistance = gain / (1 - decay)
    if np.allclose(resistance, 1, rtol=1e-12):
        resistance = np.ones(shape)
    nodes: dict[str, Any] = {}
    if unit_resistance and not np.all(resistance == 1):
        nodes[f"{name}_scale"] = Scale(per_channel(name, resistance, shape), None, shape)
    nodes[name] = _lif(
        decay, threshold, dt, None if unit_resistance else resistance, neurons.rest, neurons.fires_at
    )
    if not np.all(emitted == 1):
        nodes[f"{name}_emitted"] = Scale(per_channel(name, emitted, shape), None, shape)
    names = list(nodes)
    return nodes, list(itertools.pairwise(names)), names[0], names[-1]


def _bursting(name: str, neurons: Neurons, shape: Shape, dt: float, unit_resistance: bool) -> Nodes:
    given = (neurons.decay, neurons.gain, neurons.threshold, neurons.burst_threshold, neurons.emitted)
    d, gain, threshold, burst_threshold, emitted, intensity = (
        per_channel(name, _full(value, shape), shape) for value in (*given, neurons.burst_intensity)
    )
    d = np.minimum(d, SLOWEST)
    shared = d[0]  # the clock is reset at every step, so its decay does not matter
    same = bool((threshold == threshold[0]).all() and threshold[0] > 0)
    level = threshold[0] if same else max(1.0, threshold.max())  # readers want one for all
    alpha, beta = threshold - level, burst_threshold - level
    hold = HOLD * max(level, np.abs(alpha).max(), np.abs(beta).max())
    one = np.ones_like(d)
    n, k = d.size, len(COPIES)
    a0, a1, b0, b1, ga, gb, p = range(k)

    into = np.zeros((k, 1, n))
    into[[a0, a1, b0, b1, ga, gb], 0] = gain
    bias = np.zeros((k, n))
    bias[[a0, a1, b0, b1, ga]], bias[gb] = -alpha, -beta
    to_sums = np.zeros((4, k, n))  # p, C - p, a and z from the spikes; C apart
    to_sums[0, [a0, a1, p]] = np.array([1.0, -1.0, -1.0])[:, None]
    to_sums[1] = -to_sums[0]
    to_sums[2, [a0, a1, ga]] = np.array([1.0, 1.0, -1.0])[:, None]
    to_sums[3, ga] = -1.0
    to_sums_from_clock = np.array([1.0, 0.0, 0.0, 1.0])[:, None] * np.ones(n)
    from_sums = np.zeros((k, 4, n))
    from_sums[[a0, b0], 0] = from_sums[[a1, b1], 1] = hold
    from_sums[p, 0] = 2 * level
    from_sums[[a0, a1], 2], from_sums[[b0, b1], 2] = -d * alpha, -d * beta
    from_sums[[b0, b1], 3] = -d * (beta - alpha)
    from_clock = np.zeros((k, n))
    from_clock[[a0, a1]], from_clock[[b0, b1]] = d * alpha, d * beta - (beta - alpha)
    from_clock[[ga, gb]] = hold
    out = np.zeros((1, k, n))
    more = (intensity - 1) * one
    out[0, [a0, a1]], out[0, [b0, b1, gb]], out[0, ga] = 1.0, more, -1 - 2 * more

    resistance = 1 / (1 - d) if unit_resistance else one
    clock = 1 / (1 - shared) if unit_resistance else 1.0
    expand_weights = _blocks(into * resistance, last_row=np.zeros(n))
    # The holding currents cancel among the sums, not among the currents, where they would round the rest.
    sums = _blocks(to_sums, last_column=to_sums_from_clock, last_row=np.zeros(k * n), corner=1.0)
    currents = _blocks(from_sums * resistance, last_column=from_clock * resistance, last_row=np.zeros(4 * n))
    contract = _blocks(out * emitted, last_column=np.zeros((1, n)))
    expand_bias = np.append((bias * resistance).ravel(), 2 * level * clock)

    spatial = shape[1:]
    size = (k * n + 1, *spatial)
    decays = np.concatenate([np.tile(d, k), [shared]]).reshape(-1, *[1] * len(spatial))
    decays = np.broadcast_to(decays, size)
    r = None if unit_resistance else 1 / (1 - decays)
    nodes = {
        f"{name}_expand": weights(expand_weights, expand_bias, shape),
        name: _lif(decays, np.full(size, level), dt, r, 0.0, neurons.fires_at),
        f"{name}_sums": weights(sums, None, shape),
        f"{name}_currents": weights(currents, None, shape),
        f"{name}_contract": weights(contract, None, shape),
    }
    edges = [
        (f"{name}_expand", name),
        (name, f"{name}_sums"),
        (f"{name}_sums", f"{name}_currents"),
        (f"{name}_currents", name),
        (name, f"{name}_contract"),
    ]
    return nodes, edges, f"{name}_expand", f"{name}_contract"


def _blocks(
    diagonals: NDArray[Any],
    *,
    last_column: NDArray[Any] | None = None,
    last_row: NDArray[Any] | None = None,
    corner: float = 0.0,
) -> NDArray[Any]:
    """Return a matrix of diagonal blocks, with a column and a row for the clock where they are given."""
    matrix = np.block([[np.diag(diagonal) for diagonal in row] for row in diagonals])
    if last_column is not None:
        matrix = np.concatenate([matrix, last_column.reshape(-1, 1)], axis=1)
    if last_row is not None:
        row = last_row if last_column is None else np.append(last_row, corner)
        matrix = np.concatenate([matrix, row[None]], axis=0)
    return matrix


def weights(matrix: NDArray[Any], bias: NDArray[Any] | None, shape: Shape) -> nir.NIRNode:
    """Return a linear node over channels: dense for ``(n,)``, else a convolution with a kernel of one.

    Never a ``nir.Linear``, which not all readers know: without a bias they get one of zeros.
    """
    matrix = matrix.astype(np.float32)
    bias = np.zeros(len(matrix), np.float32) if bias is None else bias.astype(np.float32)
    if len(shape) == 1:
        return nir.Affine(matrix, bias)
    if len(shape) == 2:
        return nir.Conv1d(shape[1], matrix[:, :, None], 1, 0, 1, 1, bias)
    return nir.Conv2d((shape[1], shape[2]), matrix[:, :, None, None], (1, 1), (0, 0), (1, 1), 1, bias)


def _lif(
    decay: NDArray[Any],
    threshold: NDArray[Any],
    dt: float,
    resistance: NDArray[Any] | None,
    rest: float,
    fires_at: bool,
) -> nir.LIF:
    tau = (dt / (1 - decay)).astype(np.float32)
    r = np.ones_like(tau) if resistance is None else resistance.astype(np.float32)
    rests = np.full_like(tau, rest)
    return nir.LIF(tau=tau, r=r, v_leak=rests, v_threshold=beside(threshold, fires_at), v_reset=rests.copy())


def beside(threshold: ArrayLike, fires_at: bool) -> NDArray[Any]:
    """Return the float32 next to `threshold`: below it for neurons that fire at it, else above.

    Next to zero it is the smallest normal number, for denormal ones may be taken for zero.
    """
    exact = np.asarray(threshold, dtype=np.float32)
    side = np.float32(-np.inf if fires_at else np.inf)
    tiny = np.copysign(np.finfo(np.float32).tiny, side)
    near = np.where(exact == 0, tiny, np.nextafter(exact, side))
    return np.where(np.isfinite(exact), near, exact)


def _full(value: ArrayLike, shape: Shape) -> NDArray[Any]:
    return np.broadcast_to(np.asarray(value, dtype=np.float64), shape)


def per_channel(name: str, value: NDArray[Any], shape: Shape) -> NDArray[Any]:
    """Return one value per channel, or raise if a map of neurons has several."""
    if len(shape) not in (1, 2, 3):
        raise NotImplementedError(
            f"{name!r} has neurons of shape {shape}; NIR export covers (n,), (channels, length) and "
            "(channels, height, width)"
        )
    flat = value.reshape(shape[0], -1)
    if not (flat == flat[:, :1]).all():
        raise NotImplementedError(
            f"the neurons of {name!r} have parameters that differ within a channel, which a convolution "
            "cannot carry; NIR export covers parameters per layer and per channel"
        )
    return flat[:, 0].copy()
