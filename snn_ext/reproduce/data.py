"""MNIST and CIFAR-10 as tensors in [0, 1].

Read from ``mnist.npz`` and ``cifar10.npz`` where the folder holds them, else through torchvision, which
downloads them into the folder.  The layout of the files: arrays ``train_images`` and ``test_images`` (uint8)
with ``train_labels`` and ``test_labels``; in place of the images also ``train_jpeg`` (JPEG files end to end)
with ``train_offsets``.
"""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

SOURCES = {"mnist": "MNIST", "cifar10": "CIFAR10"}


class Images(NamedTuple):
    """Images of shape (N, C, H, W), float32 in [0, 1], and labels of shape (N,)."""

    images: Tensor
    labels: Tensor


def load(name: str, folder: str | Path) -> tuple[Images, Images]:
    """Return the training and the test set of `name`, ``"mnist"`` or ``"cifar10"``."""
    if name not in SOURCES:
        raise ValueError(f"name={name!r} is no data set known here; use one of {', '.join(SOURCES)}")
    file = Path(folder) / f"{name}.npz"
    if file.exists():
        with np.load(file) as arrays:
            return _from_file(arrays, "train"), _from_file(arrays, "test")
    from torchvision import datasets

    source = getattr(datasets, SOURCES[name])
    train, test = (source(folder, train=train, download=True) for train in (True, False))
    return _images(train.data, train.targets), _images(test.data, test.targets)


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
