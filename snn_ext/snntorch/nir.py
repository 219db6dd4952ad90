"""NIR exchange for snnTorch: LIFB as plain LIF neurons; what cannot be said in NIR is refused.

snnTorch's own exporter writes every subclass of ``snn.Leaky`` as a plain LIF, whatever it does.  On import
of this package the exporter's module mapping gets one guard in front, so that it refuses instead.
That is the only thing patched on import.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any

import snntorch as snn
import torch
from torch import Tensor, nn

from .. import decoupling
from ._base import Neuron
from .neurons import LIFB, SoftResetMPR

__all__ = ["export_to_nir", "install_guard"]

_WRITTEN = (
    nn.Linear,
    nn.Conv2d,
    nn.AvgPool2d,
    nn.Flatten,
    snn.Leaky,
    snn.Synaptic,
    snn.RLeaky,
    snn.RSynaptic,
)
"""What snnTorch's exporter writes."""

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
) -> Any:
    """Convert a network with this package's neurons to NIR, through snnTorch's own exporter.

    ======================  ========================================================================
    layer                   in NIR
    ======================  ========================================================================
    `LIFB`, zero            one recurrent layer of LIF neurons, spike for spike: see `snn_ext.nir`
    `SoftResetMPR`, zero    LIF (the rectifier changes no spike)
    ``snn.Leaky``, zero     LIF, as snnTorch writes it
    any of them, otherwise  refused: a LIF of NIR resets hard, to zero
    `VSN`                   refused: NIR has no graded spikes
    the rest                as snnTorch writes it, or refused: it knows linear layers, Conv2d, AvgPool2d,
                            Flatten and some neurons of its own, and no functions in a forward
    ======================  ========================================================================

    Parameters
    ----------
    module, sample_data, model_name, model_fwd_args, ignore_dims
        As for ``snntorch.export_nir.export_to_nir``.  The network is left untouched.
    unit_resistance : bool, default False
        ``False`` writes LIF nodes with snnTorch's ``r = tau / dt``.  ``True`` writes ``r = 1`` and puts the
        resistance into the weights before: needed by readers that take no other, such as Norse.
        (snnTorch's own importer takes ``r = 1`` too, with printed warnings, but wrongly if `beta` differs
        between neurons.)

    Returns
    -------
    nir.NIRGraph
        Neurons named as the modules.  Read it with ``snntorch.import_nir.import_from_nir`` (one call a step)
        or with any other reader of NIR; the time step is 1e-4 s.

    Raises
    ------
    NotImplementedError
        Something that NIR cannot say; names the layer and what would do.
    """
    from snntorch.export_nir import export_to_nir as native

    from .. import nir

    layers = _layers(module)
    neurons = {
        name: _described(name, layer)
        for name, layer in layers.items()
        if isinstance(layer, Neuron) or type(layer) is snn.Leaky
    }
    net = decoupling.copy_of(module)
    shapes = _shapes(net, sample_data, model_fwd_args)
    for name in neurons:
        decoupling.replace(net, name, _placeholder(layers[name], shapes[name][1]))
    graph = native(net, sample_data, model_name, list(model_fwd_args), list(ignore_dims))
    ours = {name for name in neurons if isinstance(layers[name], Neuron)}
    graph = nir.complete(graph, shapes, ours, unit_resistance=unit_resistance)
    for name in sorted(ours):
        graph = nir.expand(
            graph, name, neurons[name], shapes[name][1], dt=DT, unit_resistance=unit_resistance
        )
    return graph


def _layers(module: nn.Module) -> dict[str, nn.Module]:
    """Return the layers that a forward of `module` calls, or raise if the export would lose something."""
    if isinstance(module, snn.SpikingNeuron):
        raise NotImplementedError(
            f"a single {type(module).__name__} is no network to export; put it into nn.Sequential behind a "
            "layer"
        )
    traced = decoupling.copy_of(module)
    try:
        graph = decoupling.trace(traced, decoupling.Kinds(LIFB, (snn.SpikingNeuron,)))
    except Exception as error:
        raise NotImplementedError(
            f"{type(module).__name__} cannot be traced by torch.fx, so what its forward does between the "
            f"layers is not known ({type(error).__name__}: {error}); export a network of layers alone, as "
            "nn.Sequential"
        ) from error
    layers: dict[str, nn.Module] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            name = str(node.target)
            layers[name] = module.get_submodule(name)
            if not isinstance(layers[name], _WRITTEN):
                raise NotImplementedError(
                    f"{type(layers[name]).__name__} at {name!r} cannot be exported to NIR by snnTorch; leave "
                    "it out of what is exported, or fold it into another layer"
                )
        elif node.op in ("call_function", "call_method") and node.target is not operator.getitem:
            what = getattr(node.target, "__name__", node.target)
            raise NotImplementedError(
                f"{what} in the forward of {type(module).__name__} is not a layer, and snnTorch's exporter "
                "would lose it; export a network of layers alone, as nn.Sequential"
            )
    decoupling.refuse_shared(module, layers)
    return layers


def _described(name: str, layer: Any) -> Any:
    """Return the parameters of a layer for `snn_ext.nir`, or raise if NIR cannot say what it does."""
    from .. import nir

    def refuse(what: str, remedy: str) -> NotImplementedError:
        return NotImplementedError(
            f"{type(layer).__name__} at {name!r} cannot be exported to NIR, which has no node for {what}; "
            f"{remedy}"
        )

    if isinstance(layer, Neuron) and not isinstance(layer, (LIFB, SoftResetMPR)):
        raise refuse(layer.not_in_nir, layer.nir_remedy)
    if layer.reset_mechanism != "zero":
        raise refuse(
            f"the reset {layer.reset_mechanism!r}: its LIF resets hard, to zero",
            "build it with reset_mechanism='zero'",
        )
    if not isinstance(layer, Neuron) and bool((layer.graded_spikes_factor != 1).any()):
        raise refuse("a graded_spikes_factor", "fold it into the weights of the next layer")
    if layer.inhibition or layer.state_quant:
        raise refuse("inhibition or a quantised state", "build the layer without")
    beta, threshold = layer.beta.detach().clamp(0, 1), layer.threshold.detach()
    if not isinstance(layer, LIFB) and not bool((threshold > 0).all()):
        raise refuse("a threshold at or below the resting potential", "use one above zero")
    described: dict[str, Any] = {"emitted": layer.graded_spikes_factor.detach().numpy()}
    if isinstance(layer, LIFB):
        described["burst_threshold"] = layer.burst_threshold.detach().numpy()
        described["burst_intensity"] = layer.burst_intensity.detach().numpy()
    elif isinstance(layer, SoftResetMPR):
        described["emitted"] = described["emitted"] * layer.amplitude.detach().numpy()
    return nir.Neurons(beta.numpy(), 1.0, threshold.numpy(), **described)


def _placeholder(layer: Any, shape: tuple[int, ...]) -> snn.Leaky:
    """Return a native neuron with one parameter per neuron, for snnTorch's exporter."""
    from ..nir import SLOWEST

    return snn.Leaky(
        layer.beta.detach().clamp(0, SLOWEST).expand(shape).clone(),
        layer.threshold.detach().expand(shape).clone(),
        init_hidden=layer.init_hidden,
        output=layer.output,
        reset_mechanism="zero",
    )


def _shapes(
    net: nn.Module, sample: Tensor, arguments: Sequence[Any]
) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return the input and output shapes of all layers that run on `sample`, without the batch."""
    shapes = {}

    def hook_for(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, named: Any, output: Any) -> None:
            first = next(iter((*inputs, *named.values())), None)
            result = output[0] if isinstance(output, tuple) else output
            if isinstance(result, Tensor) and isinstance(first, Tensor):
                shapes[name] = (_without_batch(first), _without_batch(result))

        return hook

    hooks = [
        layer.register_forward_hook(hook_for(name), with_kwargs=True) for name, layer in net.named_modules()
    ]
    with torch.no_grad():
        net(sample, *arguments)
    for hook in hooks:
        hook.remove()
    return shapes


def _without_batch(x: Tensor) -> tuple[int, ...]:
    return tuple(x.shape[1:] if x.dim() in (2, 4) else x.shape)


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
