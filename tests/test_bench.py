"""The bench: everything asked for is measured, written and drawn; no test asks how long anything takes."""

import importlib.util
import itertools
import json
import math
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

pytest.importorskip("rich")
pytest.importorskip("matplotlib")

from snn_ext import cli
from snn_ext.bench import memory, networks, run, timing
from snn_ext.bench.cases import cases, copies, forced, step
from snn_ext.ops import dispatch

HAVE = [name for name in cli.FRAMEWORKS if importlib.util.find_spec(name)]
CPU = torch.device("cpu")
every_framework = pytest.mark.parametrize("framework", HAVE)

TINY = run.Plan(((1, 8), (4, 8), (16, 8), (4, 64)), memory=(4, 64), seconds=0, repeats=2, slow=60)


@pytest.fixture
def small_networks(monkeypatch):
    monkeypatch.setattr(
        networks, "NETWORKS", {"small": networks.Network((4,), lambda: [nn.Linear(4, 3), nn.Linear(3, 10)])}
    )
    monkeypatch.setattr(networks, "BATCH", 2)


@pytest.mark.skipif(not HAVE, reason="needs a framework")
@pytest.mark.usefixtures("small_networks")
def test_everything_is_measured_written_and_drawn(tmp_path, monkeypatch):
    monkeypatch.setenv(dispatch.VARIABLE, "reference")
    monkeypatch.setattr(run, "HEADLINE", ((1, 8), (4, 64)))
    threads = torch.get_num_threads()
    results = run.run(HAVE, plan=TINY, device=CPU, threads=threads + 1, output=str(tmp_path / "found-0.2"))
    assert os.environ[dispatch.VARIABLE] == "reference"
    assert torch.get_num_threads() == threads
    assert results == json.loads((tmp_path / "found-0.2.json").read_text())
    assert (tmp_path / "found-0.2.png").stat().st_size > 10_000
    assert results["machine"]["threads"] == threads + 1
    assert [(size["steps"], size["neurons"]) for size in results["sizes"]] == list(TINY.sizes)
    implementations = [name for name in dispatch.available() if name != "cupy"]
    for size in results["sizes"]:
        learned = sum("learned" in entry["name"] for entry in size["cases"])
        expected = len(HAVE) * (1 + 3 * len(implementations))
        assert learned == (expected if (size["steps"], size["neurons"]) == (4, 64) else 0)
        assert len(size["cases"]) == expected + learned + 1
        for entry in size["cases"]:
            for times in (entry["forward"], entry["both"]):
                assert 0 < times["low"] <= times["median"] <= times["high"] < math.inf
                assert times["repeats"] >= TINY.repeats
    assert [result["framework"] for result in results["memory"]] == HAVE
    assert [result["framework"] for result in results["networks"]] == HAVE
    for result in results["networks"]:
        assert {entry["name"]: entry["relu"] for entry in result["cases"]}["ReLU"] == 1
        assert len(result["cases"]) >= 5


@every_framework
def test_what_is_slow_is_left_out(framework):
    case = cases(framework, 4, CPU)[0]
    x_seq, grad = torch.randn(4, 2**22, requires_grad=True), torch.randn(4, 2**22)
    assert run._too_slow(case, x_seq, grad, run.Plan((), (1, 1), 0, 1, slow=0.0))
    assert not run._too_slow(case, x_seq, grad, run.Plan((), (1, 1), 0, 1, slow=1e9))
    assert not run._too_slow(case, x_seq[:, :8], grad[:, :8], run.Plan((), (1, 1), 0, 1, slow=0.0))


@every_framework
@pytest.mark.parametrize("steps", [1, 5])
def test_cases_run_what_they_are_called(framework, steps, monkeypatch):
    monkeypatch.delenv(dispatch.VARIABLE, raising=False)
    ran = []
    choose = dispatch.choose
    monkeypatch.setattr(dispatch, "choose", lambda *a: ran.append(dispatch.implementation(*a)) or choose(*a))
    x_seq = torch.randn(steps, 6, requires_grad=True)
    for case in cases(framework, steps, CPU):
        ran.clear()
        with forced(case.implementation):
            y = case.run(x_seq)
        assert y.shape == (x_seq.shape if steps > 1 else x_seq[0].shape)
        assert set(ran) == ({case.implementation} if case.implementation else set())
        step(case.run, x_seq, torch.ones(steps, 6))()
        assert x_seq.grad is None


@every_framework
def test_our_neurons_keep_their_input_for_backward_and_little_else(framework):
    x_seq = torch.randn(64, 100, requires_grad=True)
    for case in cases(framework, 64, CPU):
        with forced(case.implementation):
            kept = memory.saved(case.run, x_seq)
        if case.implementation:
            assert x_seq.nbytes <= kept <= 1.02 * x_seq.nbytes, case
        else:
            assert kept > 1.02 * x_seq.nbytes


def test_peak_memory_is_what_a_step_adds():
    def grow():
        torch.ones(2**24)

    peak = memory.peak(grow, CPU)
    if peak is None:
        pytest.skip("cannot be told on this system")
    assert peak <= 1.5 * 2**26


def test_copies_move_the_bytes_and_leave_the_input():
    x_seq, grad = torch.randn(3, 4), torch.randn(3, 4)
    before = x_seq.clone()
    for run_it in copies(x_seq, grad):
        run_it()
    assert torch.equal(x_seq, before)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="as glibc has it")
def test_freed_memory_is_kept_where_asked():
    code = """
import resource, torch
from snn_ext.bench.memory import keep_freed
if keep_freed():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(64):
        torch.ones(2**22)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() / 2**24)
"""
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert not found or float(found) < 32  # fresh, they would be 64


def test_runs_take_turns():
    order = []
    runs = {name: lambda name=name: order.append(name) for name in "abc"}
    times = timing.interleaved(runs, seconds=0, repeats=20, device=CPU)
    assert {name: len(values) for name, values in times.items()} == dict.fromkeys("abc", 20)
    samples = "".join(name for name, _ in itertools.groupby(order))
    assert (
        len({samples[i : i + 2] for i in range(len(samples) - 1)}) == 6
    )  # each has come after each other one


@pytest.mark.parametrize("power", [0.5, 1, 2])
def test_exponent_of_a_power_law(power):
    sizes = [1000, 4000, 64_000, 10**6]
    assert timing.exponent(sizes, [3e-7 * size**power for size in sizes]) == pytest.approx(power)


@pytest.mark.parametrize("before", [None, "native"])
def test_what_was_forced_before_is_forced_after(before, monkeypatch):
    monkeypatch.delenv(dispatch.VARIABLE, raising=False)
    if before:
        monkeypatch.setenv(dispatch.VARIABLE, before)
    with forced("reference"):
        assert os.environ[dispatch.VARIABLE] == "reference"
    assert os.environ.get(dispatch.VARIABLE) == before


def test_bench_says_in_one_line_what_it_misses(capsys, monkeypatch, tmp_path):
    assert cli.main(["bench", "--output", "/nowhere/at/all"]) == 1
    assert "snn-ext bench cannot write into /nowhere/at" in capsys.readouterr().err
    if not torch.cuda.is_available():
        assert cli.main(["bench", "--device", "cuda"]) == 1
        assert "torch finds no CUDA device; use --device cpu" in capsys.readouterr().err
    monkeypatch.setattr(cli, "faces", lambda: {"snntorch": "missing", "spikingjelly": "missing"})
    assert cli.main(["bench"]) == 1
    assert "snn-ext bench needs snnTorch or SpikingJelly" in capsys.readouterr().err
