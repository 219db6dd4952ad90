"""NIR exchange for SpikingJelly 2.0: LIFB as plain LIF neurons; what cannot be said in NIR is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from spikingjelly.activation_based import functional, neuron
from torch import Tensor, nn

from .. import decoupling
from ._base import LeakyNode
from .neurons import LIFBNode, SoftResetMPRNode

__all__ = ["export_to_nir"]


def export_to_nir(
    net: nn.Module,
    example_input: Tensor,
    save_path: str | Path | None = None,
    dt: float = 1e-4,
    *,
    unit_resistance: bool = False,
) -> Any:
    """Convert a network with this package's neurons to NIR, through SpikingJelly's own exporter.

    =======================  =======================================================================
    layer                    in NIR
    =======================  =======================================================================
    `LIFBNode`, hard         one recurrent layer of LIF neurons, spike for spike: see `snn_ext.nir`
    `SoftResetMPRNode`,      LIF (the rectifier changes no spike)
    hard
    ``LIFNode``, hard        LIF, as SpikingJelly writes it
    any of them, soft        refused: a LIF of NIR resets hard
    `VSNNode`                refused: NIR has no graded spikes
    the rest                 as SpikingJelly writes it
    =======================  =======================================================================

    Parameters
    ----------
    net, example_input, save_path, dt
        As for ``spikingjelly.activation_based.nir_exchange.export_to_nir``.  The network is left untouched.
    unit_resistance : bool, default False
        ``False`` writes LIF nodes with SpikingJelly's resistance: 1, or ``tau / dt`` with
        ``decay_input=False``.  ``True`` writes ``r = 1`` always and puts the resistance into the weights
        before: needed by readers that take no other, such as Norse.

    Returns
    -------
    nir.NIRGraph
        Read it with ``nir_exchange.import_from_nir`` in step mode ``"s"``, for the graph is recurrent, or
        with any other reader of NIR.

    Raises
    ------
    NotImplementedError
        Something that NIR cannot say (names the layer and what would do), or a SpikingJelly without NIR
        exchange.
    """
    try:
        from spikingjelly.activation_based import nir_exchange
    except ImportError as error:
        raise NotImplementedError(
            "this SpikingJelly has no NIR exchange, or nir and nirtorch are missing; install "
            "spikingjelly>=2.0.0, nir and nirtorch"
        ) from error
    import nir as nir_package

    from .. import nir

    if isinstance(net, neuron.BaseNode):
        raise NotImplementedError(
            f"a single {type(net).__name__} is no network to export; put it into nn.Sequential behind a layer"
        )
    layers = {name: module for name, module in net.named_modules() if isinstance(module, LeakyNode)}
    decoupling.refuse_shared(net, layers)
    neurons = {name: _described(name, layer) for name, layer in layers.items()}
    copy = decoupling.copy_of(net)
    for name, layer in layers.items():
        decoupling.replace(copy, name, _placeholder(layer))
    functional.reset_net(copy)
    graph = nir_exchange.export_to_nir(copy, example_input, dt=dt)
    places = {name: _place(graph, name) for name in layers}
    shapes = {place: tuple(graph.nodes[place].output_type["output"].tolist()) for place in places.values()}
    graph = nir.complete(graph, {}, set(places.values()), unit_resistance=unit_resistance)
    for name, place in places.items():
        graph = nir.expand(graph, place, neurons[name], shapes[place], dt=dt, unit_resistance=unit_resistance)
    if save_path is not None:
        nir_package.write(save_path, graph)
    return graph


def _described(name: str, layer: LeakyNode) -> Any:
    """Return the parameters of a layer for `snn_ext.nir`, or raise if NIR cannot say what it does."""
    from .. import nir

    def refuse(what: str, remedy: str) -> NotImplementedError:
        return NotImplementedError(
            f"{type(layer).__name__} at {name!r} cannot be exported to NIR, which has no node for {what}; "
            f"{remedy}"
        )

    if not isinstance(layer, (LIFBNode, SoftResetMPRNode)):
        raise refuse(layer.not_in_nir, layer.nir_remedy)
    if layer.v_reset is None:
        raise refuse("a soft reset: its LIF resets hard", "build it with v_reset=0.0")
    if layer.v_reset != 0:
        raise refuse(f"v_reset={layer.v_reset} that all readers follow", "build it with v_reset=0.0")
    rate = torch.as_tensor(layer._rate).detach()
    threshold = torch.as_tensor(layer.v_threshold).detach()
    if bool((rate == 1).any()):
        raise refuse("tau=1 that SpikingJelly would read back", "use a tau above 1")
    if not isinstance(layer, LIFBNode) and not bool((threshold > 0).all()):
        raise refuse("a threshold at or below the resting potential", "use one above zero")
    described: dict[str, Any] = {}
    if isinstance(layer, LIFBNode):
        described["burst_threshold"] = layer.burst_threshold.detach().numpy()
        described["burst_intensity"] = layer.burst_intensity.detach().numpy()
    else:
        described["emitted"] = torch.as_tensor(layer.amplitude).numpy()
    gain = rate.numpy() if layer.decay_input else 1.0
    return nir.Neurons((1 - rate).numpy(), gain, threshold.numpy(), **described)


def _placeholder(layer: LeakyNode) -> neuron.LIFNode:
    """Return a native neuron for SpikingJelly's exporter; what it computes does not matter."""
    return neuron.LIFNode(2.0, step_mode=layer.step_mode)


def _place(graph: Any, name: str) -> str:
    """Return the node of the module `name`: torch.fx writes ``a.0`` as ``a_0`` and ``0`` as ``_0``."""
    plain = name.replace(".", "_")
    for place in (name, plain, f"_{plain}"):
        if place in graph.nodes:
            return place
    raise NotImplementedError(f"the layer {name!r} is not used by forward; remove it before the export")
