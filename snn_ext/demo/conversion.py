"""The demo's conversion: the ReLU network that was trained on the digits, as a spiking one."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..conversion import Report
from .tasks import DIGITS, splits

STEPS = (4, 8, 16, 32, 64)


def convert(framework: str, ann: nn.Module, seed: int) -> tuple[list[float], Report]:
    """Return the accuracy in percent of `ann` as a spiking network after each of `STEPS`, and its report."""
    split = next(splits(DIGITS, seed))
    calibration, tested = split.x[0][:512].split(128), split.x_test[0]
    face: Any
    if framework == "snntorch":
        from .. import snntorch as face

        net = face.convert(ann, calibration, progress=False)
    else:
        from .. import spikingjelly as face

        net = face.Converter(face.L4Recipe(calibration, progress=False)).convert(ann)
    curve: Tensor = face.accuracy_curve(net, [(tested, split.y_test)], STEPS[-1], seed=seed, progress=False)
    return [100 * curve[step - 1].item() for step in STEPS], face.conversion_report(net, tested)
