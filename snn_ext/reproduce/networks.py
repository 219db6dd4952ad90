"""The ReLU networks that the studies train, and how."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import nn


def perceptron() -> nn.Sequential:
    """784 - 400 - 400 - 10, for MNIST."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 400),
        nn.ReLU(),
        nn.Linear(400, 400),
        nn.ReLU(),
        nn.Linear(400, 10),
    )


def small_cnn() -> nn.Sequential:
    """Two convolutions and two linear layers, for MNIST."""
    return nn.Sequential(
        *_convolution(1, 16),
        nn.AvgPool2d(2),
        *_convolution(16, 32),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


def vgg() -> nn.Sequential:
    """Six 3 x 3 convolutions with batch norm, as in VGG, for CIFAR-10."""
    layers: list[nn.Module] = []
    inputs = 3
    for width in (32, 64, 128):
        layers += [*_convolution(inputs, width), *_convolution(width, width), nn.AvgPool2d(2)]
        inputs = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 4 * 4, 10))


def _convolution(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()


class Kind(NamedTuple):
    """A network, its data, and how it is trained."""

    title: str
    build: Callable[[], nn.Sequential]
    data: str
    epochs: int
    rate: float
    augment: bool


KINDS = {
    "perceptron": Kind("MNIST, 784-400-400-10", perceptron, "mnist", 5, 0.05, False),
    "small_cnn": Kind("MNIST, two convolutions", small_cnn, "mnist", 3, 0.05, False),
    "vgg": Kind("CIFAR-10, six convolutions", vgg, "cifar10", 10, 0.1, True),
}
