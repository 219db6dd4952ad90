r"""Event data from still images: saccades in the manner of N-MNIST, without a camera.

Each image is moved along a closed triangle of three legs; where a pixel becomes brighter or darker by at
least a threshold from one frame to the next, it sends an ON or an OFF event.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from . import checks

__all__ = ["saccades"]


def saccades(
    images: Tensor,
    steps: int = 6,
    *,
    amplitude: float = 2.0,
    threshold: float = 0.1,
    background: float = 0.0,
) -> Tensor:
    r"""Turn still images into ON and OFF events by moving them along a triangle.

    The recipe, complete and without any randomness:

    1. ``uint8`` images are divided by 255; floating-point images are taken as they are.
    2. An image starts in the upper left corner of a frame of `background`, :math:`\lceil a \rceil` pixels
       higher and wider than itself, where :math:`a` is the `amplitude`.  So it never leaves the frame.
    3. It moves at constant speed on each of three straight legs, which take the same time: (row, column)
       offsets :math:`(0, 0) \to (a, a/2) \to (0, a) \to (0, 0)`, that is down and right, up and right, back
       to the left.  Frame :math:`t` of the :math:`T + 1` frames is taken after :math:`t/T` of the time.
    4. Offsets between pixels interpolate bilinearly.
    5. With :math:`d_t` the difference of frames :math:`t` and :math:`t - 1`, ON events are
       :math:`d_t \ge` `threshold` and OFF events :math:`d_t \le -` `threshold`.

    Parameters
    ----------
    images : Tensor of shape (N, H, W)
        ``uint8``, or floating point in any unit (scikit-learn's digits go from 0 to 16: divide by 16).
    steps : int, default 6
        Number of event frames :math:`T`, at least 3.  A multiple of 3 puts a frame at each corner.
    amplitude : float, default 2.0
        Height and width of the triangle in pixels; 6 takes 28 x 28 images to the 34 x 34 of N-MNIST.
    threshold : float, default 0.1
        Smallest change of brightness that makes an event, in the unit of the images after point 1.
    background : float, default 0.0
        Brightness around the images, in the same unit.

    Returns
    -------
    Tensor of shape (steps, N, 2, H + ceil(amplitude), W + ceil(amplitude))
        float32, 1 where there is an event and 0 elsewhere; channel 0 is ON, channel 1 is OFF.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, the value and the remedy.

    Notes
    -----
    Inferred, unlike the recorded N-MNIST (G. Orchard et al., Frontiers in Neuroscience 2015, doi
    10.3389/fnins.2015.00437): the proportions of the triangle, constant speed, linear instead of logarithmic
    brightness, frames instead of time stamps, no noise.

    Every image is treated alike and by itself, so a large set can be converted batch by batch; beside the
    result two frames are held.

    Examples
    --------
    A bright pixel steps down and right: it leaves the upper left corner (OFF) and arrives (ON).

    >>> import torch
    >>> events = saccades(torch.ones(1, 1, 1), steps=3, amplitude=2.0)
    >>> events.shape
    torch.Size([3, 1, 2, 3, 3])
    >>> events[0, 0, 0].nonzero().tolist(), events[0, 0, 1].nonzero().tolist()
    ([[2, 1]], [[0, 0]])
    """
    _check(images, steps, amplitude, threshold, background)
    amplitude, threshold, background = float(amplitude), float(threshold), float(background)
    if not images.is_floating_point():
        images = images.float() / 255
    elif images.dtype != torch.float64:
        images = images.float()
    images = images - background  # what lies outside is zero now, and no difference has changed
    count, height, width = images.shape
    margin = math.ceil(amplitude)
    events = images.new_empty(steps, count, 2, height + margin, width + margin, dtype=torch.float32)
    before = _moved(images, _offset(0, amplitude), margin)
    for t in range(steps):
        after = _moved(images, _offset((t + 1) / steps, amplitude), margin)
        difference = after - before
        events[t, :, 0] = difference >= threshold
        events[t, :, 1] = difference <= -threshold
        before = after
    return events


def _offset(time: float, amplitude: float) -> tuple[float, float]:
    """Return (row, column) of the image at `time`, which goes from 0 to 1 around the triangle."""
    corners = ((0.0, 0.0), (amplitude, amplitude / 2), (0.0, amplitude), (0.0, 0.0))
    leg = min(int(3 * time), 2)
    part = 3 * time - leg
    (row, column), (next_row, next_column) = corners[leg : leg + 2]
    return row + part * (next_row - row), column + part * (next_column - column)


def _moved(images: Tensor, offset: tuple[float, float], margin: int) -> Tensor:
    """Return the images moved by `offset` in a larger frame: interpolation along rows, then columns."""
    rows, columns = (
        _interpolation(size, size + margin, shift, images)
        for size, shift in zip(images.shape[1:], offset, strict=True)
    )
    return rows @ images @ columns.T


def _interpolation(size: int, larger: int, shift: float, like: Tensor) -> Tensor:
    """Return the (larger, size) matrix that moves a line of pixels by `shift`, linearly interpolated."""
    target = torch.arange(larger, device=like.device, dtype=like.dtype)
    source = torch.arange(size, device=like.device, dtype=like.dtype)
    return (1 - (target[:, None] - source - shift).abs()).clamp(min=0)


def _check(images: Tensor, steps: int, amplitude: float, threshold: float, background: float) -> None:
    if not isinstance(images, Tensor):
        raise TypeError(
            f"images must be a torch.Tensor, got {type(images).__name__}; convert with torch.as_tensor"
        )
    if images.dim() != 3 or 0 in images.shape[1:]:
        raise ValueError(
            f"images must have shape (N, H, W), got {tuple(images.shape)}; e.g. (1797, 8, 8) for digits"
        )
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise TypeError(f"images must be uint8 or floating point, got {images.dtype}; convert with .float()")
    if images.dtype != torch.uint8:
        checks.floating("images", images)
    if images.is_meta:
        raise ValueError("images on meta have no values; give images")
    if images.is_floating_point() and not bool(torch.isfinite(images).all()):
        raise ValueError("images contain NaN or infinity; give finite brightness")
    if isinstance(steps, bool) or not isinstance(steps, int):
        raise TypeError(f"steps must be an integer, got {steps!r}")
    if not checks.is_whole(steps, 3):
        raise ValueError(f"steps={checks.shown(steps)} must be at least 3, one for each leg of the triangle")
    for name, value in (("amplitude", amplitude), ("threshold", threshold), ("background", background)):
        checks.number(name, value)
    if not 0 <= amplitude < math.inf:
        raise ValueError(f"amplitude={amplitude} must be finite and not negative; it is a length in pixels")
    if not 0 < threshold < math.inf:
        raise ValueError(f"threshold={threshold} must be positive; it is a change of brightness")
    if not math.isfinite(background):
        raise ValueError(f"background={background} must be finite; it is the brightness around the images")
