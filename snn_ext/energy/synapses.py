r"""How many synapses each neuron drives, counted on the network as it runs.

The network runs once on a sample.  What a spiking layer emits is followed through everything that only moves,
merges or scales spikes, in place or not, up to the layers that multiply it by weights; there each weight that
a neuron meets is one synapse.  For a convolution this is a transposed convolution of ones, so borders,
stride, dilation and groups count as they are.

===================================  ===========================================================
on the way                           a spike of one neuron
===================================  ===========================================================
Linear, convolutions, ``x @ w``      meets each of its weights there: these are counted, and it ends
a neuron's recurrent weights         are synapses, too: of ``RLeaky``, and of containers around a neuron
average pooling                      arrives in every window that it lies in
max pooling, also of spike counts    the same, at most: `measure_energy` counts what is let through
batch norm, dropout, factors         passes; a factor is a constant, such as a learned scale
``(s[..., None, :] * w).sum(-1)``    refused, if ``w`` is learned: write ``functional.linear(s, w)``
ReLU and alike, :math:`f(0)=0`       passes
moved, copied, concatenated          goes where it is put, as often as it is put there
added to spikes (residuals)          goes on with the others; several consumers add up
another spiking layer                ends without a synapse
offsets (``1 - s``), comparisons,    is none any more: what arrives at weights counts by its value
gates (``s * x``), all else
products of spikes (attention)       takes an operation for each coincidence
===================================  ===========================================================

The last two take operations that depend on the data: `measure_energy` counts them, exactly, in each batch; a
fixed number for each neuron is refused, with its name and place.

A layer of weights is a module and the products in its forward, whatever its weights are made of: pruned,
normalised, quantised or computed; what computes them from parameters and buffers alone is no synapse.  A
module that is called twice counts twice, in one row; a parameter that two modules share counts in both.
Weights that are zero count too, as in SpikingJelly's counters, or are left out with
``zero_weights="skip"``, as NeuroBench does it.
"""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from .. import checks
from . import layers
from .products import ZERO_WEIGHTS
from .tracer import REMEDY, Call, Meeting, Tracer

__all__ = ["fan_out"]


def fan_out(net: nn.Module, sample_input: Any, *, zero_weights: str = "count") -> dict[str, Tensor]:
    """Count the synapses that each neuron of `net` drives.

    Parameters
    ----------
    net : nn.Module
        A network with spiking layers of snnTorch, SpikingJelly or this package, single- or multi-step, as it
        is; it is run in evaluation mode, and left as it was found.
    sample_input : Tensor, or tuple of arguments
        What `net` is called with; one sample is enough.
    zero_weights : {"count", "skip"}, default "count"
        Whether weights that are zero, as after pruning, are synapses.

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
        `net` has no spiking layer, does not take the sample, or does with spikes what has no fixed number of
        synapses (attention, offsets, gates), by name and place.

    Notes
    -----
    See `snn_ext.energy.synapses` for what a spike meets on its way.  Psi in arXiv:2302.01500; counting
    through pooling and additions is inferred.

    Examples
    --------
    With a layer ``"1"`` of neurons before a 3 x 3 convolution of 8 channels::

        psi = fan_out(net, images[:1])["1"]  # 72 inside, 48 at the borders, 32 in the corners
    """
    return Wiring(net, sample_input, zero_weights).fan_out()


class Synapse:
    """The connections of one layer of weights: how many each neuron drives, by spiking layer."""

    def __init__(self, name: str, meeting: Meeting) -> None:
        self.name, self.key = name, (meeting.place, meeting.label)
        self.drives: dict[str, Tensor] = {}
        """Synapses of each neuron, by the layer that drives them."""
        self.bounds: dict[str, Tensor] = {}
        """The same where some of its spikes may be held back on their way."""
        self.sources, self.why = meeting.sources, meeting.why
        """Layers whose spikes count by their value, and why they have no fixed number of synapses."""
        self._calls = meeting.calls
        shapes = {shape for _, shape in meeting.dense}
        before = [dense for call, dense in meeting.before if call == meeting.since]
        self.dense = meeting.dense + [dense for dense in before if dense[1] in shapes]

    @property
    def by_value(self) -> bool:
        """Whether something that arrives counts by its value."""
        return any(call.value for calls in self._calls for call in calls)

    def call(self, run: int, index: int) -> Call:
        """Return what call `index` of a call of the network is; what has not been seen is like the last."""
        calls = self._calls[min(run, len(self._calls) - 1)] or next(filter(None, self._calls))
        return calls[min(index, len(calls) - 1)]


class Wiring:
    """The synapses of a network, found by running it on a sample."""

    def __init__(
        self, net: nn.Module, sample_input: Any, zero_weights: str = "count", needed: bool = True
    ) -> None:
        if not checks.is_one_of(zero_weights, tuple(ZERO_WEIGHTS)):
            raise ValueError(f"zero_weights={checks.shown(zero_weights)} is not known; use 'count' or 'skip'")
        self.layers = layers.spiking(net, needed)
        net = getattr(net, "_orig_mod", net)
        inputs = sample_input if isinstance(sample_input, tuple) else (sample_input,)
        inputs = tree_map(lambda x: x.detach() if isinstance(x, Tensor) else x, inputs)
        tensors = [x for x in tree_leaves(inputs) if isinstance(x, Tensor)]
        if any(x.layout is not torch.strided or x.numel() == 0 for x in tensors):
            raise ValueError(
                "sample_input, or the first batch of the loader, is empty or sparse; give it samples, dense"
            )
        self.batch = next((len(x) for x in tensors if x.dim()), 1)
        tracer = Tracer(net, self.layers, zero_weights)
        with layers.untouched(net):
            layers.reset(net)
            net.eval()
            try:
                tracer.run(inputs)
            except Exception as error:
                if checks.is_ours(error) and type(error) is not RuntimeError:  # torch's own, in C
                    raise
                raise ValueError(
                    "the network failed on sample_input, or on the first batch of the loader "
                    f"({type(error).__name__}: {error}); give what the network is called with"
                ) from error
        self.unknown = tracer.unknown
        meetings = {key: meeting for key, meeting in tracer.meetings.items() if meeting.since}
        self.synapses = [Synapse(_name(m, meetings), m) for m in meetings.values()]
        self.makes_weights = tracer.meetings.keys() - meetings.keys()
        """Places of products that no activity reaches."""
        self._count(tracer, meetings)

    def _count(self, tracer: Tracer, meetings: dict[tuple[str, str], Meeting]) -> None:
        self.shapes: dict[str, torch.Size] = {}
        steps: Counter[str] = Counter()
        for layer, leading, leaf in tracer.leaves[0]:
            self.shapes.setdefault(layer.name, leaf.shape[leading:])
            steps[layer.name] += leaf.shape[0] if leading == 2 else 1
            self.batch = leaf.shape[leading - 1]
        self.steps = max(steps.values(), default=1)
        leaves = [leaf for run in tracer.leaves for leaf in run]
        for synapse, meeting in zip(self.synapses, meetings.values(), strict=True):
            for found, total in ((synapse.drives, meeting.total), (synapse.bounds, meeting.bound)):
                if total is not None and total.requires_grad:
                    _largest(found, total, leaves)
        for name in self.shapes.keys() - tracer.consumed:
            warnings.warn(
                f"layer {name!r}: nothing consumes its spikes, so they are counted as driving no synapse",
                stacklevel=4,
            )

    def twin(self, synapse: Synapse) -> float:
        """Return the multiplications of a sample in a network without spikes and time."""
        dense = sum(number for number, _ in synapse.dense)
        whole = self.batch * self.steps
        seen = sum(self._seen(shape) for _, shape in synapse.dense)
        return dense / (whole if seen % whole == 0 else self.batch)

    def _seen(self, shape: torch.Size) -> int:
        """Return how many samples and steps an input of this shape holds."""
        return shape[:2].numel() if tuple(shape[:2]) == (self.steps, self.batch) else shape[0]

    def fan_out(self) -> dict[str, Tensor]:
        """Return the number of synapses of each neuron, by layer."""
        found = {name: torch.zeros(shape) for name, shape in self.shapes.items()}
        for synapse in self.synapses:
            if synapse.why:
                raise NotImplementedError(
                    f"{synapse.why}; so they drive no fixed number of synapses in {synapse.name!r} "
                    f"(measure_energy counts what arrives there); {REMEDY}"
                )
            for drives in (synapse.drives, synapse.bounds):
                for name, psi in drives.items():
                    found[name] = found[name].to(psi.device) + psi
        return found


def _name(meeting: Meeting, meetings: dict[tuple[str, str], Meeting]) -> str:
    """Return what a layer of weights is called: its module, and which weights there if there are more."""
    alone = sum(place == meeting.place for place, _ in meetings) == 1
    if meeting.place and (alone or not meeting.label):
        return meeting.place
    return f"{meeting.place}.{meeting.label}".strip(".")


def _largest(found: dict[str, Tensor], total: Tensor, leaves: list[Any]) -> None:
    """Note the largest number of synapses of each neuron, over samples, steps and calls."""
    grads = torch.autograd.grad(total, [leaf for *_, leaf in leaves], retain_graph=True, allow_unused=True)
    for (layer, leading, _), grad in zip(leaves, grads, strict=True):
        if grad is not None:
            most = grad.round().flatten(0, leading - 1).amax(0)
            before = found.get(layer.name)
            found[layer.name] = most if before is None else torch.maximum(before, most)
