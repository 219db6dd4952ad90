"""An independent oracle: the equations of the papers in float64, one loop per neuron, no shared code.

Gradients come from automatic differentiation, the surrogate entering by the straight-through identity
``H(u) + S(u) - S(u).detach()``, where ``S`` has the surrogate's derivative.
"""

import math

import torch

STEP_PRIMITIVES = {
    "atan": lambda u, a: torch.atan(math.pi * a * u / 2) / math.pi,
    "fast_sigmoid": lambda u, k: u / (1 + k * torch.abs(u)),
    "sigmoid": lambda u, k: 1 / (1 + torch.exp(-k * u)),
    "triangular": lambda u, w: torch.where(
        torch.abs(u) < w, u / w - torch.sign(u) * u**2 / (2 * w**2), torch.zeros_like(u)
    ),
    "rectangular": lambda u, w: torch.where(torch.abs(u) < w / 2, u / w, torch.zeros_like(u)),
}

ACTIVATIONS = {
    "identity": lambda z: z,
    "relu": lambda z: torch.where(z > 0, z, torch.zeros_like(z)),
    "tanh": lambda z: (torch.exp(2 * z) - 1) / (torch.exp(2 * z) + 1),
    "gelu": lambda z: z * 0.5 * (1 + torch.erf(z / math.sqrt(2))),
}


def step(u, surrogate, scale, strict):
    hard = torch.gt(u, 0) if strict else torch.ge(u, 0)
    soft = STEP_PRIMITIVES[surrogate](u, scale)
    return hard.double() + soft - soft.detach()


def vsn(
    x_seq,
    v0,
    decay,
    threshold,
    *,
    gain=1.0,
    activation="identity",
    surrogate="atan",
    scale=2.0,
    strict=False,
    detach_reset=False,
    reset_delay=False,
):
    """Return graded spikes, final potential, potentials, and distances to threshold, in float64."""
    as64 = [torch.as_tensor(a, dtype=torch.float64) for a in (x_seq, v0, decay, threshold, gain)]
    x_seq, v, decay, threshold, gain = as64
    act = ACTIVATIONS[activation]

    def after_reset(h, o):
        return (1 - (o.detach() if detach_reset else o)) * h

    if reset_delay:
        v = after_reset(v, step(v - threshold, surrogate, scale, strict))
    y_seq, potentials, distances = [], [], []
    for t in range(x_seq.shape[0]):
        h = decay * v + gain * x_seq[t]
        o = step(h - threshold, surrogate, scale, strict)
        y_seq.append(act(x_seq[t] * o))
        v = after_reset(h, o)
        potentials.append(h if reset_delay else v)
        distances.append((h - threshold).detach())
    return torch.stack(y_seq), potentials[-1], torch.stack(potentials), torch.stack(distances)
