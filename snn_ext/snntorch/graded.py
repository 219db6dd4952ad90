"""Where snnTorch reads spikes as 0 and 1, and is silently wrong on others: ``docs/graded_spikes.md``."""

from __future__ import annotations

from ..graded import Guarded

__all__ = ["GUARDED"]

_LOSS, _ACCURACY = "snntorch.functional.loss", "snntorch.functional.acc"
_TIME = "takes the size of a graded or burst spike for time"
_COUNT = "counts the size of a graded or burst spike, against a target number of spikes"
GUARDED = (
    Guarded(_LOSS, "SpikeTime.forward", 1, f"(in mse_temporal_loss and ce_temporal_loss) {_TIME}"),
    Guarded(_LOSS, "mse_count_loss._compute_loss", 1, _COUNT),
    Guarded(_LOSS, "mse_count_loss.__call__", 1, _COUNT),  # before 0.9
    Guarded(_ACCURACY, "accuracy_temporal", 0, _TIME),
    Guarded(
        "snntorch.functional.reg",
        "l1_rate_sparsity.__call__",
        1,
        "rewards negative graded spikes: they lower its sum",
        "negative",
    ),
)
"""What is guarded on import; what a release does not have is left out."""
