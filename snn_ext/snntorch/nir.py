"""NIR exchange for snnTorch: LIFB as plain LIF neurons; what cannot be said in NIR is refused.

snnTorch's own exporter writes every subclass of ``snn.Leaky`` as a plain LIF, whatever it does.  On import
of this package the exporter's module mapping gets one guard in front, so that it refuses instead.
Beside it, only `snn_ext.graded` patches on import: warnings, no values.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import snntorch as snn
import torch
from torch import Tensor, nn

from .. import decoupling
from ._base import Neuron
from .decoupling import DecoupledLIFB
from .neurons import LIFB, SoftResetMPR

__all__ = ["export_to_nir", "install_guard"]

_NATIVE = (snn.Synaptic, snn.RLeaky, snn.RSynaptic)
"""Neurons that snnTorch's exporter writes, beside `snn.Leaky`."""

DT = 1e-4
"""The time step in seconds with which snnTorch reads and writes NIR."""


def export_to_nir(
    module: nn.Module,
    sample_data: Tensor,
    model_name: str = "snntorch",
    model_fwd_args: Sequence[Any] = (),
    ignore_dims: Sequence[int] = (),
    *,
    unit_resistance: bool = False,
    fold: bool = False,
) -> Any:
    """Convert a network with this package's neurons to NIR.

    ======================  ========================================================================
    layer                   in NIR
    ======================  ========================================================================
    `LIFB`, zero            one recurrent layer of LIF neurons, spike for spike: see `snn_ext.nir`
    `SoftResetMPR`, zero    LIF (the rectifier changes no spike)
    ``snn.Leaky``, zero     LIF
    ``snn.Synaptic``,       as snnTorch writes them
    ``RLeaky``,
    ``RSynaptic``, zero
    any of them, otherwise  refused: a LIF of NIR resets hard, to zero
    `VSN`                   refused: NIR has no graded spikes
    the rest                see `snn_ext.nir_graph`: Linear, Conv1d, Conv2d, average and sum pooling,
                            Flatten, Identity and additions; batch norm and Dropout with `fold`; else
                            refused by name
    ======================  ========================================================================

    Parameters
    ----------
    module : nn.Module
        A network of layers and additions.  It is left untouched, whatever state it is in.
    sample_data : Tensor
        What `module` takes in one call: a batch (N, ...), or one sample where its layers take one.
    model_name : str
        As for ``snntorch.export_nir.export_to_nir``, and as there of no effect for a network of layers.
    model_fwd_args : sequence
        What a forward takes beside.
    ignore_dims : sequence of int, optional
        The dimensions of `sample_data` that are no part of a sample; left out, the layers tell whether the
        first one is a batch.
    unit_resistance : bool, default False
        ``False`` writes LIF nodes with snnTorch's ``r = tau / dt``.  ``True`` writes ``r = 1`` and puts the
        resistance into the weights before: needed by readers that take no other, such as Norse.
        (snnTorch's own importer takes ``r = 1`` too, with printed warnings, but wrongly if `beta` differs
        between neurons.)
    fold : bool, default False
        Fold batch norms, with their running statistics, into the weights before, and leave dropout out.

    Returns
    -------
    nir.NIRGraph
        Neurons named as the modules.  Read it with ``snntorch.import_nir.import_from_nir`` (one call a step)
        or with any other reader of NIR; the time step is 1e-4 s.  Thresholds are written one float32 higher,
        so that readers that fire at a threshold and those that fire above it give the same spikes
        (`snn_ext.nir.beside`).

    Raises
    ------
    TypeError, ValueError
        An argument is wrong, or `module` does not run on `sample_data`.
    NotImplementedError
        Something that NIR cannot say; names the layer and what would do.
    """
    nir_graph = _writer()
    if not isinstance(model_fwd_args, (list, tuple)):
        raise TypeError(
            "model_fwd_args must be a list of what forward takes beside the sample, got "
            f"{type(model_fwd_args).__name__}"
        )
    kinds = decoupling.Kinds(LIFB, (snn.SpikingNeuron,))
    dialect = nir_graph.Dialect(kinds, (), (), _described, lambda net: 1, "sample_data")
    return nir_graph.export(
        module,
        sample_data,
        model_fwd_args,
        dialect,
        ignored=ignore_dims,
        dt=DT,
        unit_resistance=unit_resistance,
        fold=fold,
    )


def _writer() -> Any:
    try:
        from .. import nir_graph
    except ImportError as error:
        raise ImportError(
            f"NIR exchange needs the packages nir and nirtorch ({error}); install with: pip install nir "
            "nirtorch"
        ) from error
    return nir_graph


def _described(layer: Any, refuse: Any) -> Any:
    """Return a neuron as `snn_ext.nir` or snnTorch's exporter describes it, or raise if NIR cannot say it."""
    from .. import nir

    if isinstance(layer, (Neuron, DecoupledLIFB)) and not isinstance(layer, (LIFB, SoftResetMPR)):
        raise refuse(layer.not_in_nir, layer.nir_remedy)
    leaky = isinstance(layer, Neuron) or type(layer).forward is snn.Leaky.forward
    if not leaky and type(layer) not in _NATIVE:
        raise refuse(
            "dynamics of its own", "use snn.Leaky, Synaptic, RLeaky, RSynaptic, LIFB or SoftResetMPR"
        )
    if layer.reset_mechanism != "zero":
        raise refuse(
            f"the reset {layer.reset_mechanism!r}: its LIF resets hard, to zero",
            "build it with reset_mechanism='zero'",
        )
    if not isinstance(layer, Neuron) and bool((layer.graded_spikes_factor != 1).any()):
        raise refuse("a graded_spikes_factor", "fold it into the weights of the next layer")
    if layer.inhibition or layer.state_quant:
        raise refuse("inhibition or a quantised state", "build the layer without")
    fires_at = _fires_at(layer, refuse)
    if not leaky:
        return _native(layer, fires_at, refuse)
    beta, threshold = layer.beta.clamp(0, 1), layer.threshold
    if not isinstance(layer, LIFB) and not bool((threshold > 0).all()):
        raise refuse("a threshold at or below the resting potential", "use one above zero")
    described: dict[str, Any] = {"emitted": layer.graded_spikes_factor}
    if isinstance(layer, LIFB):
        described["burst_threshold"] = layer.burst_threshold
        described["burst_intensity"] = layer.burst_intensity
    elif isinstance(layer, SoftResetMPR):
        described["emitted"] = described["emitted"] * layer.amplitude
    described = {key: value.detach().cpu().numpy() for key, value in described.items()}
    return nir.Neurons(
        beta.detach().cpu().numpy(), 1.0, threshold.detach().cpu().numpy(), **described, fires_at=fires_at
    )


def _fires_at(layer: Any, refuse: Any) -> bool:
    """Whether a neuron fires at its threshold, not only above it, as snnTorch's surrogates do."""
    spike = layer.spike_grad(torch.zeros(1))
    if spike.item() not in (0, 1):
        raise refuse("a surrogate that is no step", "build it with a surrogate that spikes")
    return bool(spike.item())


def _native(layer: Any, fires_at: bool, refuse: Any) -> Any:
    """Return what snnTorch's exporter makes of a neuron, with thresholds beside the layer's own."""
    from snntorch import export_nir

    from .. import nir

    try:
        node = export_nir._extract_snntorch_module(layer)
    except (NotImplementedError, ValueError) as error:
        raise refuse(
            f"this in snnTorch's exporter ({error})", "give it a vector for V, or use snn.Leaky"
        ) from error
    for part in getattr(node, "nodes", {"": node}).values():
        if hasattr(part, "v_threshold"):
            part.v_threshold = nir.beside(part.v_threshold, fires_at)
    return node


def install_guard() -> None:
    """Make ``snntorch.export_nir`` refuse what it would write as a LIF and is none; no-op without ``nir``."""
    try:
        from snntorch import export_nir
    except ImportError:  # without nir and nirtorch nothing can be exported in the first place
        return
    extract = export_nir._extract_snntorch_module
    if getattr(extract, "_snn_ext_guard", False):
        return

    @functools.wraps(extract)
    def guarded(module: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(module, Neuron):
            raise NotImplementedError(
                f"{type(module).__name__} cannot be exported to NIR: NIR has no node for "
                f"{module.not_in_nir}, and a LIF node would compute something else; {module.nir_remedy}"
            )
        if isinstance(module, snn.Leaky) and type(module).forward is not snn.Leaky.forward:
            raise NotImplementedError(
                f"{type(module).__name__} cannot be exported to NIR: it is a subclass of snn.Leaky with a "
                "forward of its own, and a LIF node would compute something else; leave it out, or replace "
                "it by snn.Leaky"
            )
        return extract(module, *args, **kwargs)

    guarded._snn_ext_guard = True  # type: ignore[attr-defined]
    export_nir._extract_snntorch_module = guarded
