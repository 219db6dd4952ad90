r"""The variable spiking neuron (VSN): a graded spike gated by an integrate-and-fire event.

.. math::

    h_t &= d\,v_{t-1} + k\,x_t            && \text{charge} \\
    o_t &= H(h_t - \theta)                && \text{fire} \\
    y_t &= \mathrm{act}(x_t\,o_t)         && \text{emit: the input itself, gated; act}(0) = 0 \\
    v_t &= (1 - o_t)\,h_t                 && \text{reset to zero}

Source: S. Garg and S. Chakraborty, "Neuroscience inspired scientific machine learning (Part-1):
Variable spiking neuron for regression", arXiv:2311.09267; restated by the authors in arXiv:2603.21674.
The gate is not detached where it multiplies the input, so
:math:`\partial y/\partial x = \mathrm{act}'(\cdot)\,(o + x\,g\,k)` at the same step.

Inferred, not from the paper: the input gain :math:`k` (one in the paper), which lets the potential be
charged by ``x / tau`` while the undivided input is what passes the gate.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
from torch import Tensor

from .activation import DERIVATIVES, FUNCTIONS, Activation
from .leaky import Gradients, Leaky, Parameters, Spike


@dataclasses.dataclass
class VSN(Leaky):
    """The equations of the VSN and their derivatives.

    Parameters
    ----------
    activation : str or callable
        A name of `snn_ext.neurons.activation`, or a callable (then there is no `emit_backward`).
    precision : torch.dtype, optional
        What a callable activation is given, if not the dtype of the potential.
    """

    activation: str | Activation = "identity"
    precision: torch.dtype | None = None

    name: ClassVar[str] = "vsn"
    options: ClassVar[tuple[str, ...]] = ("activation",)

    def in_precision(self, dtype: torch.dtype) -> VSN:
        """Let a callable activation see the dtype of the input, which its parameters have."""
        return VSN(self.activation, dtype)

    def emit(self, x: Tensor, h: Tensor, o: Tensor, p: Parameters, spike: Spike) -> Tensor:
        if isinstance(self.activation, str):
            return FUNCTIONS[self.activation](x * o)
        return self.activation((x * o).to(self.precision or x.dtype))

    def emit_backward(
        self, gy: Tensor, x: Tensor, h: Tensor, o: Tensor, p: Parameters, slope: Spike, spike: Spike
    ) -> tuple[Tensor | None, Tensor | None, Tensor, Gradients]:
        assert isinstance(self.activation, str)
        gz = gy * DERIVATIVES[self.activation](x * o)
        return gz * o, None, gz * x, {}
