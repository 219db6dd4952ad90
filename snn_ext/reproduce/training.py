"""Training of the studies' ReLU networks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from .data import Images

BATCH = 128


def train(
    net: nn.Module,
    data: Images,
    *,
    epochs: int,
    rate: float,
    seed: int,
    augment: bool = False,
    penalty: Callable[[], Tensor] | None = None,
    tick: Callable[[], None] = lambda: None,
) -> nn.Module:
    """Train `net` in place with SGD, one cycle of the learning rate; calls `tick` after each batch.

    Computes in bfloat16 under autocast, with float32 weights.  With `augment`, images are shifted by up to
    four pixels and mirrored.  A `penalty` is called after each forward, and added to the loss.  Returned in
    evaluation mode.
    """
    generator = torch.Generator().manual_seed(seed)
    net.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9, nesterov=True, weight_decay=5e-4)
    batches = len(data.labels) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=epochs * batches, pct_start=0.25
    )
    for _ in range(epochs):
        order = torch.randperm(len(data.labels), generator=generator)
        for batch in order[: batches * BATCH].split(BATCH):
            x = data.images[batch]
            x = _augmented(x, generator) if augment else x
            with torch.autocast("cpu", torch.bfloat16):
                prediction = net(x.contiguous(memory_format=torch.channels_last))
            loss = functional.cross_entropy(prediction.float(), data.labels[batch])
            if penalty is not None:
                loss = loss + penalty()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            tick()
    return net.eval().to(memory_format=torch.contiguous_format)


def _augmented(x: Tensor, generator: torch.Generator) -> Tensor:
    size = x.shape[-1]
    padded = functional.pad(x, (4, 4, 4, 4), mode="reflect")
    down, right = torch.randint(0, 9, (2, len(x)), generator=generator)
    rows = down[:, None] + torch.arange(size)
    columns = right[:, None] + torch.arange(size)
    mirrored = torch.rand(len(x), generator=generator) < 0.5
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    index = torch.arange(len(x))
    return padded[index[:, None, None], :, rows[:, :, None], columns[:, None, :]].movedim(3, 1)


@torch.no_grad()
def accuracy(net: nn.Module, data: Images) -> float:
    """Return the accuracy of `net` in percent."""
    size = max(1, min(250, len(data.labels)))
    right = sum(
        int((net(x).argmax(1) == y).sum())
        for x, y in zip(data.images.split(size), data.labels.split(size), strict=True)
    )
    return 100 * right / len(data.labels)
