"""An independent oracle: the equations of the papers in float64, one loop per neuron, no shared code.

Gradients come from automatic differentiation, the surrogate entering by the straight-through identity
``H(u) + S(u) - S(u).detach()``, where ``S`` has the surrogate's derivative.  Each neuron returns what it
emits, the final potential, all potentials, and the distances to everything that it fires at.
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
    "straight_through": lambda u, w: clamp(u / w + 0.5),
    "mpr": lambda u, w: phi(clamp(u / w + 0.5)),
}

ACTIVATIONS = {
    "identity": lambda z: z,
    "relu": lambda z: torch.where(z > 0, z, torch.zeros_like(z)),
    "tanh": lambda z: (torch.exp(2 * z) - 1) / (torch.exp(2 * z) + 1),
    "gelu": lambda z: z * 0.5 * (1 + torch.erf(z / math.sqrt(2))),
}


def clamp(u):
    """``torch.clamp(u, 0, 1)`` with a slope of one at both ends, as torch had it when MPR was released.

    (Later releases of torch have a slope of zero there.)
    """
    return torch.where((u >= 0) & (u <= 1), u, (u > 1).to(u))


def step(u, surrogate, scale, strict):
    hard = torch.gt(u, 0) if strict else torch.ge(u, 0)
    soft = STEP_PRIMITIVES[surrogate](u, scale)
    return hard.double() + torch.where(u.isfinite(), soft - soft.detach(), torch.zeros_like(u))


def phi(u):
    """The membrane potential rectifier as its authors wrote it: three branches, spikes at 0 and 1."""
    below = 1 - (1 - torch.clamp(u, max=0)) ** (1 / 3)
    within = 0.5 * torch.tanh(3 * (u - 0.5)) / math.tanh(1.5) + 0.5
    above = torch.clamp(u, min=1) ** (1 / 3)
    return torch.where(u < 0, below, torch.where(u > 1, above, within))


def float64(*values):
    return [torch.as_tensor(value, dtype=torch.float64) for value in values]


def stacked(y_seq, potentials, distances):
    return torch.stack(y_seq), potentials[-1], torch.stack(potentials), torch.stack(distances).detach()


def vsn(
    x_seq,
    v0,
    decay,
    gain,
    threshold,
    *,
    activation="identity",
    surrogate="atan",
    scale=2.0,
    strict=False,
    detach_reset=False,
    reset_delay=False,
):
    x_seq, v, decay, gain, threshold = float64(x_seq, v0, decay, gain, threshold)
    act = ACTIVATIONS[activation]

    def after_reset(h, o):
        return (1 - (o.detach() if detach_reset else o)) * h

    if reset_delay:
        v = after_reset(v, step(v - threshold, surrogate, scale, strict))
        v = v if torch.as_tensor(v0).requires_grad else v.detach()  # else it is a constant start
    y_seq, potentials, distances = [], [], []
    for t in range(x_seq.shape[0]):
        h = decay * v + gain * x_seq[t]
        o = step(h - threshold, surrogate, scale, strict)
        y_seq.append(act(x_seq[t] * o))
        v = after_reset(h, o)
        potentials.append(h if reset_delay else v)
        distances.append(h - threshold)
    return stacked(y_seq, potentials, distances)


def lifb(
    x_seq,
    v0,
    decay,
    gain,
    threshold,
    burst_threshold,
    burst_intensity,
    *,
    v_reset=0.0,
    surrogate="atan",
    scale=2.0,
    strict=False,
    detach_reset=False,
    reset_delay=False,
):
    x_seq, v, decay, gain, threshold = float64(x_seq, v0, decay, gain, threshold)
    burst_threshold, kappa = float64(burst_threshold, burst_intensity)
    rest = 0.0 if v_reset is None else v_reset

    def after_reset(h, o):
        o = o.detach() if detach_reset else o
        return h - threshold * o if v_reset is None else (1 - o) * h + o * v_reset

    if reset_delay:
        v = after_reset(v, step(v - threshold, surrogate, scale, strict))
        v = v if torch.as_tensor(v0).requires_grad else v.detach()  # else it is a constant start
    y_seq, potentials, distances = [], [], []
    for t in range(x_seq.shape[0]):
        h = rest + decay * (v - rest) + gain * x_seq[t]
        o = step(h - threshold, surrogate, scale, strict)
        b = step(h - burst_threshold, surrogate, scale, strict)
        y_seq.append(o + (kappa - 1) * b)
        v = after_reset(h, o)
        potentials.append(h if reset_delay else v)
        distances.append(torch.minimum((h - threshold).abs(), (h - burst_threshold).abs()))
    return stacked(y_seq, potentials, distances)


def soft_reset_mpr(
    x_seq,
    v0,
    decay,
    gain,
    threshold,
    amplitude,
    *,
    v_reset=None,
    mpr=True,
    surrogate="straight_through",
    scale=1.0,
    strict=True,
    detach_reset=False,
    reset_delay=False,
):
    x_seq, v, decay, gain, threshold, amplitude = float64(x_seq, v0, decay, gain, threshold, amplitude)
    rest = 0.0 if v_reset is None else v_reset

    def fire(h):
        u = (h - threshold) / amplitude + 0.5
        return step((phi(u) if mpr else u) - 0.5, surrogate, scale, strict)

    def after_reset(h, o):
        o = o.detach() if detach_reset else o
        return h - amplitude * o if v_reset is None else (1 - o) * h + o * v_reset

    if reset_delay:
        v = after_reset(v, fire(v))
        v = v if torch.as_tensor(v0).requires_grad else v.detach()  # else it is a constant start
    y_seq, potentials, distances = [], [], []
    for t in range(x_seq.shape[0]):
        h = rest + decay * (v - rest) + gain * x_seq[t]
        o = fire(h)
        y_seq.append(amplitude * o)
        v = after_reset(h, o)
        potentials.append(h if reset_delay else v)
        distances.append(h - threshold)
    return stacked(y_seq, potentials, distances)


def soft_reset_mpr_release(x_seq):
    """The recurrence of the authors' release, as it stands there: no leak, no parameter, spikes of one."""
    h = torch.zeros_like(x_seq[0])
    spikes = []
    for x in x_seq:
        h = h + x
        u = clamp(phi(h))
        o = (u > 0.5).double() + u - u.detach()
        spikes.append(o)
        h = h - o
    return torch.stack(spikes), h
