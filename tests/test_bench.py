"""The bench: everything asked for is measured, written and drawn; no test asks how long anything takes."""

import concurrent.futures
import importlib.util
import itertools
import json
import math
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

pytest.importorskip("rich")
pytest.importorskip("matplotlib")

from rich.console import Console

from snn_ext import cli
from snn_ext.bench import conversion, memory, networks, report, run, timing
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
    small = lambda: nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 10))  # noqa: E731
    monkeypatch.setattr(conversion, "NETWORKS", {"small": (small, (4,))})
    monkeypatch.setattr(conversion, "STEPS", 3)


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
    assert not results["machine"]["freed memory kept"]
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
    (converted,) = results["conversion"]
    names = [entry["name"] for entry in converted["cases"]]
    assert len(set(names)) == len(names) == 3 * ("spikingjelly" in HAVE) + 2 * ("snntorch" in HAVE)
    for entry in converted["cases"]:
        assert entry["images a second"] == pytest.approx(conversion.BATCH / entry["run"]["median"])
        if "spikingjelly" in HAVE:
            native = converted["cases"][0]
            assert native["name"] == conversion.NATIVE
            assert entry["times native"] == pytest.approx(native["run"]["median"] / entry["run"]["median"])
    assert [result["framework"] for result in results["penalties"]] == HAVE
    for result in results["penalties"]:
        cases = {(entry["name"], entry["penalty"]): entry for entry in result["cases"]}
        assert len(cases) == (len(networks.PENALTIES) + 1) * len({name for name, _ in cases})
        for (name, penalty), entry in cases.items():
            without = cases[name, ""]["step"]["median"]
            assert entry["times without"] == pytest.approx(entry["step"]["median"] / without)
            assert penalty in ("", *networks.PENALTIES)
    for result in results["networks"]:
        assert {entry["name"]: entry["relu"] for entry in result["cases"]}["ReLU"] == 1
        assert len(result["cases"]) >= 5


def test_what_is_left_out_is_said_and_each_is_compared_with_its_like(capsys):
    def entry(name, framework, implementation, seconds):
        both = {"median": seconds}
        return {
            "name": name,
            "framework": framework,
            "implementation": implementation,
            "forward": both,
            "both": both,
        }

    size = {
        "steps": 4,
        "neurons": 64,
        "left out": ["VSN, reference"],
        "cases": [
            entry("LIFNode", "spikingjelly", "", 6.0),
            entry("ParametricLIFNode, decay learned", "spikingjelly", "", 10.0),
            entry("VSNNode", "spikingjelly", "native", 2.0),
            entry("VSNNode, decay learned", "spikingjelly", "native", 4.0),
            entry(report.FLOOR, "", "", 0.5),
        ],
    }
    results = dict.fromkeys(("memory", "networks", "penalties", "conversion", "exponents"), ())
    results["sizes"] = [size]
    console = Console(width=150)
    for table in report.tables(results, ((4, 64),)):
        console.print(table)
    printed = capsys.readouterr().out
    assert "4 x 64 took too long: VSN, reference" in printed
    assert "[ms]" in printed
    rows = {line.split("  ")[1].strip(): line.split() for line in printed.splitlines() if " (native)" in line}
    assert rows["VSNNode (native)"][-2:] == ["3.00", "4.00"]
    assert rows["VSNNode, decay learned (native)"][-2:] == ["2.50", "8.00"]


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


def _printed(code, **environment):
    """Return the numbers that `code` prints in a process of its own."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**plain, **environment})
    return [float(word) for word in done.stdout.split()]


def test_peak_memory_is_what_a_step_adds():
    code = """
import torch
from snn_ext.bench.memory import peak
found = peak(lambda: torch.ones(2**24), torch.device("cpu"))
if found is not None:
    print(found / 2**26)
"""
    found = _printed(code, MALLOC_MMAP_THRESHOLD_="65536")
    if not found:
        pytest.skip("cannot be told on this system")
    assert 0.9 <= found[0] <= 1.5


@every_framework
def test_memory_is_measured_without_the_allocator_settings_of_the_user(framework, monkeypatch):
    monkeypatch.setenv("MALLOC_MMAP_MAX_", "0")
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    before = dict(os.environ)
    found = memory.measured(framework, 16, 2**16, CPU)
    assert dict(os.environ) == before
    assert len(found) == len(cases(framework, 16, CPU))
    for (name, _, implementation), kept, most in found:
        assert kept >= 2**22, name
        if implementation == "native" and most is not None:
            assert 1.8 * 2**22 <= most <= 2.5 * 2**22, name  # what goes out, and its gradient


def test_copies_leave_the_input_alone():
    x_seq, grad = torch.randn(3, 4), torch.randn(3, 4)
    before = x_seq.clone()
    for run_it in copies(x_seq, grad):
        run_it()
    assert torch.equal(x_seq, before)


@pytest.mark.skipif("glibc" not in platform.libc_ver(), reason="as glibc has it")
def test_freed_memory_is_kept_where_asked():
    code = """
import resource, torch
from snn_ext.bench.memory import keep_freed
def fresh():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(16):
        torch.ones(2**24)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() / 2**26
without = fresh()
assert keep_freed()
print(without, fresh())
"""
    without, kept = _printed(code)
    assert kept < 8 < without  # sixteen, if all of them are fresh


def test_runs_take_turns(monkeypatch):
    monkeypatch.setattr(timing, "SAMPLE", 0)
    order = []
    runs = {name: lambda name=name: order.append(name) for name in "abc"}
    times = timing.interleaved(runs, seconds=0, repeats=20, device=CPU)
    assert {name: len(values) for name, values in times.items()} == dict.fromkeys("abc", 20)
    samples = "".join(name for name, _ in itertools.groupby(order))
    after_each_other = {samples[i : i + 2] for i in range(len(samples) - 1)}
    assert len(after_each_other) == 6


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


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_does_not_reach_the_process_that_measures_memory_and_ends_it(monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    assert memory.apart(signal.getsignal, signal.SIGINT) == signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) is before

    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(concurrent.futures.Future, "result", interrupt)
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        memory.apart(time.sleep, 500)
    assert time.monotonic() - begun < 400
    assert not multiprocessing.active_children()


def test_bench_says_in_one_line_what_it_misses(capsys, monkeypatch, tmp_path):
    assert cli.main(["bench", "--output", "/nowhere/at/all"]) == 1
    assert "snn-ext bench cannot write into /nowhere/at" in capsys.readouterr().err
    if not torch.cuda.is_available():
        assert cli.main(["bench", "--device", "cuda"]) == 1
        assert "torch finds no CUDA device; use --device cpu" in capsys.readouterr().err
    monkeypatch.setattr(cli, "faces", lambda: {"snntorch": "missing", "spikingjelly": "missing"})
    assert cli.main(["bench"]) == 1
    assert "snn-ext bench needs snnTorch or SpikingJelly" in capsys.readouterr().err
