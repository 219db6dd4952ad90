"""NIR exchange: what cannot be said in NIR is refused, never exported as something else.

snnTorch's exporter writes every subclass of ``snn.Leaky`` as a plain LIF.  NIR has no node for a
graded spike, so on import of this package the exporter's module mapping gets one guard in front.
That is the only thing patched on import.
"""

from __future__ import annotations

import functools
from typing import Any

from .neurons import VSN


def install_guard() -> None:
    """Make ``snntorch.export_nir`` refuse the neurons of this package; does nothing without ``nir``."""
    try:
        from snntorch import export_nir
    except ImportError:  # without nir and nirtorch nothing can be exported in the first place
        return
    extract = export_nir._extract_snntorch_module
    if getattr(extract, "_snn_ext_guard", False):
        return

    @functools.wraps(extract)
    def guarded(module: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(module, VSN):
            raise NotImplementedError(
                "VSN cannot be exported to NIR: NIR has no node for graded spikes, and a LIF node would "
                "compute something else; export the network without it, or replace it by snn.Leaky and "
                "train again"
            )
        return extract(module, *args, **kwargs)

    guarded._snn_ext_guard = True  # type: ignore[attr-defined]
    export_nir._extract_snntorch_module = guarded
