"""NIR exchange: what cannot be said in NIR is refused, never exported as something else.

SpikingJelly's exporter traces a network symbolically and stops inside a neuron that it does not know.
The neurons of this package meet the tracer's stand-in for a tensor with a clear line instead.
"""

from __future__ import annotations

from typing import Any

import torch.fx


def refuse_tracing(module: Any, x: Any) -> None:
    """Raise if `x` is a symbolic tensor, as in ``nir_exchange.export_to_nir`` or ``torch.fx``."""
    if isinstance(x, torch.fx.Proxy):
        raise NotImplementedError(
            f"{type(module).__name__} cannot be exported to NIR, which has no node for graded spikes, nor be "
            "traced by torch.fx; leave it out of what is exported, or make it a leaf module of your tracer"
        )
