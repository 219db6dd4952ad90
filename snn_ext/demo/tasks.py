"""The demo's three tasks, on data that scikit-learn carries.

*digits* (8 x 8 images, classes; presented unchanged at every step), *saccades* (the same images as events,
`snn_ext.events.saccades`), and *diabetes* (ten measurements, a number).

Learning rate and initial threshold of every arm come from the same search, `snn_ext.demo.tuning`: the whole
grid below, scored on the test data of seeds that the demo does not use.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_diabetes, load_digits
from sklearn.model_selection import KFold, train_test_split
from torch import Tensor, nn

from ..events import saccades
from ..observe import observe
from .networks import ActivityCounter, Network, build


class Setting(NamedTuple):
    """What was tuned for each arm."""

    rate: float
    threshold: float


@dataclasses.dataclass(frozen=True)
class Task:
    """A data set, how it is split, and the settings of the arms."""

    name: str
    score: str
    steps: int
    epochs: int
    folds: int
    outputs: int
    rates: tuple[float, ...]
    thresholds: tuple[float, ...]
    settings: dict[str, Setting]


DIGITS = Task(
    name="digits",
    score="accuracy %",
    steps=4,
    epochs=12,
    folds=1,
    outputs=10,
    rates=(0.003, 0.01, 0.03),
    thresholds=(0.25, 0.5, 1.0),
    settings={
        "VSN": Setting(0.03, 1.0),
        "LIFB": Setting(0.01, 1.0),
        "SoftReset": Setting(0.01, 0.5),
        "LIF": Setting(0.03, 1.0),
        "ReLU": Setting(0.03, 0.0),
    },
)
SACCADES = dataclasses.replace(
    DIGITS,
    name="saccades",
    steps=6,
    epochs=8,
    settings={
        "VSN": Setting(0.03, 0.5),
        "LIFB": Setting(0.01, 1.0),
        "SoftReset": Setting(0.01, 1.0),
        "LIF": Setting(0.01, 1.0),
        "ReLU": Setting(0.01, 0.0),
    },
)
DIABETES = Task(
    name="diabetes",
    score="R2",
    steps=1,
    epochs=30,
    folds=5,
    outputs=1,
    rates=(0.0001, 0.0003, 0.001),
    thresholds=(0.0625, 0.125, 0.25, 0.5, 1.0),
    settings={
        "VSN": Setting(0.0003, 0.0625),
        "LIFB": Setting(0.0003, 0.5),
        "SoftReset": Setting(0.001, 0.125),
        "LIF": Setting(0.0003, 0.0625),
        "ReLU": Setting(0.0003, 0.0),
    },
)
TASKS = (DIGITS, SACCADES, DIABETES)
OBSERVED = {"LIFB": "burst", "SoftReset": "quantization_error"}
"""What is observed in the neurons of an arm, beside its activity."""


class Split(NamedTuple):
    """Inputs of shape (steps, samples, features) and targets, to train on and to test on."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor


class Outcome(NamedTuple):
    """What one arm reached: score, spiking activity, what `OBSERVED` names, seconds per epoch, the last
    network."""

    score: float
    activity: float
    observed: float
    seconds: float
    network: Network


def splits(task: Task, seed: int) -> Iterator[Split]:
    """Yield the train and test splits of a seed: one for the digits, cross-validation for diabetes."""
    if task.name == "diabetes":
        x, y = (a.astype(np.float32) for a in load_diabetes(return_X_y=True))
        for train, test in list(KFold(5, shuffle=True, random_state=seed).split(x))[: task.folds]:
            scaled_x = (x - x[train].mean(0)) / x[train].std(0)
            scaled_y = (y[:, None] - y[train].mean()) / y[train].std()
            yield _split(_at_every_step(scaled_x, task.steps), scaled_y, train, test)
        return
    data = load_digits()
    images = (data.images / 16).astype(np.float32)
    x_seq = (
        saccades(torch.as_tensor(images), task.steps).flatten(2)
        if task.name == "saccades"
        else _at_every_step(images.reshape(len(images), -1), task.steps)
    )
    halves = train_test_split(np.arange(len(images)), test_size=0.2, random_state=seed, stratify=data.target)
    yield _split(x_seq, data.target, *halves)


def _at_every_step(x: np.ndarray, steps: int) -> Tensor:
    return torch.as_tensor(x).expand(steps, *x.shape)


def _split(x_seq: Tensor, y: np.ndarray, train: np.ndarray, test: np.ndarray) -> Split:
    targets = torch.as_tensor(y)
    return Split(x_seq[:, train], targets[train], x_seq[:, test], targets[test])


def train(
    task: Task,
    framework: str,
    arm: str,
    seed: int,
    *,
    setting: Setting | None = None,
    tick: Callable[[], None] = lambda: None,
) -> Outcome:
    """Train and test one arm on every split of `seed`; calls `tick` after each epoch."""
    rate, threshold = setting or task.settings[arm]
    loss_of: nn.Module = nn.MSELoss() if task.outputs == 1 else nn.CrossEntropyLoss()
    predictions, targets, activities, observations = [], [], [], []
    busy = 0.0
    for number, split in enumerate(splits(task, seed)):
        torch.manual_seed(1000 * seed + number)
        network = build(framework, arm, split.x.shape[2], task.outputs, threshold)
        optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, task.epochs)
        for _ in range(task.epochs):
            started = time.perf_counter()
            for batch in torch.randperm(len(split.y)).split(32):
                optimizer.zero_grad()
                loss_of(network(split.x[:, batch]), split.y[batch]).backward()
                optimizer.step()
            schedule.step()
            busy += time.perf_counter() - started
            tick()
        counter = ActivityCounter(network)
        watching: Any = observe(network) if arm in OBSERVED else nullcontext({})
        with torch.no_grad(), watching as seen:
            predictions.append(network(split.x_test))
        targets.append(split.y_test)
        activities.append(counter.activity)
        observations += [layer[OBSERVED[arm]] for layer in seen.values()]
    return Outcome(
        _score(torch.cat(predictions), torch.cat(targets)),
        float(np.mean(activities)),
        float(np.mean(observations)) if observations else float("nan"),
        busy / (task.epochs * len(targets)),
        network,
    )


def _score(prediction: Tensor, target: Tensor) -> float:
    if prediction.shape[1] > 1:
        return 100 * (prediction.argmax(1) == target).float().mean().item()
    return 1 - ((prediction - target) ** 2).mean().item() / target.var(correction=0).item()
