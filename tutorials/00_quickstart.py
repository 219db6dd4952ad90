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
# # Quickstart
#
# ```bash
# pip install '.[tutorials]'      # in a clone of the repository; for your own work '.[all]', '.[snntorch]' or '.[spikingjelly]'
# ```
#
# `snn_ext` adds neurons to the framework that you already use. This page builds one mixed network in each
# framework, trains it on scikit-learn's digits, saves it, loads it, and compiles it. The two halves stand alone:
# read the one of your framework.

# %%
import copy
import pickle
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from tqdm.auto import tqdm

from snn_ext import cli

status = cli.info()

# %%
X, y = load_digits(return_X_y=True)
parts = train_test_split((X / 16).astype("float32"), y, test_size=0.2, random_state=0, stratify=y)
x_train, x_test, y_train, y_test = (torch.as_tensor(part) for part in parts)

STEPS, EPOCHS = 4, 8
torch.set_num_threads(1)  # the layers are small
folder = Path(tempfile.mkdtemp())


def train(net, forward):
    """Train `net`; `forward(x)` gives its output averaged over the steps."""
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    started = time.perf_counter()
    for _ in tqdm(range(EPOCHS), desc="epochs", leave=False):
        for batch in torch.randperm(len(x_train)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(forward(x_train[batch]), y_train[batch]).backward()
            optimizer.step()
    with torch.no_grad():
        accuracy = (forward(x_test).argmax(1) == y_test).float().mean().item()
    print(f"test accuracy {accuracy:.1%} after {EPOCHS} epochs, {time.perf_counter() - started:.0f} s")


# %% [markdown]
# ## snnTorch
#
# `VSN` takes `snn.Leaky`'s arguments, in its order, and then `activation`. It stands in a `Sequential` with
# `init_hidden=True`, next to a native `Leaky`. snnTorch's surrogates are recognised.

# %%
import snntorch as snn
from snntorch import surrogate

import snn_ext.snntorch as ext

torch.manual_seed(0)
net = nn.Sequential(
    nn.Linear(64, 96),
    ext.VSN(beta=0.7, threshold=0.5, spike_grad=surrogate.atan(), learn_beta=True, init_hidden=True),
    nn.Linear(96, 48),
    snn.Leaky(beta=0.7, spike_grad=surrogate.atan(), init_hidden=True),
    nn.Linear(48, 10),
)


def run_snntorch(x, net=net):
    ext.reset(net)  # reaches nested neurons too, where snntorch.utils.reset looks at direct children only
    return torch.stack([net(x) for _ in range(STEPS)]).mean(0)


train(net, run_snntorch)

# %% [markdown]
# **Save and load.** The state dict has the keys of a native `Leaky`, and holds no state. The whole module pickles and
# copies too, also in the middle of training (snnTorch's own surrogates are closures, which do not pickle).

# %%
torch.save(net.state_dict(), folder / "snntorch.pt")
twin = copy.deepcopy(net)
twin.load_state_dict(torch.load(folder / "snntorch.pt"))
vsn = pickle.loads(pickle.dumps(net[1]))
print(vsn)
print("same answers:", torch.equal(run_snntorch(x_test), run_snntorch(x_test, twin)))

# %% [markdown]
# **Compile.** One graph, no break.

# %%
compiled = torch.compile(
    net, fullgraph=True, backend="aot_eager"
)  # leave backend out for speed; it needs a C++ compiler
with torch.no_grad():
    print("compiled agrees:", torch.allclose(run_snntorch(x_test), run_snntorch(x_test, compiled)))

# %% [markdown]
# **Whole sequences at once.** Outside a `Sequential`, `multi_step` runs all steps of a layer in one fused call.

# %%
layer = ext.VSN(beta=0.7, threshold=0.5)
x_seq = torch.randn(100, 32, 96)
y_seq, mem = layer.multi_step(x_seq)
step_by_step, state = [], None
for x in x_seq:
    out, state = layer(x, torch.zeros(32, 96) if state is None else state)
    step_by_step.append(out)
print(y_seq.shape, "equal to the loop:", torch.equal(y_seq, torch.stack(step_by_step)))

# %% [markdown]
# ## SpikingJelly
#
# `VSNNode` takes `LIFNode`'s arguments, in its order, and then `activation`, `learn_tau`, `learn_threshold`. Step modes,
# monitors, `reset_net` and `detach_net` work as natively; so does the model zoo, which takes
# `spiking_neuron=VSNNode`.

# %%
from spikingjelly.activation_based import functional, monitor, neuron
from spikingjelly.activation_based import layer as sj_layer
from spikingjelly.activation_based import surrogate as sj_surrogate

from snn_ext.spikingjelly import VSNNode

torch.manual_seed(0)
sj_net = nn.Sequential(
    sj_layer.Linear(64, 96),
    VSNNode(
        tau=3.0, decay_input=False, v_threshold=0.5, surrogate_function=sj_surrogate.ATan(), learn_tau=True
    ),
    sj_layer.Linear(96, 48),
    neuron.LIFNode(tau=3.0, decay_input=False, surrogate_function=sj_surrogate.ATan()),
    sj_layer.Linear(48, 10),
)
functional.set_step_mode(sj_net, "m")


def run_spikingjelly(x, net=sj_net):
    functional.reset_net(net)
    return net(x.expand(STEPS, *x.shape)).mean(0)


train(sj_net, run_spikingjelly)

# %%
torch.save(sj_net.state_dict(), folder / "spikingjelly.pt")
sj_twin = copy.deepcopy(sj_net)
sj_twin.load_state_dict(torch.load(folder / "spikingjelly.pt"))
sj_compiled = torch.compile(sj_net, fullgraph=True, backend="aot_eager")
with torch.no_grad():
    answers = run_spikingjelly(x_test)
    print("loaded agrees:  ", torch.equal(answers, run_spikingjelly(x_test, sj_twin)))
    functional.reset_net(sj_net)
    print(
        "compiled agrees:", torch.allclose(answers, sj_compiled(x_test.expand(STEPS, *x_test.shape)).mean(0))
    )

# %% [markdown]
# **Look inside**, with the framework's own monitors: what the VSN layer emits, and its potential after the reset.

# %%
sj_net[1].store_v_seq = True
emitted = monitor.OutputMonitor(sj_net, VSNNode)
potential = monitor.AttributeMonitor("v_seq", False, sj_net, VSNNode)
functional.reset_net(sj_net)
with torch.no_grad():
    sj_net(x_test[:1].expand(16, 1, 64))

figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), constrained_layout=True)
shows = (emitted.records[0], "graded spikes $y_t$"), (potential.records[0], "potential $v_t$ after the reset")
for axis, (record, title) in zip(axes, shows, strict=True):
    image = record[:, 0, :40].T
    limit = image.abs().max()
    drawn = axis.imshow(image, aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    axis.set(title=title, xlabel="time step", ylabel="neuron")
    figure.colorbar(drawn, ax=axis)
plt.show()
emitted.remove_hooks()
potential.remove_hooks()

# %% [markdown]
# ## The other neurons
#
# `LIFB` bursts, and `SoftResetMPR` carries its rounding error on; in SpikingJelly `LIFBNode` and `SoftResetMPRNode`. They
# take the same arguments and go where `VSN` went. `observe` says what they do in a network, and `decouple` replaces a
# LIFB by a pair of native LIF neurons, whose spikes are binary.

# %%
from snn_ext.spikingjelly import LIFBNode, SoftResetMPRNode, decouple, observe

torch.manual_seed(0)
bursting = nn.Sequential(
    sj_layer.Linear(64, 96),
    LIFBNode(tau=3.0, decay_input=False, v_threshold=0.5, learn_burst_intensity=True),
    sj_layer.Linear(96, 48),
    SoftResetMPRNode(),
    sj_layer.Linear(48, 10),
)
functional.set_step_mode(bursting, "m")
train(bursting, lambda x: run_spikingjelly(x, bursting))

with observe(bursting) as seen, torch.no_grad():
    answers = run_spikingjelly(x_test, bursting)
for name, averages in seen.items():
    print(f"layer {name}:", {what: round(value, 3) for what, value in averages.items()})

functional.reset_net(bursting)
pairs = decouple(bursting)
with torch.no_grad():
    same = (run_spikingjelly(x_test, pairs).argmax(1) == answers.argmax(1)).float().mean()
print(f"the decoupled network gives the same answer for {same:.1%} of the test images\n")
print(pairs)

# %% [markdown]
# Next: [01_vsn_regression](01_vsn_regression.ipynb), what graded spikes are good for; [02_lifb_bursts](02_lifb_bursts.ipynb);
# [03_soft_reset_mpr](03_soft_reset_mpr.ipynb).
