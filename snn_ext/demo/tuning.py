"""The search behind the demo's settings: ``python -m snn_ext.demo.tuning`` (about twenty-five minutes).

Every arm gets the same effort: each pair of its task's learning rates and initial thresholds (ReLU has no
threshold), scored on two seeds that the demo does not use.  One framework tunes for both, SpikingJelly, whose
multi-step runs are the faster ones; but both tune the saccades, where they disagree on the best.  It prints
all scores and the best; the winners stand in `snn_ext.demo.tasks`.
"""

from __future__ import annotations

import sys

import numpy as np
import torch

from .networks import ARMS
from .tasks import SACCADES, TASKS, Setting, Task, train

SEEDS = (1000, 1001)


def frameworks(task: Task) -> tuple[str, ...]:
    """Return the frameworks whose scores count."""
    return ("spikingjelly", "snntorch") if task is SACCADES else ("spikingjelly",)


def tune(task: Task, arm: str) -> dict[Setting, float]:
    """Return the mean score of each setting."""
    thresholds = (0.0,) if arm == "ReLU" else task.thresholds
    scores = {}
    for setting in (Setting(rate, threshold) for rate in task.rates for threshold in thresholds):
        results = [
            train(task, framework, arm, seed, setting=setting).score
            for framework in frameworks(task)
            for seed in SEEDS
        ]
        scores[setting] = float(np.mean(results))
    return scores


def main(names: list[str]) -> None:
    """Tune the named tasks, or all of them."""
    torch.set_num_threads(1)
    for task in TASKS:
        if names and task.name not in names:
            continue
        for arm in ARMS:
            scores = tune(task, arm)
            print(f"{task.name} {arm}: {max(scores, key=lambda setting: scores[setting])}")
            for (rate, threshold), score in scores.items():
                print(f"    rate {rate:<8g} threshold {threshold:<6g} {task.score} {score:.4g}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
