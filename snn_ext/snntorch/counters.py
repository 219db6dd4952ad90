"""NeuroBench's operations of neurons, told what an update of this package's neurons costs.

NeuroBench's ``SNNTorchModel`` takes the neurons as they are, and so do its metrics, but for
``NeuronOperations``: it knows the operations of an update by the name of the class and of the reset
mechanism, and nothing of ours before `register_neurobench`.

They are counted as NeuroBench counts ``Leaky``: additions and multiplications that make the next potential.

=============  ==============================================================================  =======
reset          potential                                                                       count
=============  ==============================================================================  =======
``subtract``   ``beta * mem + x - r * threshold``, of a SoftResetMPR ``- r * amplitude``       4
``zero``       ``base - r * base`` with ``base = beta * mem + x``                              4
``none``       ``beta * mem + x``                                                              2
=============  ==============================================================================  =======

Comparisons with a threshold are not counted, as ``Leaky``'s is not, nor what makes the emission of the events
(a VSN's ``x * r``, a LIFB's ``(kappa - 1) * b``); the rectifier of a SoftResetMPR has a gradient only.

NeuroBench's ``SynapticOperations`` counts an element that is not -1, 0 or 1 as one multiply-accumulate: so it
counts a VSN as `snn_ext.energy.measure_energy` does, but a burst once, and its layer as MAC.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

__all__ = ["register_neurobench", "unregister_neurobench"]

_MODULE = "neurobench.metrics.workload.neuron_operations"
_OPERATIONS: dict[str, dict[str, int]] = {
    "VSN": {"zero": 4},
    "LIFB": {"subtract": 4, "zero": 4, "none": 2},
    "SoftResetMPR": {"subtract": 4, "zero": 4},
}


def register_neurobench() -> None:
    """Let NeuroBench's ``NeuronOperations`` count ``VSN``, ``LIFB`` and ``SoftResetMPR``.

    Enters them into ``neurobench.metrics.workload.neuron_operations.neuron_ops_reset_operations``; see the
    module for the numbers.  May be called again; `unregister_neurobench` undoes it.  Nothing else of this
    package imports NeuroBench.

    Raises
    ------
    ImportError
        NeuroBench is not installed, or has no operations of neurons.
    ValueError
        It has other numbers under one of the names; then nothing has been changed.

    Examples
    --------
    ::

        from neurobench.metrics.workload import NeuronOperations
        from neurobench.models import SNNTorchModel

        register_neurobench()
        Benchmark(SNNTorchModel(net), loader, [], [], [[], [NeuronOperations]]).run()
    """
    table = _table()
    for name, operations in _OPERATIONS.items():
        if table.get(name, operations) != operations:
            raise ValueError(
                f"NeuroBench has operations of a {name} already ({table[name]}); take them out of "
                "neuron_ops_reset_operations, or count with those"
            )
    for name, operations in _OPERATIONS.items():
        table.setdefault(name, operations)


def unregister_neurobench() -> None:
    """Undo `register_neurobench`; what has been entered by others is left alone."""
    if _MODULE in sys.modules:
        table = _table()
        for name, operations in _OPERATIONS.items():
            if table.get(name) is operations:
                del table[name]


def _table() -> dict[str, Any]:
    try:
        return importlib.import_module(_MODULE).neuron_ops_reset_operations
    except ImportError as error:
        raise ImportError(
            f"{_MODULE} cannot be imported ({error}); install with: pip install neurobench==2.3.0, or "
            "--no-deps, which is enough for its models and metrics"
        ) from error
