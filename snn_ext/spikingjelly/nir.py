"""NIR exchange for SpikingJelly 2.0: LIFB as plain LIF neurons; what cannot be said in NIR is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from spikingjelly.activation_based import base, layer, neuron
from torch import Tensor, nn

from .. import decoupling
from ._base import LeakyNode
from ._compat import as_surrogate
from .neurons import LIFBNode, SoftResetMPRNode

__all__ = ["export_to_nir"]

_LEAKY = (neuron.LIFNode, neuron.ParametricLIFNode)
_OTHERS = tuple(getattr(neuron, name) for name in ("IFNode", "CUBALIFNode") if hasattr(neuron, name))
_OWN = tuple(
    getattr(layer, name)
    for name in (
        "Linear",
        "Conv1d",
        "Conv2d",
        "AvgPool2d",
        "AdaptiveAvgPool2d",
        "Flatten",
        "BatchNorm1d",
        "BatchNorm2d",
        "ThresholdDependentBatchNorm1d",
        "ThresholdDependentBatchNorm2d",
    )
)


def export_to_nir(
    net: nn.Module,
    example_input: Tensor,
    save_path: str | Path | None = None,
    dt: float = 1e-4,
    *,
    unit_resistance: bool = False,
    fold: bool = False,
) -> Any:
    """Convert a network with this package's neurons to NIR.

    =======================  =======================================================================
    layer                    in NIR
    =======================  =======================================================================
    `LIFBNode`, hard         one recurrent layer of LIF neurons, spike for spike: see `snn_ext.nir`
    `SoftResetMPRNode`,      LIF (the rectifier changes no spike)
    hard
    ``LIFNode``,             LIF
    ``ParametricLIFNode``,
    hard
    ``IFNode``,              IF, CubaLIF
    ``CUBALIFNode``, hard
    any of them, soft        refused: a LIF of NIR resets hard
    `VSNNode`                refused: NIR has no graded spikes
    the rest                 see `snn_ext.nir_graph`: Linear, Conv1d, Conv2d, average and sum pooling,
                             Flatten, Identity and additions; batch norm and Dropout with `fold`; else
                             refused by name, containers and max pooling too
    =======================  =======================================================================

    Parameters
    ----------
    net : nn.Module
        A network of layers and additions, in either step mode.  It is left untouched, whatever state it is
        in.
    example_input : Tensor
        What `net` takes in one call: a batch (N, ...), with step mode ``"m"`` a sequence (T, N, ...).
    save_path, dt
        As for ``spikingjelly.activation_based.nir_exchange.export_to_nir``.
    unit_resistance : bool, default False
        ``False`` writes LIF nodes with SpikingJelly's resistance: 1, or ``tau / dt`` with
        ``decay_input=False``.  ``True`` writes ``r = 1`` always and puts the resistance into the weights
        before: needed by readers that take no other, such as Norse.
    fold : bool, default False
        Fold batch norms, with their running statistics, into the weights before, and leave dropout out.

    Returns
    -------
    nir.NIRGraph
        Neurons named as the modules.  Read it with ``nir_exchange.import_from_nir`` in step mode ``"s"``,
        for the graph is recurrent, or with any other reader of NIR.  Thresholds are written one float32
        lower, or higher for a neuron that fires strictly above, so that readers that fire at a threshold and
        those that fire above it give the same spikes (`snn_ext.nir.beside`).

    Raises
    ------
    TypeError, ValueError
        An argument is wrong, or `net` does not run on `example_input`.
    NotImplementedError
        Something that NIR cannot say (names the layer and what would do), or a SpikingJelly without NIR
        exchange.
    """
    try:
        from spikingjelly.activation_based import nir_exchange  # noqa: F401
    except ImportError as error:
        raise NotImplementedError(
            "this SpikingJelly has no NIR exchange, or nir and nirtorch are missing; install "
            "spikingjelly>=2.0.0, nir and nirtorch"
        ) from error
    import nir as nir_package

    from .. import nir_graph

    if save_path is not None and not isinstance(save_path, (str, Path)):
        raise TypeError(f"save_path must be a path, got {type(save_path).__name__}")
    dialect = nir_graph.Dialect(
        decoupling.Kinds(LIFBNode, (neuron.BaseNode,), opaque=_opaque),
        _OWN,
        (layer.Dropout, layer.Dropout2d),
        lambda node, refuse: _described(node, refuse, dt),
        lambda net: 2 if any(getattr(module, "step_mode", "s") == "m" for module in net.modules()) else 1,
        "example_input",
    )
    graph = nir_graph.export(
        net, example_input, (), dialect, dt=dt, unit_resistance=unit_resistance, fold=fold
    )
    if save_path is not None:
        nir_package.write(save_path, graph)
    return graph


def _opaque(module: nn.Module) -> bool:
    """Whether a module is SpikingJelly's or ours, such as a container: nothing to be looked into."""
    ours = type(module).__module__.startswith(("spikingjelly.activation_based.layer", "snn_ext."))
    return ours and isinstance(module, (base.StepModule, base.MultiStepModule, base.MemoryModule))


def _described(node: Any, refuse: Any, dt: float) -> Any:
    """Return a neuron as `snn_ext.nir` describes it, or raise if NIR cannot say what it does."""
    from .. import nir

    ours = isinstance(node, LeakyNode)
    if ours and not isinstance(node, (LIFBNode, SoftResetMPRNode)):
        raise refuse(node.not_in_nir, node.nir_remedy)
    if not ours and type(node) not in (*_LEAKY, *_OTHERS):
        raise refuse(
            "dynamics of its own", "use IFNode, LIFNode, ParametricLIFNode, LIFBNode or SoftResetMPRNode"
        )
    if node.v_reset is None:
        raise refuse("a soft reset: its LIF resets hard", "build it with v_reset=0.0")
    if ours and node.v_reset != 0:
        raise refuse(f"v_reset={node.v_reset} that all readers follow", "build it with v_reset=0.0")
    fires_at = _fires_at(node, refuse)
    threshold = torch.as_tensor(node.v_threshold)
    if type(node) in _OTHERS:
        return _without_leak(node, nir.beside(threshold, fires_at), dt)
    rate = torch.as_tensor(_rate(node))
    if bool((rate == 1).any()):
        raise refuse("tau=1 that SpikingJelly would read back", "use a tau above 1")
    if not isinstance(node, LIFBNode) and not bool((threshold > node.v_reset).all()):
        raise refuse("a threshold at or below the resting potential", "use one above zero")
    described: dict[str, Any] = {}
    if isinstance(node, LIFBNode):
        described["burst_threshold"] = node.burst_threshold
        described["burst_intensity"] = node.burst_intensity
    elif ours:
        described["emitted"] = torch.as_tensor(node.amplitude)
    described = {key: value.detach().cpu().numpy() for key, value in described.items()}
    exact = rate.detach().cpu().double().numpy()
    return nir.Neurons(
        1 - exact,
        exact if node.decay_input else 1.0,
        threshold.detach().cpu().numpy(),
        **described,
        rest=float(node.v_reset),
        fires_at=fires_at,
    )


def _rate(node: Any) -> Any:
    """Return one over the time constant."""
    if isinstance(node, LeakyNode):
        return node._rate
    return node.w.sigmoid() if isinstance(node, neuron.ParametricLIFNode) else 1 / node.tau


def _fires_at(node: Any, refuse: Any) -> bool:
    """Whether a neuron fires at its threshold, as SpikingJelly's surrogates do, not only above it."""
    spike = as_surrogate(node.surrogate_function)(torch.zeros(1))
    if spike.item() not in (0, 1):
        raise refuse("a surrogate that is no step", "build it with a surrogate that spikes")
    return bool(spike.item())


def _without_leak(node: Any, threshold: Any, dt: float) -> Any:
    """Return a node for a neuron that is no LIF, as SpikingJelly writes it."""
    import nir
    import numpy as np

    shared = {"v_threshold": threshold, "v_reset": np.float32(node.v_reset)}
    if isinstance(node, neuron.IFNode):
        return nir.IF(r=np.float32(1 / dt), **shared)
    tau_syn, tau_mem = dt / (1 - node.c_decay), dt / (1 - node.v_decay)
    return nir.CubaLIF(
        tau_syn=np.float32(tau_syn),
        tau_mem=np.float32(tau_mem),
        r=np.float32(tau_mem / dt),
        v_leak=np.float32(0),
        w_in=np.float32(tau_syn / dt),
        **shared,
    )
