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
# # Integrate and fire, or burst
#
# To run it, install from a clone of the repository: `pip install '.[tutorials]'`.
#
# Paper: G. Shen, D. Zhao and Y. Zeng, leaky integrate-and-fire-or-burst (LIFB),
# [arXiv:2301.12356](https://arxiv.org/abs/2301.12356).
#
# A LIF neuron has two answers a step, silence and a spike. A LIFB neuron has three: it **rests**, **spikes**, or, when its
# potential is far above the threshold, **bursts**, and what a burst is worth is learned:
#
# $$h_t = d\,v_{t-1} + x_t \qquad o_t = H(h_t - \theta) \qquad b_t = H(h_t - \theta_b) \qquad
# y_t = o_t + (\kappa - 1)\,b_t \qquad v_t = \mathrm{reset}(h_t, o_t)$$
#
# **Known** (the abstract and a figure of the paper): three modes; the density of bursts adapts; the neuron decouples
# losslessly into LIF neurons; static and event data.
#
# **Inferred** (ours): these equations, with a burst threshold $\theta_b > \theta$, a burst intensity $\kappa \ge 1$, and one reset for
# spikes and bursts alike; how the decoupling is done; networks, data and settings below. The tables of the paper are not
# reproduced; what is tested is its claim: *LIFB beats LIF in the same network, most of all at few steps.*
#
# In full, with tuning and ten seeds, this page takes about five minutes on one core; with `TUTORIAL_SEEDS=1` in the
# environment, half a minute.

# %%
import contextlib
import io
import logging
import os
import warnings

import matplotlib.pyplot as plt
import nir
import numpy as np
import snntorch as snn
import torch
from sklearn.datasets import load_digits
from torch import nn
from tqdm.auto import tqdm

import snn_ext.functional as F
from snn_ext.events import saccades
from snn_ext.snntorch import LIFB, decouple, export_to_nir, observe, reset

SEEDS = range(int(os.environ.get("TUTORIAL_SEEDS", 10)))
SMALL = len(SEEDS) == 1  # how the repository's tests run this: few updates, no tuning to speak of
torch.set_num_threads(1)  # the layers are small
MODES = {"rest": "0.75", "regular": "tab:blue", "burst": "tab:red"}

# %% [markdown]
# ## One neuron, three modes
#
# `reset_delay=True` returns the potential before the reset, so that its crossings can be seen.

# %%
t = torch.arange(60)
x_seq = 0.55 + 0.55 * torch.sin(2 * torch.pi * t / 40) + 1.1 * (t % 17 == 16)
neuron = {"decay": 0.8, "threshold": 1.0, "burst_threshold": 1.6, "burst_intensity": 2.5}
y_seq, _, h_seq = F.lifb(x_seq[:, None], **neuron, reset_delay=True, return_v_seq=True)
y, h = y_seq[:, 0], h_seq[:, 0]

figure, axes = plt.subplots(3, 1, figsize=(9, 5.2), sharex=True, constrained_layout=True)
axes[0].plot(t, x_seq, ".-", color="tab:green")
axes[0].set(ylabel="input $x_t$", title="One LIFB: decay 0.8, thresholds 1 and 1.6, burst intensity 2.5")
axes[1].plot(t, h, ".-", color="0.3")
axes[1].axhline(1.0, ls="--", color="tab:blue")
axes[1].axhline(1.6, ls="--", color="tab:red")
axes[1].set(ylabel="potential $h_t$\n(before reset)")
for mode, wanted in (("regular", y == 1), ("burst", y > 1)):
    axes[2].vlines(t[wanted], 0, y[wanted], color=MODES[mode], lw=3, label=mode)
axes[2].set(ylabel="output $y_t$", xlabel="time step")
axes[2].legend(loc="center", fontsize=8)
plt.show()

# %% [markdown]
# ## The same network with LIF and with LIFB
#
# `Linear - neuron - Linear - neuron - Linear` on scikit-learn's digits: as still images presented at each step (1, 2 and 4
# steps), and as events from saccades, where the image is moved and only changes are seen (6 steps). LIF is snnTorch's own
# `Leaky`; both reset to zero and learn decay and threshold per neuron, LIFB its burst threshold and intensity as well.

# %%
HIDDEN = 32
images = torch.as_tensor(load_digits().images / 16, dtype=torch.float32)
labels = torch.as_tensor(load_digits().target)
events = saccades(images)


def neurons(arm, threshold):
    settings = {
        "beta": torch.full((HIDDEN,), 0.5),
        "threshold": torch.full((HIDDEN,), threshold),
        "learn_beta": True,
        "learn_threshold": True,
        "init_hidden": True,
        "reset_mechanism": "zero",
    }
    if arm == "LIF":
        return snn.Leaky(**settings)
    learned = {"learn_burst_threshold": True, "learn_burst_intensity": True}
    return LIFB(**settings, burst_intensity=torch.full((HIDDEN,), 1.5), **learned)


def network(arm, inputs, threshold):
    return nn.Sequential(
        nn.Linear(inputs, HIDDEN),
        neurons(arm, threshold),
        nn.Linear(HIDDEN, HIDDEN),
        neurons(arm, threshold),
        nn.Linear(HIDDEN, 10),
    )


def run(net, x_seq):
    """Return the output of each step, from rest."""
    reset(net)
    return torch.stack([net(x) for x in x_seq])


def data(task, seed):
    """Return the inputs over time and the labels of a random half for training, and of the other half."""
    kind, steps = task
    x_seq = events.flatten(2) if kind == "saccades" else images.flatten(1).expand(steps, -1, -1)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    train, test = order[: len(order) // 2], order[len(order) // 2 :]
    return (x_seq[:, train], labels[train]), (x_seq[:, test], labels[test])


def fit(arm, task, *, rate, threshold, seed, updates, watch=lambda net: None):
    """Train on all of the training half at once; return the network and its accuracy in percent on the other."""
    (x, y), (x_test, y_test) = data(task, seed)
    torch.manual_seed(seed)
    net = network(arm, x.shape[-1], threshold)
    optimizer = torch.optim.Adam(net.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    for _ in range(updates):
        optimizer.zero_grad()
        nn.functional.cross_entropy(run(net, x).mean(0), y).backward()
        optimizer.step()
        schedule.step()
        watch(net)
    with torch.no_grad():
        correct = run(net, x_test).mean(0).argmax(1) == y_test
    reset(net)
    return net, 100 * correct.float().mean().item()


# %% [markdown]
# Each arm gets the same tuning: every pair of a learning rate and an initial threshold (the burst threshold starts at twice
# the threshold), scored on two seeds that are not used afterwards.

# %%
RATES = (0.01,) if SMALL else (0.01, 0.03, 0.1)
THRESHOLDS = (0.5,) if SMALL else (0.25, 0.5, 1.0)
TUNING_SEEDS = (100,) if SMALL else (100, 101)
UPDATES = 15 if SMALL else 80
TASKS = (("images", 1), ("images", 2), ("images", 4), ("saccades", 6))
ARMS = ("LIF", "LIFB")

chosen, scores, networks = {}, {}, {}
for task in TASKS:
    for arm in ARMS:
        grid = [(rate, threshold) for rate in RATES for threshold in THRESHOLDS]
        means = [
            np.mean(
                [
                    fit(arm, task, rate=rate, threshold=threshold, seed=seed, updates=UPDATES)[1]
                    for seed in TUNING_SEEDS
                ]
            )
            for rate, threshold in tqdm(grid, desc=f"{task}: tuning {arm}", leave=False)
        ]
        best = dict(zip(("rate", "threshold"), grid[int(np.argmax(means))], strict=True))
        results = [
            fit(arm, task, **best, seed=seed, updates=UPDATES)
            for seed in tqdm(SEEDS, desc=f"{task}: {arm}", leave=False)
        ]
        chosen[task, arm] = best
        scores[task, arm] = np.array([score for _, score in results])
        networks[task, arm] = [net for net, _ in results]


def spread(values):
    return f"{values.mean():6.2f} ± {values.std(ddof=1) if len(values) > 1 else 0:.2f}"


for task in TASKS:
    difference = scores[task, "LIFB"] - scores[task, "LIF"]
    print(
        f"{task[0]}, {task[1]} step{'s' * (task[1] > 1)}: accuracy [%] on the other half, mean ± std over {len(SEEDS)} seeds"
    )
    for arm in ARMS:
        print(f"  {arm:<5}{spread(scores[task, arm])}   {chosen[task, arm]}")
    ahead = f"ahead in {(difference > 0).sum()} of {len(difference)}"
    print(f"  LIFB minus LIF, paired: {spread(difference).strip()}, {ahead}")

# %% [markdown]
# ## What the neurons do, and what they learned
#
# `observe` counts the modes of every layer while a network runs.

# %%
modes = {}
for task in TASKS:
    rows = []
    for seed, net in zip(SEEDS, networks[task, "LIFB"], strict=True):
        with observe(net) as seen, torch.no_grad():
            run(net, data(task, seed)[1][0])
        rows.append([[seen[layer][mode] for mode in MODES] for layer in ("1", "3")])
    modes[task] = np.array(rows)  # seed, layer, mode

figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), constrained_layout=True)
names = [f"{kind}\n{steps} step{'s' * (steps > 1)}" for kind, steps in TASKS]
for layer, (axis, title) in enumerate(zip(axes, ("first neuron layer", "second neuron layer"), strict=False)):
    bottom = np.zeros(len(TASKS))
    for number, (mode, color) in enumerate(MODES.items()):
        values = np.array([modes[task][:, layer, number] for task in TASKS])
        axis.bar(names, values.mean(1), bottom=bottom, color=color, label=mode)
        bottom += values.mean(1)
    axis.set(title=title, ylabel="fraction of neurons and steps")
axes[0].legend(loc="lower left", fontsize=8)
for layer, color in ((1, "tab:purple"), (3, "tab:orange")):
    values = [
        torch.cat([net[layer].burst_intensity.detach() for net in networks[task, "LIFB"]]) for task in TASKS
    ]
    position = np.arange(len(TASKS)) + (-0.18 if layer == 1 else 0.18)
    parts = axes[2].violinplot(values, position, widths=0.32, showmedians=True, showextrema=False)
    for body in parts["bodies"]:
        body.set_color(color)
    parts["cmedians"].set_color(color)
    axes[2].plot([], [], color=color, lw=6, alpha=0.4, label="first layer" if layer == 1 else "second layer")
axes[2].axhline(1.5, ls=":", color="0.4", label="start")
axes[2].set(
    title=r"learned burst intensity $\kappa$", xticks=range(len(TASKS)), xticklabels=names, ylim=(1, None)
)
axes[2].legend(fontsize=8)
figure.suptitle(f"LIFB networks on test data, {len(SEEDS)} seeds, {HIDDEN} neurons a layer", fontsize=10)
plt.show()

# %% [markdown]
# ## Decoupled: two native LIF neurons for each
#
# A burst neuron is a pair of LIF neurons on one potential: *regular* fires at $\theta$, *burst* at $\theta_b$. Then
# $W y_t = W a_t + (\kappa - 1) W b_t$, so the burst intensity goes into the weights of the next layer and all spikes are
# binary. `decouple` does that for a whole network, with native `snn.Leaky`; its module has the proof.

# %%
task = ("saccades", 6)
net = networks[task, "LIFB"][0]
(_, _), (x_test, y_test) = data(task, 0)
pairs = decouple(net)
print(pairs)

with torch.no_grad():
    bursting, binary = run(net, x_test), run(pairs, x_test)
print("\nlargest difference of the outputs:", (bursting - binary).abs().max().item())
print("predictions that differ:", int((bursting.mean(0).argmax(1) != binary.mean(0).argmax(1)).sum()))

# %% [markdown]
# Side by side: the first layer of both networks on one digit after another, without a reset in between. The coupling matters.
# An independent second LIF neuron would not be reset by a regular spike, and fires where there is no burst:

# %%
SHOWN, SAMPLES = 16, 6
samples = x_test[:, :SAMPLES].transpose(0, 1).flatten(0, 1)
with torch.no_grad():
    current = net[0](samples)
    reset(net), reset(pairs)
    lifb = torch.stack([net[1](c[None])[0] for c in current])
    spikes = torch.stack([pairs[1](c[None])[0] for c in current])
    regular, burst = spikes.chunk(2, 1)
    alone = snn.Leaky(net[1].beta, net[1].burst_threshold, reset_mechanism="zero", init_hidden=True)
    independent = torch.stack([alone(c[None])[0] for c in current])
reset(net), reset(pairs)
busy = lifb.sum(0).argsort(descending=True)[:SHOWN]

figure, axes = plt.subplots(1, 3, figsize=(12, 3.8), sharey=True, constrained_layout=True)


def raster(axis, what, color, size, label=None):
    steps, rows = np.nonzero(what[:, busy].numpy())
    axis.scatter(steps + 1, rows, s=size, color=color, marker="s", label=label, linewidths=0)


raster(axes[0], lifb == 1, MODES["regular"], 22, "regular")
raster(axes[0], lifb > 1, MODES["burst"], 22, "burst")
axes[0].set(title="LIFB", ylabel="neuron, most active first")
raster(axes[1], regular, MODES["regular"], 22, "LIF at the threshold")
raster(axes[1], burst, MODES["burst"], 6, "LIF at the burst threshold")
axes[1].set_title("decoupled pair of snn.Leaky")
raster(axes[2], burst, MODES["burst"], 22, "coupled")
raster(axes[2], (independent > 0) & (burst == 0), "k", 22, "wrong: independent only")
axes[2].set_title("the burst neuron alone")
for axis in axes:
    axis.set_xlabel("time step (a new digit every 6)")
    axis.set_ylim(SHOWN - 0.3, -0.7)
    for sample in range(1, SAMPLES):
        axis.axvline(6 * sample + 0.5, color="0.7", lw=0.8, ls=":")
    axis.legend(fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))
plt.show()
print("wrong spikes of an independent burst neuron:", int(((independent > 0) != (burst > 0)).sum()))

# %% [markdown]
# ## Into another simulator
#
# NIR, the exchange format of neuromorphic software, has LIF neurons that reset hard, and no coupling of that kind.
# `export_to_nir` writes a LIFB layer as one recurrent layer of plain LIF neurons that gives the same spikes (seven for each, and
# a clock; `snn_ext.nir` shows how, with the proof). Any reader of NIR can run it:


# %%
def simulate(read, graph):
    """Read the graph in another simulator, and run it step by step."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # of deprecated functions inside the readers
        other, state, outputs = read(graph), None, []
        for x in x_test:
            y, state = other(x) if state is None else other(x, state)
            outputs.append(y)
    return torch.stack(outputs).detach()


def read_norse(graph):
    import norse.torch

    return norse.torch.from_nir(graph, dt=1e-4)


def read_snntorch(graph):
    from snntorch.import_nir import import_from_nir

    return import_from_nir(graph)


def write(path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        nir.write(path, export_to_nir(net, x_test[0], **options))
    return nir.read(path)


for name, node in write("lifb.nir").nodes.items():
    size = getattr(node, "v_threshold", getattr(node, "weight", np.zeros(0))).shape
    if size:
        print(f"{name:<12}{type(node).__name__:<8}{size}")

# Norse takes LIF nodes of unit resistance only.
for name, reader, options in (
    ("snnTorch", read_snntorch, {}),
    ("Norse", read_norse, {"unit_resistance": True}),
):
    read_back = simulate(reader, write("lifb.nir", **options))
    same = (read_back.mean(0).argmax(1) == bursting.mean(0).argmax(1)).float().mean()
    print(
        f"{name}: largest difference {(read_back - bursting).abs().max():.1e}, same predictions {100 * same:.1f} %"
    )
os.remove("lifb.nir")

# %% [markdown]
# ## What was seen
#
# - **LIFB is ahead of LIF** in two of four settings: by 0.76 ± 1.03 points with one step (8 of 10 paired seeds) and 0.65 ± 0.73 with
#   four (8 of 10). With two steps (0.08 ± 0.86) and on saccades (-0.02 ± 0.59) there is no difference. The same code on another processor,
#   which rounds otherwise, had 0.96 ± 0.79, 0.63 ± 0.44, 0.00 ± 0.82 and, on saccades, 0.63 ± 0.67: such gains hang on rounding and on two
#   tuning seeds. The gain is largest at one step, as the paper has it, but it does not shrink steadily; and near 96 % there is little to gain.
#   LIFB also has two learned numbers more for each neuron.
# - **Bursts became the rule.** After training, neurons burst two to four times (first layer) and six to eleven times (second layer) as often as
#   they spike regularly, and the burst intensity grew from 1.5 to 1.6 or 1.7 and 1.7 to 2.0. A third level is used; the middle one, rarely.
# - **Decoupling is lossless**: the pairs differ from the bursting network by rounding (1e-6), and no prediction changes. Without
#   the coupling a burst neuron fires at wrong steps, as the black squares show.
# - **NIR**: both simulators give the same outputs, to rounding, from plain LIF neurons. The price is size: seven LIF neurons
#   for each LIFB, and dense matrices between them.
#
# Limits: one small data set in two forms, one architecture, one framework's LIF (learned decay and threshold, reset to zero),
# tuning over a 3 x 3 grid with two seeds. The paper's own data sets and tables are not reproduced.
#
# Next: `snn-ext demo --seeds 5` compares all three neurons in both frameworks; [03_soft_reset_mpr](03_soft_reset_mpr.ipynb) is
# about the third.
