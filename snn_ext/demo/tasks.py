"""The demo's two tasks, on data that scikit-learn carries: digits (classes) and diabetes (a number).

For the regression, learning rate (0.00025 to 0.002) and initial threshold (0.125 to 1) were chosen for the
VSN and the LIF arm from one grid, with snnTorch, and kept for SpikingJelly.  For the digits, the learning
rate is the best of three for every arm; the thresholds were not tuned.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_diabetes, load_digits
from sklearn.model_selection import KFold, train_test_split
from torch import Tensor, nn

from .networks import ActivityCounter, Network, build


@dataclasses.dataclass(frozen=True)
class Task:
    """A data set, how it is split, and the settings that every arm shares."""

    name: str
    score: str
    steps: int
    epochs: int
    rates: dict[str, float]
    thresholds: dict[str, float]
    folds: int
    outputs: int


DIGITS = Task(
    name="digits",
    score="accuracy [%]",
    steps=4,
    epochs=15,
    rates={"VSN": 1e-2, "LIF": 1e-2, "ReLU": 1e-2},
    thresholds={"VSN": 0.5, "LIF": 1.0, "ReLU": 0.0},
    folds=1,
    outputs=10,
)
DIABETES = Task(
    name="diabetes",
    score="R2",
    steps=1,
    epochs=30,
    rates={"VSN": 5e-4, "LIF": 5e-4, "ReLU": 5e-4},
    thresholds={"VSN": 0.125, "LIF": 0.125, "ReLU": 0.0},
    folds=5,
    outputs=1,
)


class Split(NamedTuple):
    """Standardised inputs and targets to train on, and to test on."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor


class Outcome(NamedTuple):
    """What one arm reached: score, spiking activity, seconds per epoch, and the last network."""

    score: float
    activity: float
    seconds: float
    network: Network


def splits(task: Task, seed: int, folds: int) -> Iterator[Split]:
    """Yield the train and test splits of a seed: one for digits, cross-validation for diabetes."""
    if task.name == "digits":
        x, y = load_digits(return_X_y=True)
        x, x_test, y, y_test = train_test_split(
            (x / 16).astype(np.float32), y, test_size=0.2, random_state=seed, stratify=y
        )
        yield Split(*(torch.as_tensor(a) for a in (x, y, x_test, y_test)))
        return
    x, y = (a.astype(np.float32) for a in load_diabetes(return_X_y=True))
    for train, test in list(KFold(5, shuffle=True, random_state=seed).split(x))[:folds]:
        center, width = x[train].mean(0), x[train].std(0)
        middle, spread = y[train].mean(), y[train].std()
        yield Split(
            *(
                torch.as_tensor(a)
                for a in (
                    (x[train] - center) / width,
                    (y[train] - middle)[:, None] / spread,
                    (x[test] - center) / width,
                    (y[test] - middle)[:, None] / spread,
                )
            )
        )


def train(
    task: Task, framework: str, arm: str, seed: int, *, epochs: int, folds: int, tick: Callable[[], None]
) -> Outcome:
    """Train and test one arm on every split of `seed`; calls `tick` after each epoch."""
    predictions, targets, activities = [], [], []
    started, busy = 0.0, 0.0
    for number, split in enumerate(splits(task, seed, folds)):
        torch.manual_seed(1000 * seed + number)
        network = build(framework, arm, split.x.shape[1], task.outputs, task.thresholds[arm], task.steps)
        counter = ActivityCounter(network)
        optimizer = torch.optim.AdamW(network.parameters(), lr=task.rates[arm], weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
        loss_of: nn.Module = nn.MSELoss() if task.outputs == 1 else nn.CrossEntropyLoss()
        for _ in range(epochs):
            started = time.perf_counter()
            for batch in torch.randperm(len(split.x)).split(32):
                optimizer.zero_grad()
                loss_of(network(split.x[batch]), split.y[batch]).backward()
                optimizer.step()
            schedule.step()
            busy += time.perf_counter() - started
            tick()
        counter.take()
        with torch.no_grad():
            predictions.append(network(split.x_test))
        targets.append(split.y_test)
        activities.append(counter.take())
    score = _score(torch.cat(predictions), torch.cat(targets))
    return Outcome(score, float(np.mean(activities)), busy / (epochs * len(targets)), network)


def _score(prediction: Tensor, target: Tensor) -> float:
    if prediction.shape[1] > 1:
        return 100 * (prediction.argmax(1) == target).float().mean().item()
    return 1 - ((prediction - target) ** 2).mean().item() / target.var(correction=0).item()
