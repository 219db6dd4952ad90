"""MNIST and CIFAR-10 as tensors in [0, 1].

Read from ``mnist.npz`` and ``cifar10.npz`` where the folder holds them, else through torchvision, which
downloads them into the folder.  The layout of the files: arrays ``train_images`` and ``test_images`` (uint8)
with ``train_labels`` and ``test_labels``; in place of the images also ``train_jpeg`` (JPEG files end to end)
with ``train_offsets``.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..terminal import RefusedError, reason

SOURCES = {"mnist": "MNIST", "cifar10": "CIFAR10"}
SHAPES: dict[str, tuple[int, ...]] = {"mnist": (28, 28), "cifar10": (32, 32, 3)}
"""Shape of an image in the files."""


class Images(NamedTuple):
    """Images of shape (N, C, H, W), float32 in [0, 1], and labels of shape (N,)."""

    images: Tensor
    labels: Tensor


class Found(NamedTuple):
    """A data set that is there: what tells it from any other, and how many images it has."""

    fingerprint: str
    training: int
    test: int


def load(name: str, folder: str | Path) -> tuple[Images, Images]:
    """Return the training and the test set of `name`, ``"mnist"`` or ``"cifar10"``."""
    _known(name)
    file = Path(folder) / f"{name}.npz"
    if file.exists():
        with np.load(file) as arrays:
            return _from_file(arrays, "train"), _from_file(arrays, "test")
    train, test = _through_torchvision(name, folder)
    return _images(train.data, train.targets), _images(test.data, test.targets)


def find(name: str, folder: str | Path) -> Found:
    """Return what a data set is, before anything is computed from it; downloads it if it is missing.

    Raises
    ------
    RefusedError
        It is missing and cannot be downloaded, or the file is corrupt or of another layout; names the file to
        bring, and its arrays.
    """
    _known(name)
    file = Path(folder) / f"{name}.npz"
    if not file.exists():
        train, test = _through_torchvision(name, folder)
        arrays = {
            key: np.asarray(getattr(part, kind))
            for key, part, kind in (
                ("train_images", train, "data"),
                ("train_labels", train, "targets"),
                ("test_images", test, "data"),
                ("test_labels", test, "targets"),
            )
        }
        return Found(_hashed(arrays), len(train.targets), len(test.targets))
    try:
        with np.load(file) as stored:
            arrays = {key: stored[key] for key in stored.files}
    except Exception as error:  # whatever reading a foreign file raises
        raise RefusedError(f"{file} cannot be read ({reason(error)}); {_wanted(name, file)}") from error
    numbers = []
    for part in ("train", "test"):
        if problem := _problem(name, arrays, part):
            raise RefusedError(f"{file} {problem}; {_wanted(name, file)}")
        numbers.append(len(arrays[f"{part}_labels"]))
    return Found(_hashed(arrays), *numbers)


def _known(name: str) -> None:
    if name not in SOURCES:
        raise ValueError(f"name={name!r} is no data set known here; use one of {', '.join(SOURCES)}")


def _problem(name: str, arrays: dict[str, Any], part: str) -> str:
    """Return what is wrong with a part of a file, or ``""``."""
    labels, images = arrays.get(f"{part}_labels"), arrays.get(f"{part}_images")
    if labels is None or labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels):
        return f"has no {part}_labels of shape (N,)"
    if labels.min() < 0 or labels.max() > 9:
        return f"has {part}_labels from {labels.min()} to {labels.max()}"
    if images is not None:
        if images.shape != (len(labels), *SHAPES[name]) or images.dtype != np.uint8:
            return f"has {part}_images of shape {images.shape} and type {images.dtype}"
        return ""
    offsets, jpeg = arrays.get(f"{part}_offsets"), arrays.get(f"{part}_jpeg")
    if offsets is None or jpeg is None:
        return f"has no {part}_images"
    if offsets.shape != (len(labels) + 1,) or offsets[-1] != jpeg.nbytes:
        return f"has {part}_offsets that do not fit {part}_jpeg and {part}_labels"
    return ""


def _wanted(name: str, file: Path) -> str:
    size = ", ".join(map(str, SHAPES[name]))
    return (
        f"{file} holds train_images and test_images (uint8, shape (N, {size})), train_labels and test_labels "
        "(0 to 9, shape (N,))"
    )


def _hashed(arrays: dict[str, Any]) -> str:
    found = hashlib.blake2b(digest_size=16)
    for key, array in sorted(arrays.items()):
        if key.startswith(("train_", "test_")):
            found.update(f"{key} {array.dtype} {array.shape}".encode())
            found.update(array.tobytes())
    return found.hexdigest()


def _through_torchvision(name: str, folder: str | Path) -> tuple[Any, Any]:
    """Return torchvision's training and test set, downloaded if they are not in the folder."""
    from torchvision import datasets

    source = getattr(datasets, SOURCES[name])
    try:
        with _quiet():
            train, test = (source(folder, train=train, download=True) for train in (True, False))
    except Exception as error:  # torchvision's and urllib's, of many kinds
        _remove_empty(Path(folder))
        where = source.mirrors[0] if hasattr(source, "mirrors") else source.url
        raise RefusedError(
            f"{SOURCES[name]} is not in {folder} and cannot be downloaded from {where} "
            f"({reason(error)}); bring it there by hand: {_wanted(name, Path(folder) / f'{name}.npz')}"
        ) from error
    return train, test


def _remove_empty(folder: Path) -> None:
    """Remove the folders that a download has made and not filled."""
    inside = (path for path in sorted(folder.rglob("*"), reverse=True) if path.is_dir())
    for empty in (*inside, folder):
        with contextlib.suppress(OSError):  # there is something in it
            empty.rmdir()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide torchvision's bar where nobody watches it."""
    with contextlib.ExitStack() as stack:
        if not sys.stderr.isatty():
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        yield


def _from_file(arrays: np.lib.npyio.NpzFile, part: str) -> Images:
    labels = arrays[f"{part}_labels"]
    if f"{part}_images" in arrays:
        return _images(arrays[f"{part}_images"], labels)
    from PIL import Image

    jpeg, offsets = arrays[f"{part}_jpeg"].tobytes(), arrays[f"{part}_offsets"]
    pictures = [
        np.asarray(Image.open(io.BytesIO(jpeg[start:end]))) for start, end in itertools.pairwise(offsets)
    ]
    return _images(np.stack(pictures), labels)


def _images(pixels: np.ndarray | Tensor, labels: np.ndarray | Tensor | list[int]) -> Images:
    pixels = torch.as_tensor(pixels)
    pixels = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.movedim(3, 1)
    return Images(pixels.float().div(255).contiguous(), torch.as_tensor(labels).long())
