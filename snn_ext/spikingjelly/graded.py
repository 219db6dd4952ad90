"""Where SpikingJelly reads spikes as 0 and 1, and is silently wrong on others: ``docs/graded_spikes.md``."""

from __future__ import annotations

from ..graded import Guarded

__all__ = ["GUARDED"]

_HERE = "spikingjelly.activation_based"
_FILTER = "decays by 1 - s, which is wrong for graded and burst spikes"
_LOST = "keeps 0 and 1 alone, and gives a graded or burst spike back as 1"
_DRAWN = "draws spikes of exactly 1 alone, and leaves graded and burst ones out"
_WEIGHTS = "keeps spikes as 0 and 1 for the gradient of its weights on CUDA"
_PLOTS = (("plot_1d_spikes", 0), ("plot_one_neuron_v_s", 1))
GUARDED = (
    # in 2.0 these stand in modules of their own, in 0.0.0.0.14 in the package
    *(
        Guarded(module, "first_spike_index", 0, "misses a first spike that is not exactly 1")
        for module in (f"{_HERE}.functional.misc", f"{_HERE}.functional")
    ),
    Guarded(f"{_HERE}.functional.spike", "bit_spike_compress", 0, _LOST),
    Guarded(f"{_HERE}.functional.spike", "bit_pack_spike_dense", 0, _LOST),
    Guarded(f"{_HERE}.functional.layer", "synapse_filter_step", 0, f"(in SynapseFilter) {_FILTER}"),
    Guarded(f"{_HERE}.layer", "SynapseFilter.single_step_forward", 1, _FILTER),
    *(
        Guarded(f"{_HERE}.memopt.compress", f"{kind}SpikeCompressor.compress", 1, _LOST)
        for kind in ("Boolean", "Bit", "Sparse")
    ),
    Guarded(f"{_HERE}.memopt.compress", "Uint8SpikeCompressor.compress", 1, "cuts off signs and fractions"),
    *(
        Guarded(module, name, place, _DRAWN)
        for module in ("spikingjelly.visualizing.spikes", "spikingjelly.visualizing")
        for name, place in _PLOTS
    ),
    *(
        Guarded(f"{_HERE}.spike_op", f"spike_{kind}", 0, _WEIGHTS, "graded on CUDA")
        for kind in ("linear", "conv1d", "conv2d", "conv3d")
    ),
)
"""What is guarded on import; what a release does not have is left out."""
