"""The command line: info, and the demo from end to end at a small size."""

import importlib.util

import pytest

from snn_ext import cli
from snn_ext.ops import dispatch

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


@pytest.mark.parametrize("seeds", ["0", "-3", "many"])
def test_a_bad_number_of_seeds_is_refused(seeds, capsys):
    with pytest.raises(SystemExit):
        cli.main(["demo", "--seeds", seeds])
    assert "--seeds" in capsys.readouterr().err


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
        operations = [[int(rows[f"net.{i}"][j].replace(",", "")) for j in (-4, -3)] for i in (0, 2, 4)]
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
