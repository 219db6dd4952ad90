"""What SpikingJelly's faces of all neurons share: ``tau``, ``decay_input``, thresholds, the simulation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from .. import checks, functional
from ..checks import Numbers
from ..energy.layers import Tap, run_watched
from ..neurons.leaky import Leaky
from ..observe import Observer
from ..surrogate import Surrogate
from ._compat import Node, as_surrogate, default_surrogate

_NAMES = {
    "v0": "v",
    "decay": "tau",
    "gain": "tau",
    "threshold": "v_threshold",
    "surrogate": "surrogate_function",
}


class LeakyNode(Node):
    """Base of the neurons: ``LIFNode`` in all but its dynamics, which a neuron gives by `_equations`."""

    default_surrogate: ClassVar[Surrogate | None] = None
    """What stands in for a surrogate left out; ``None``: SpikingJelly's own default."""

    _observer: Observer | None = None
    _taps: tuple[Tap, ...] = ()

    def __init__(
        self,
        tau: Numbers,
        decay_input: bool,
        v_threshold: Numbers,
        v_reset: float | None,
        surrogate_function: Callable[[Tensor], Tensor] | None,
        detach_reset: bool,
        step_mode: str,
        store_v_seq: bool,
        learn_tau: bool,
        learn_threshold: bool,
        native: dict[str, Any],
    ) -> None:
        decay_input = checks.flag("decay_input", decay_input)
        learn_tau = checks.flag("learn_tau", learn_tau)
        learn_threshold = checks.flag("learn_threshold", learn_threshold)
        tau = checks.in_range("tau", tau, 1, math.inf, "it is a time constant in steps; 1 keeps no memory")
        if learn_tau:
            checks.in_range(
                "tau", tau, 1 + 1e-6, 1e6, "with learn_tau=True it starts strictly above 1, finite"
            )
        if decay_input and checks.any_infinite(tau):
            raise ValueError(
                "tau=inf with decay_input=True would divide the input by infinity; set decay_input=False"
            )
        v_threshold = checks.number_or_tensor("v_threshold", v_threshold)
        if v_reset is not None:
            v_reset = functional.check_v_reset("v_reset", v_reset)
        if surrogate_function is None:
            surrogate_function = self.default_surrogate or default_surrogate()
        if not isinstance(as_surrogate(surrogate_function), Surrogate):
            checks.spike_function("surrogate_function", surrogate_function, probe=True)
        super().__init__(
            v_reset=v_reset,
            surrogate_function=surrogate_function,
            detach_reset=checks.flag("detach_reset", detach_reset),
            step_mode=step_mode,
            store_v_seq=checks.flag("store_v_seq", store_v_seq),
            **native,
        )
        self.decay_input = decay_input
        self._hold("v_threshold", v_threshold, learn_threshold)
        if learn_tau:
            self._hold("w", -torch.log(torch.as_tensor(tau) - 1), True)
        else:
            self._hold("tau", tau, False)

    def _equations(self) -> Leaky:
        """Return the neuron of `snn_ext.neurons` that runs."""
        raise NotImplementedError

    def _parameters_of_its_own(self) -> dict[str, float | Tensor]:
        """Return what the equations take beside decay, gain and threshold."""
        return {}

    @property
    def _reset_mode(self) -> str:
        return "soft" if self.v_reset is None else "hard"

    @property
    def _rate(self) -> float | Tensor:
        """One over the time constant."""
        fixed = "tau" in self.__dict__ or "tau" in self._buffers
        return 1 / self.tau if fixed else self.w.sigmoid()

    def _simulate(
        self, x_seq: Tensor, v: Tensor | None, return_v_seq: bool = False, single: bool = False
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        neuron, start, rate = self._equations(), v, self._rate
        parameters = {
            "decay": 1 - rate,
            "gain": rate if self.decay_input else 1.0,
            "threshold": self.v_threshold,
            **self._parameters_of_its_own(),
        }
        options: dict[str, Any] = {
            "surrogate": as_surrogate(self.surrogate_function),
            "detach_reset": bool(self.detach_reset),
            "names": _NAMES,
            "implementation": self._implementation(x_seq),
            "single": single,
        }

        def run(power: float, again: bool) -> tuple[Tensor, ...]:
            return functional.run(
                neuron,
                x_seq,
                start,
                parameters,
                return_v_seq=return_v_seq,
                power=power,
                observer=None if again else self._observer,
                **options,
            )

        (y_seq, v, *v_seq), show = run_watched(self._taps, run, 1 if single else len(x_seq))
        show()
        return y_seq, v, v_seq[0] if return_v_seq else None

    def extra_repr(self) -> str:
        with torch.no_grad():
            tau = self.tau if getattr(self, "w", None) is None else 1 / self.w.sigmoid()
        return f"{super().extra_repr()}, tau={checks.brief(tau)}, decay_input={self.decay_input}"
