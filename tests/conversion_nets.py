"""ReLU networks with everything that conversion reads, for its tests."""

import torch
from torch import nn
from torch.nn import functional as F


class Residual(nn.Module):
    """A residual block as in torchvision: one ReLU in place called twice, an addition in place."""

    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.down = None
        if stride != 1 or inputs != outputs:
            self.down = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x if self.down is None else self.down(x)
        return self.relu(out)


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2))
        self.blocks = nn.Sequential(Residual(8, 8), Residual(8, 16, 2))
        self.fc = nn.Linear(16, 5)

    def forward(self, x):
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(self.blocks(self.stem(x)), 1), 1))


class Functional(nn.Module):
    """Functions in place of layers, shared layers, views, a mean, a branch that ends in the sum."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.same = nn.Conv2d(6, 6, 3, padding=1, groups=2)
        self.norm = nn.BatchNorm2d(6)
        self.fc1 = nn.Linear(6 * 4 * 4, 12)
        self.fc2 = nn.Linear(12, 12)
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        x = F.max_pool2d(torch.relu(self.conv(x)), 2)
        x = F.relu(self.same(x))
        x = self.norm(x)  # behind a ReLU: nothing to fold into
        x = F.relu(self.same(x), inplace=True)
        x = F.avg_pool2d(x, 2)
        x = F.dropout(x.view(x.size(0), -1), 0.5, self.training)
        x = self.fc1(x).relu()
        return self.head(torch.add(self.fc2(x), x).relu_())


class Pooled(nn.Module):
    """Max pooling of currents, global pooling by a mean."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 5)
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        return self.fc(F.relu(F.max_pool2d(self.conv(x), 2)).mean((2, 3)))


def sequential():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.AvgPool2d(2),
        nn.Dropout2d(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 16),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Identity(),
        nn.Linear(16, 5),
    )


def one_dimensional():
    return nn.Sequential(
        nn.Conv1d(3, 6, 3),
        nn.BatchNorm1d(6),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Conv1d(6, 6, 3),
        nn.ReLU(),
        nn.AvgPool1d(2),
        nn.AdaptiveAvgPool1d(2),
        nn.Flatten(),
        nn.Linear(12, 5),
    )


def weight_normed():
    linear = nn.utils.parametrizations.weight_norm(nn.Linear(12, 8))
    return nn.Sequential(nn.Flatten(), linear, nn.ReLU(), nn.Linear(8, 5))


class Readers(nn.Module):
    """A ReLU on the input, one behind Flatten, a layer that is added to itself, and a ReLU at the end."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 6, 3, padding=1, stride=2, dilation=1), nn.BatchNorm2d(6)
        self.pool = nn.AvgPool2d(3, 2, padding=1, ceil_mode=True)
        self.fc1, self.fc2 = nn.Linear(6 * 5 * 5, 8), nn.Linear(8, 5)

    def forward(self, x):
        h = self.conv(torch.relu(x))
        h = torch.relu(torch.flatten(self.pool(self.norm(h) + h), 1))
        h = self.fc1(h)
        return torch.relu(self.fc2(torch.relu(h + h)))


class Concatenated(nn.Module):
    """Branches one after another: through a batch norm, into ReLUs, a sum, one twice, and behind Flatten."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 6, 1)
        self.norm, self.both = nn.BatchNorm2d(10), nn.Conv2d(10, 10, 3, padding=1, groups=2)
        self.more, self.fc1, self.fc2 = nn.Conv2d(13, 4, 1), nn.Linear(64 + 16, 8), nn.Linear(16, 5)

    def forward(self, x):
        one, two = F.relu(self.one(x)), self.two(x)
        both = F.relu(self.norm(torch.cat([one, F.relu(two)], 1)))
        both = F.relu(self.both(both) + torch.cat((two, self.one(x)), dim=1))
        last = F.avg_pool2d(F.relu(self.more(torch.cat((both, F.max_pool2d(x, 1)), 1))), 4)
        last = torch.cat((last.flatten(1), F.adaptive_avg_pool2d(one, 2).flatten(1)), -1)
        last = F.relu(self.fc1(last))
        return self.fc2(torch.concat((last, last), dim=1))


class Mobile(nn.Module):
    """Activations that are clipped: ReLU6 and hardtanh, linear bottlenecks between depthwise layers."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU6(inplace=True))
        self.depth, self.point = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 8, 1)
        self.fc1, self.fc2, self.clip = nn.Linear(8, 8), nn.Linear(8, 5), nn.Hardtanh(0, 0.1)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.point(F.relu6(self.depth(x)))
        x = F.hardtanh(self.fc1(x.mean((2, 3))), 0.0, 0.2)
        return self.fc2(self.clip(x))


SHAPES = {one_dimensional: (3, 24), weight_normed: (3, 2, 2)}
NETS = (sequential, ResNet, Functional, Pooled, Readers, one_dimensional, weight_normed, Concatenated)
ALL = (*NETS, Mobile)
"""With the one whose activations are clipped."""


def trained(build, samples=32, dtype=torch.float32):
    """Return a network with running statistics of its own, in evaluation mode, and images in [0, 1]."""
    torch.manual_seed(0)
    net = build().to(dtype)
    images = torch.rand(samples, *SHAPES.get(build, (3, 16, 16)))
    images = images.to(dtype)
    for _ in range(20):
        net(images)
    for layer in net.modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.3, 0.3)
    return net.eval(), images
