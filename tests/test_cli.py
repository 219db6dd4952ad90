"""The command line: what it says and returns, and the demo from end to end at a small size."""

import functools
import importlib
import importlib.util
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import snn_ext
from snn_ext import cli, terminal
from snn_ext.ops import dispatch

ROOT = Path(__file__).parents[1]

HAVE = [name for name in cli.FRAMEWORKS if importlib.util.find_spec(name)]


def without(monkeypatch, *names):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n in names else real(n, *a))


def test_info_prints_versions_faces_and_implementations(capsys):
    assert cli.main(["info"]) == 0
    out = capsys.readouterr().out
    assert "torch" in out
    assert f"snn_ext::vsn on cpu   runs: {dispatch.implementation()}" in out
    for name in HAVE:
        assert f"snn_ext.{name:<13}available" in out


def test_info_says_what_to_install(capsys, monkeypatch):
    without(monkeypatch, "snntorch")
    cli.main(["info"])
    assert (
        "snnTorch is not installed; add it with: pip install 'snn-ext[snntorch]'" in capsys.readouterr().out
    )


def test_demo_without_any_framework_says_so_in_one_line(capsys, monkeypatch):
    without(monkeypatch, "snntorch", "spikingjelly")
    assert cli.main(["demo"]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "needs snnTorch or SpikingJelly; install both with: pip install 'snn-ext[all]'" in err


def test_demo_refuses_an_unwritable_place_before_it_trains(capsys):
    assert cli.main(["demo", "--output", "/nowhere/at/all.png"]) == 1
    assert "cannot write into /nowhere/at; choose another file with --output" in capsys.readouterr().err


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="no folder that takes no file")
def test_a_study_refuses_an_unwritable_folder_before_it_looks_for_data(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["reproduce", "conversion", "--folder", "/proc/kept"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("snn-ext reproduce cannot write into /proc; choose another with --folder")
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["folder", "picture", "picture.xyz"])
def test_demo_refuses_what_is_no_picture_before_it_trains(name, tmp_path, capsys):
    (tmp_path / "folder").mkdir()
    assert cli.main(["demo", "--output", str(tmp_path / name)]) == 1
    assert "does not name a picture; end it in one of:" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["info", "demo"])
def test_an_implementation_that_is_not_there_is_one_line(command, capsys, monkeypatch):
    monkeypatch.setenv("SNN_EXT_IMPL", "warp")
    assert cli.main([command]) == 1
    assert capsys.readouterr().err.startswith("SNN_EXT_IMPL='warp' is not available here")


BAD_NUMBERS = ("0", "-3", "many", "1.5", "1e3", "99999", "9" * 5000, "²", "")


@pytest.mark.parametrize("number", BAD_NUMBERS)
@pytest.mark.parametrize(
    "command", [("demo", "--seeds"), ("reproduce", "energy", "--seeds"), ("bench", "--threads")]
)
def test_a_bad_number_is_refused_in_one_line(command, number, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main([*command, number])
    assert left.value.code == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert len(err) < 200
    assert f"argument {command[-1]}: {number[:20]!r} is no whole number from 1 to " in err
    assert f"see snn-ext {command[0]} --help" in err


@pytest.mark.parametrize(
    "given",
    [("--vers",), ("demo", "--seed", "2"), ("bench", "--q"), ("reproduce", "energy", "--out", "x"), ("dem",)],
)
def test_nothing_may_be_abbreviated(given, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(list(given))
    assert left.value.code == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert given[-1] in err or given[1] in err


def test_version_and_help(capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out == f"snn-ext {snn_ext.__version__}\n"
    assert cli.main([]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("usage: snn-ext")
    assert "reproduce" in out
    assert err == ""


def run(*arguments, **named):
    if sys.platform != "win32":  # a job in the background, as these tests may be, ignores Ctrl-C
        named["preexec_fn"] = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "snn_ext", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        **named,
    )


def test_a_reader_that_reads_one_line_ends_it_in_silence():
    process = run("info")
    process.stdout.close()
    assert process.wait(120) == 141
    assert process.stderr.read() == ""


@pytest.mark.skipif(not HAVE, reason="no framework is installed")
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_at_the_demo_is_one_line_and_130(tmp_path):
    pytest.importorskip("sklearn")
    process = run("demo", "--framework", HAVE[0], cwd=tmp_path)
    assert process.stdout.readline().startswith("snn-ext demo: ")
    assert "digits" in process.stdout.readline()  # in a pipe, progress is a line
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err.count("\n") == 1
    assert err.startswith("snn-ext demo: interrupted")
    assert "\r" not in out
    assert "\x1b" not in out
    assert list(tmp_path.iterdir()) == []


class Stop:
    """Interrupts at a call; does what was there before."""

    def __init__(self, real, at, how):
        self.real, self.left, self.how = real, at, how

    def __call__(self, *arguments, **named):
        self.left -= 1
        if self.left < 0:
            self.how()
            time.sleep(5)  # until the signal has come
        return self.real(*arguments, **named)


def ctrl_c():
    raise KeyboardInterrupt


HOW = [(ctrl_c, 130, "interrupted")]
if sys.platform != "win32":
    HOW.append((lambda: os.kill(os.getpid(), signal.SIGTERM), 143, "ended"))


@pytest.mark.skipif(not HAVE, reason="no framework is installed")
@pytest.mark.parametrize(("how", "status", "word"), HOW)
def test_an_interrupted_demo_prints_what_was_trained(how, status, word, tmp_path, capsys, monkeypatch):
    pytest.importorskip("sklearn")
    run = importlib.import_module("snn_ext.demo.run")

    monkeypatch.setattr(run, "train", Stop(run.train, 2, how))
    before = signal.getsignal(signal.SIGTERM)
    demo = ["demo", "--quick", "--framework", HAVE[0], "--output", str(tmp_path / "demo.png")]
    assert cli.main(demo) == status
    assert signal.getsignal(signal.SIGTERM) is before
    out, err = capsys.readouterr()
    assert err == f"snn-ext demo: {word}; the tables above hold what was trained until then\n"
    assert "digits: 4 steps" in out
    assert "saccades: " not in out
    rows = [line for line in out.splitlines() if " + L" in line and " 0." in line]
    assert ["VSN + LIF" in row for row in rows] == [True, False]
    assert "LIFB + LIFB" in rows[1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not HAVE, reason="no framework is installed")
@pytest.mark.parametrize("measured", [0, 2])
def test_an_interrupted_bench_keeps_what_was_measured(measured, tmp_path, capsys, monkeypatch):
    import json

    from snn_ext.bench import run

    def sizes(*given):
        for i in range(measured):
            yield {"steps": 1, "neurons": i, "cases": [], "left out": []}
        raise KeyboardInterrupt

    monkeypatch.setitem(run.PARTS, "sizes", sizes)
    (tmp_path / "b.json").write_text("the last one")
    assert cli.main(["bench", "--quick", "--framework", HAVE[0], "--output", str(tmp_path / "b")]) == 130
    err = capsys.readouterr().err
    assert (tmp_path / "b.json").read_text() == "the last one"
    kept = tmp_path / "b-interrupted.json"
    assert kept.exists() == bool(measured)
    if measured:
        assert err == f"snn-ext bench: interrupted; what was measured until then is in {kept}\n"
        assert [size["neurons"] for size in json.loads(kept.read_text())["sizes"]] == [0, 1]
    else:
        assert err == "snn-ext bench: interrupted; nothing was measured yet\n"
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.skipif(not HAVE, reason="no framework is installed")
@pytest.mark.parametrize(
    ("command", "in_the_way"),
    [
        (("demo", "--output", "found.png"), "found-energy.png"),
        (("bench", "--output", "found"), "found.json"),
        (("bench", "--output", "found"), "found.png"),
        (("reproduce", "conversion", "--output", "found"), "found.json"),
        (("reproduce", "conversion", "--output", "found"), "found.png"),
    ],
)
def test_a_folder_in_the_way_of_a_file_is_one_line_before_any_work(
    command, in_the_way, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / in_the_way).mkdir()
    assert cli.main(list(command)) == 1
    err = capsys.readouterr().err
    assert err == f"{in_the_way} is a folder, no file to write; choose another file with --output\n"


@pytest.mark.skipif(not HAVE, reason="no framework is installed")
@pytest.mark.parametrize("command", [("demo", "--output", "a.png"), ("bench",), ("reproduce", "conversion")])
def test_a_full_disk_is_one_line_before_any_work(command, tmp_path, capsys, monkeypatch):
    def full(*arguments, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(terminal.tempfile, "TemporaryFile", full)
    assert cli.main(list(command)) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "choose another file with --output (No space left on device)" in err


def test_progress_is_lines_where_nobody_watches(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(terminal, "EVERY", 0.02)
    for _ in terminal.track(range(5), "simulate"):
        time.sleep(0.03)
    lines = stream.getvalue().splitlines()
    assert len(lines) > 2
    assert all(line.startswith("simulate: ") for line in lines)
    assert lines[-1].startswith("simulate: 100%")
    assert not set("\r\x1b") & set(stream.getvalue())
    stream.truncate(0)
    monkeypatch.setattr(terminal, "EVERY", 10)
    assert list(terminal.track(range(3), "soon done")) == [0, 1, 2]
    assert stream.getvalue() == ""


def test_progress_is_a_bar_on_a_terminal(monkeypatch):
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", stream)
    list(terminal.track(range(3), "simulate"))
    assert "\r" in stream.getvalue()


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    file = tmp_path / "a.json"
    file.write_text("before")

    def interrupted():
        with terminal.whole(file) as part:
            part.write_text("hal")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert file.read_text() == "before"
    with terminal.whole(file) as part:
        part.write_text("after")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["after"]


@pytest.mark.skipif(not HAVE, reason="no framework is installed")
def test_demo_trains_every_arm_and_draws(tmp_path, capsys):
    pytest.importorskip("sklearn")
    from snn_ext import demo

    picture = tmp_path / "demo.png"
    outcomes = demo.run(HAVE, seeds=2, quick=True, output=str(picture))
    arms = ("VSN", "LIFB", "SoftReset", "LIF", "ReLU")
    tasks = ("digits", "saccades", "diabetes")
    assert set(outcomes) == {(t, f, a) for t in tasks for f in HAVE for a in arms}
    for (task, _, arm), results in outcomes.items():
        assert len(results) == 2
        assert all(0.05 < r.activity < 0.95 for r in results)
        assert all(r.score > 60 for r in results if task != "diabetes")
        assert all((0.02 < r.observed < 0.98) == (arm in ("LIFB", "SoftReset")) for r in results)
    assert picture.stat().st_size > 100_000
    out = capsys.readouterr().out
    assert "difference to LIF + LIF over 2 paired seeds" in out
    assert out.count("/2)") == len(HAVE) * len(tasks) * (len(arms) - 1)
    assert "conversion: the digits' ReLU network as a spiking one" in out
    assert out.count("a spike is worth") == 1
    assert (tmp_path / "demo-energy.png").stat().st_size > 10_000
    lif, vsn = out.split("energy of a saccade, ")[1:]
    assert "LIF + LIF, seed 0" in lif
    assert "energy [nJ]" in lif
    assert "VSN + LIF, seed 0" in vsn
    for part, graded in ((lif, False), (vsn, True)):
        rows = {cells[0]: cells for cells in map(str.split, part.splitlines()) if cells}
        operations = [[int(rows[f"net.{i}"][j].replace(",", "")) for j in (-5, -4)] for i in (0, 2, 4)]
        assert operations[0][0] == 0  # events
        assert operations[0][1] > 0
        assert [mac > 0 for mac, _ in operations[1:]] == [graded, False]
        assert [ac > 0 for _, ac in operations[1:]] == [not graded, True]
    assert "--quick trains for 2 epochs" in out
    assert max(map(len, out.splitlines())) <= 100


def test_the_demo_s_settings_come_from_its_tuning_grid():
    pytest.importorskip("sklearn")
    from snn_ext.demo import networks, tasks

    for task in tasks.TASKS:
        assert set(task.settings) == set(networks.ARMS)
        for arm, setting in task.settings.items():
            assert setting.rate in task.rates
            assert setting.threshold in (task.thresholds if arm != "ReLU" else (0.0,))


@pytest.mark.parametrize("framework", HAVE)
def test_tuning_scores_the_whole_grid(framework, monkeypatch):
    pytest.importorskip("sklearn")
    import dataclasses

    from snn_ext.demo import tasks, tuning

    monkeypatch.setattr(tuning, "frameworks", lambda task: (framework,))
    monkeypatch.setattr(tuning, "SEEDS", (1000,))
    small = dataclasses.replace(tasks.DIABETES, epochs=1, folds=1)
    scores = tuning.tune(small, "LIFB")
    assert set(scores) == {(rate, threshold) for rate in small.rates for threshold in small.thresholds}
    assert len(set(scores.values())) > 1
    assert len(tuning.tune(small, "ReLU")) == len(small.rates)


@pytest.mark.skipif(not HAVE, reason="no framework is installed")
def test_saccades_of_the_demo_are_the_same_digits_as_events():
    pytest.importorskip("sklearn")
    from snn_ext.demo import tasks

    still, moving = (next(tasks.splits(task, 3)) for task in (tasks.DIGITS, tasks.SACCADES))
    assert still.y_test.equal(moving.y_test)
    assert still.x.shape == (4, 1437, 64)
    assert moving.x.shape == (6, 1437, 200)
    assert still.x[0].equal(still.x[3])
    assert set(moving.x.unique().tolist()) == {0.0, 1.0}


@pytest.mark.skipif(len(HAVE) < 2, reason="needs both frameworks")
def test_demo_runs_the_other_framework_and_says_so(tmp_path, capsys, monkeypatch):
    pytest.importorskip("sklearn")
    without(monkeypatch, "spikingjelly")
    assert cli.main(["demo", "--quick", "--output", str(tmp_path / "demo.png")]) == 0
    out = capsys.readouterr().out
    assert "SpikingJelly is not installed" in out
    assert "running the other framework" in out
    assert "snnTorch" in out
