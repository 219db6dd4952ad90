# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The variable spiking neuron on regression
#
# To run it, install from a clone of the repository: `pip install '.[tutorials]'`.
#
# Paper: S. Garg and S. Chakraborty, *Neuroscience inspired scientific machine learning (Part-1): Variable
# spiking neuron for regression*, [arXiv:2311.09267](https://arxiv.org/abs/2311.09267).
#
# A leaky integrate-and-fire (LIF) neuron says *yes* or *no* at each step. That suits classes, but a regression
# has to build a number out of few yeses and noes. The variable spiking neuron (VSN) keeps the integrate-and-fire
# event, and lets its **own input** pass when the event opens the gate:
#
# $$h_t = d\,v_{t-1} + x_t \qquad o_t = H(h_t - \theta) \qquad y_t = \mathrm{act}(x_t\,o_t) \qquad
# v_t = (1 - o_t)\,h_t$$
#
# **Known** (the paper, and a later paper by its authors, [arXiv:2603.21674](https://arxiv.org/abs/2603.21674)): these
# equations; decay $d$ and threshold $\theta$ are learned, one pair per feature; the gate is differentiated through a
# surrogate, also where it multiplies the input; the real-valued input is fed at every step, with few steps, often one.
#
# **Inferred** (ours): the networks, data sets and settings below. The tables of the paper are not reproduced here; what
# is tested is its claim: *on regression VSN beats LIF clearly and comes near the non-spiking twin, at well under full
# activity.*
#
# In full, with tuning, this page takes about twenty minutes on one core; with `TUTORIAL_SEEDS=1` in the environment, a minute.

# %%
import os

import matplotlib.pyplot as plt
import numpy as np
import snntorch as snn
import torch
from sklearn.datasets import load_diabetes
from sklearn.model_selection import KFold
from torch import nn
from tqdm.auto import tqdm

import snn_ext.functional as F
from snn_ext.snntorch import VSN, reset

SEEDS = range(int(os.environ.get("TUTORIAL_SEEDS", 5)))
SMALL = len(SEEDS) == 1  # how the repository's tests run this: few updates, no tuning to speak of
torch.set_num_threads(1)  # the layers are small

# %% [markdown]
# ## One neuron
#
# `reset_delay=True` returns the potential before the reset, so that its crossing of the threshold can be seen.

# %%
t = torch.arange(60)
x_seq = 0.45 + 0.35 * torch.sin(2 * torch.pi * t / 40) - 0.6 * (t > 42)
y_seq, _, h_seq = F.vsn(x_seq[:, None], decay=0.8, threshold=1.0, reset_delay=True, return_v_seq=True)
gate = h_seq[:, 0] >= 1.0

figure, axes = plt.subplots(3, 1, figsize=(9, 5.2), sharex=True, constrained_layout=True)
axes[0].plot(t, x_seq, ".-", color="tab:green")
axes[0].set(ylabel="input $x_t$", title="One VSN: decay 0.8, threshold 1")
axes[1].plot(t, h_seq, ".-", color="tab:blue")
axes[1].axhline(1.0, ls="--", color="0.4")
axes[1].set(ylabel="potential $h_t$\n(before reset)")
axes[2].plot(t, x_seq, ".", color="tab:green", alpha=0.35, label="input")
axes[2].vlines(t[gate], 0, y_seq[gate, 0], color="tab:red", lw=2.5, label="graded spike")
axes[2].vlines(t[gate], -0.25, -0.15, color="k", label="the event itself, all that a LIF sends")
axes[2].set(ylabel="output $y_t$", xlabel="time step")
axes[2].legend(loc="upper right", fontsize=8)
plt.show()

# %% [markdown]
# The pale dots are the input: a graded spike has the height of the input at its step. A LIF with the same
# potential would send the black ticks alone.
#
# ## Three networks that differ in their neurons only
#
# `Linear - neuron - Linear - neuron - Linear`, the input presented at each step, the output averaged over the steps.
# Decay and threshold are learned per neuron in VSN and in LIF alike; LIF is snnTorch's own `Leaky`, reset to zero.

# %%
HIDDEN = 64


def neuron(arm, threshold):
    if arm == "ReLU":
        return nn.ReLU()
    settings = {
        "beta": torch.full((HIDDEN,), 0.5),
        "threshold": torch.full((HIDDEN,), threshold),
        "learn_beta": True,
        "learn_threshold": True,
        "init_hidden": True,
    }
    return VSN(**settings) if arm == "VSN" else snn.Leaky(**settings, reset_mechanism="zero")


class Net(nn.Module):
    def __init__(self, arm, inputs, steps, threshold):
        super().__init__()
        self.layers = nn.ModuleList(
            [nn.Linear(inputs, HIDDEN), nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, 1)]
        )
        self.neurons = nn.ModuleList([neuron(arm, threshold), neuron(arm, threshold)])
        self.steps = 1 if arm == "ReLU" else steps

    def forward(self, x):
        reset(self)
        outputs, self.emitted = [], []
        for _ in range(self.steps):
            z = x
            for layer, spiking in zip(self.layers, self.neurons, strict=False):
                z = spiking(layer(z))
                self.emitted.append((z.detach() != 0).float().mean())
            outputs.append(self.layers[-1](z))
        return torch.stack(outputs).mean(0)

    def activity(self):
        return torch.stack(self.emitted).mean().item()


def fit(arm, data, *, steps, rate, threshold, seed, updates):
    """Train on all of (x, y) at once; return the prediction for x_test and the spiking activity there."""
    x, y, x_test = data
    torch.manual_seed(seed)
    net = Net(arm, x.shape[1], steps, threshold)
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    for _ in range(updates):
        optimizer.zero_grad()
        nn.functional.mse_loss(net(x), y).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return net(x_test), net.activity()


def r2(prediction, target):
    return 1 - ((prediction - target) ** 2).mean().item() / target.var(correction=0).item()


# %% [markdown]
# Each arm gets the same tuning: every pair of a learning rate and an initial threshold, scored on two seeds that are
# not used afterwards. (ReLU has no threshold.)

# %%
RATES = (0.003,) if SMALL else (0.001, 0.003, 0.01, 0.03)
THRESHOLDS = (0.25, 0.5) if SMALL else (0.125, 0.25, 0.5, 1.0)
TUNING_SEEDS = (100,) if SMALL else (100, 101)
CURVE_UPDATES, DIABETES_UPDATES = (100, 30) if SMALL else (800, 120)
ARMS = ("VSN", "LIF", "ReLU")


def tune(run, label):
    """Return the best (rate, threshold) of each arm; `run(arm, rate=, threshold=, seed=)` gives (R2, activity)."""
    best = {}
    for arm in ARMS:
        grid = [
            (rate, threshold) for rate in RATES for threshold in ((0.0,) if arm == "ReLU" else THRESHOLDS)
        ]
        scores = [
            np.mean([run(arm, rate=rate, threshold=threshold, seed=seed)[0] for seed in TUNING_SEEDS])
            for rate, threshold in tqdm(grid, desc=f"{label}: tuning {arm}", leave=False)
        ]
        best[arm] = dict(zip(("rate", "threshold"), grid[int(np.argmax(scores))], strict=True))
    return best


def compare(run, label):
    """Tune every arm, then run it on all seeds; return the scores and activities, one row a seed."""
    best = tune(run, label)
    results = {
        arm: np.array(
            [run(arm, **best[arm], seed=seed) for seed in tqdm(SEEDS, desc=f"{label}: {arm}", leave=False)]
        )
        for arm in ARMS
    }
    print(f"{label}: R2 (and activity), mean ± standard deviation over {len(SEEDS)} seeds")
    for arm, rows in results.items():
        spread = rows[:, 0].std(ddof=1) if len(rows) > 1 else 0.0
        activity = "" if arm == "ReLU" else f", activity {rows[:, 1].mean():.2f}"
        threshold = "" if arm == "ReLU" else f", initial threshold {best[arm]['threshold']}"
        print(
            f"  {arm:<5} {rows[:, 0].mean():.4f} ± {spread:.4f}{activity}   (rate {best[arm]['rate']}{threshold})"
        )
    difference = results["VSN"][:, 0] - results["LIF"][:, 0]
    spread = difference.std(ddof=1) if len(difference) > 1 else 0.0
    print(
        f"  VSN minus LIF, paired: {difference.mean():+.4f} ± {spread:.4f}, "
        f"ahead in {(difference > 0).sum()} of {len(difference)}\n"
    )
    return best, results


# %% [markdown]
# ## A function of one variable
#
# 256 noise-free samples of $f(x) = \sin(2\pi x) + \tfrac12 \sin(6\pi x)$ on $[-1, 1]$, tested between them.


# %%
def f(x):
    return torch.sin(2 * torch.pi * x) + 0.5 * torch.sin(6 * torch.pi * x)


x_train = torch.linspace(-1, 1, 256)[:, None]
x_test = (x_train[1:] + x_train[:-1]) / 2
curve = (x_train, f(x_train), x_test)


def on_curve(steps):
    def run(arm, *, rate, threshold, seed):
        prediction, activity = fit(
            arm, curve, steps=steps, rate=rate, threshold=threshold, seed=seed, updates=CURVE_UPDATES
        )
        return r2(prediction, f(x_test)), activity

    return run


chosen, scores = {}, {}
for steps in (1, 4):
    chosen[steps], scores[steps] = compare(on_curve(steps), f"curve, {steps} step{'s' * (steps > 1)}")

# %%
figure, axes = plt.subplots(2, 3, figsize=(11, 5.6), sharex=True, sharey=True, constrained_layout=True)
for row, steps in zip(axes, (1, 4), strict=True):
    for axis, arm in zip(row, ARMS, strict=True):
        prediction, _ = fit(arm, curve, steps=steps, seed=0, updates=CURVE_UPDATES, **chosen[steps][arm])
        axis.plot(x_test, f(x_test), color="0.7", lw=3, label="f")
        axis.plot(x_test, prediction, color="tab:red", lw=1, label="network")
        shown = "not spiking" if arm == "ReLU" else f"{steps} step{'s' * (steps > 1)}"
        axis.set_title(f"{arm}, {shown}: R2 = {r2(prediction, f(x_test)):.3f}", fontsize=10)
for axis in axes[-1]:
    axis.set_xlabel("x")
axes[0, 0].legend(fontsize=8)
figure.suptitle("The curve and its fits, seed 0")
plt.show()

# %% [markdown]
# LIF can only answer with a staircase, as many stairs as it has patterns of spikes; VSN passes slopes through its open
# gates, with a jump where a gate opens or closes.
#
# ## Diabetes
#
# Real and noisy: 442 patients, ten measurements, disease progression after a year. The score of a seed is that of a
# 5-fold cross-validation. (Tuning uses other splits of the same patients, for every arm alike.)

# %%
X, Y = (torch.as_tensor(a, dtype=torch.float32) for a in load_diabetes(return_X_y=True))


def on_diabetes(steps):
    def run(arm, *, rate, threshold, seed):
        prediction, activities = torch.empty(len(Y)), []
        for fold, (train, test) in enumerate(KFold(5, shuffle=True, random_state=seed).split(X)):
            center, width, middle, spread = X[train].mean(0), X[train].std(0), Y[train].mean(), Y[train].std()
            data = (
                (X[train] - center) / width,
                (Y[train, None] - middle) / spread,
                (X[test] - center) / width,
            )
            out, activity = fit(
                arm,
                data,
                steps=steps,
                rate=rate,
                threshold=threshold,
                seed=1000 * seed + fold,
                updates=DIABETES_UPDATES,
            )
            prediction[test] = out[:, 0] * spread + middle
            activities.append(activity)
        return r2(prediction, Y), np.mean(activities)

    return run


for steps in (1, 4):
    chosen["diabetes", steps], scores["diabetes", steps] = compare(
        on_diabetes(steps), f"diabetes, {steps} step{'s' * (steps > 1)}"
    )

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), constrained_layout=True)
for axis, keys, title in zip(
    axes,
    ((1, 4), (("diabetes", 1), ("diabetes", 4))),
    ("curve", "diabetes, 5-fold cross-validation"),
    strict=True,
):
    for place, key in enumerate(keys):
        for shift, arm in enumerate(ARMS):
            values = scores[key][arm][:, 0]
            color = ("tab:red", "tab:blue", "0.5")[shift]
            where = place + 0.2 * (shift - 1)
            axis.plot(np.full(len(values), where), values, ".", color=color, alpha=0.5)
            axis.errorbar(
                where,
                values.mean(),
                values.std(ddof=1) if len(values) > 1 else 0,
                fmt="_",
                ms=14,
                capsize=4,
                color=color,
                label=arm if place == 0 else None,
            )
    axis.set(title=title, ylabel="R2 on test data", xticks=(0, 1), xticklabels=("1 step", "4 steps"))
axes[0].legend(loc="lower right", fontsize=8)
figure.suptitle(f"Mean ± standard deviation over {len(SEEDS)} seeds, and each seed", fontsize=10)
plt.show()

# %% [markdown]
# ## What was seen
#
# - **VSN beats LIF** on both tasks, at one step and at four, for every one of the five paired seeds. The gain is
#   largest at one step (R2 +0.036 on the curve, +0.033 on diabetes) and shrinks with steps (+0.010, +0.015), since four
#   steps give LIF more patterns to answer with.
# - **It comes near the non-spiking twin**: on diabetes the two are within noise (0.48). On the curve VSN is even
#   ahead, but that says little: 800 updates leave the ReLU network short of its best there, as the picture shows.
# - **Activity** is 0.36 to 0.47, well under one, but about twice that of LIF (0.14 to 0.22). Besides, a graded spike costs a
#   multiplication where a binary one costs an addition. What VSN wins in accuracy it pays for in operations.
#
# Limits: two small tasks, one architecture, one framework's LIF (with learned decay and threshold, reset to zero);
# tuning over a 4 x 4 grid with two seeds. The paper's own data sets and tables are not reproduced.
#
# Next: `snn-ext demo --seeds 5` compares it with the other neurons, on more tasks and in both frameworks.
