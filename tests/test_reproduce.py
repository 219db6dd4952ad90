"""The studies, end to end on images of their own making."""

import dataclasses
import importlib.util
import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("rich")
pytest.importorskip("matplotlib")

from snn_ext import cli
from snn_ext.reproduce import (
    conversion,
    conversion_report,
    data,
    energy,
    energy_report,
    networks,
    results,
    store,
    training,
)

TUTORIALS = Path(__file__).parents[1] / "tutorials"


@pytest.fixture
def folder(tmp_path):
    """A folder with a data set of two classes of 6 x 6 images, bright above or bright below."""
    rng = np.random.default_rng(0)
    files = {}
    for part, number in (("train", 400), ("test", 60)):
        labels = rng.integers(0, 2, number)
        images = rng.integers(0, 60, (number, 6, 6))
        images[labels == 0, :3] += 180
        images[labels == 1, 3:] += 180
        files |= {f"{part}_images": images.astype(np.uint8), f"{part}_labels": labels}
    np.savez(tmp_path / "mnist.npz", **files)
    return tmp_path


@pytest.fixture
def small(monkeypatch):
    """One small network, few steps, short grids."""
    kind = networks.Kind(
        "small",
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 2)),
        "mnist",
        epochs=10,
        rate=0.1,
        augment=False,
    )
    monkeypatch.setattr(data, "SHAPES", {"mnist": (6, 6)})
    monkeypatch.setattr(conversion, "KINDS", {"tiny": kind})
    monkeypatch.setattr(conversion, "HELD_OUT", 100)
    monkeypatch.setattr(conversion, "CALIBRATION", 50)
    monkeypatch.setattr(conversion, "TESTED", {"mnist": 20})
    monkeypatch.setattr(conversion, "STEPS", (4, 8, 16))
    monkeypatch.setattr(conversion, "PERCENTILES", (0.99,))
    monkeypatch.setattr(
        conversion, "STRENGTHS", {name: values[:2] for name, values in conversion.STRENGTHS.items()}
    )
    return kind


def test_the_conversion_study_runs_writes_draws_and_goes_on_where_it_stopped(
    folder, small, tmp_path, capsys, monkeypatch
):
    pytest.importorskip("torchvision")
    work, output = tmp_path / "work", tmp_path / "found"
    arguments = ["reproduce", "conversion", "--data", str(folder), "--folder", str(work), "--seeds", "2"]
    assert cli.main([*arguments, "--output", str(output)]) == 0
    results = json.loads(output.with_suffix(".json").read_text())
    assert output.with_suffix(".png").stat().st_size > 10_000
    network = results["networks"]["tiny"]
    assert len(network["seeds"]) == 2
    titles = [arm.title for arm in conversion.arms()]
    assert len(set(titles)) == len(titles)
    for seed in network["seeds"]:
        assert seed["ann"] > 90
        assert set(titles) <= set(seed["arms"])
        assert all(len(curve) == 3 for curve in seed["arms"].values())
        assert seed["arms"]["default"][-1] > 80
    out = capsys.readouterr().out
    assert "L4 rule less its control" in out
    assert "lower percentile [percentile 0.99]" in out
    assert "next: " in out
    for rule in ("scale", "equalize", "threshold", "bias"):
        assert (rule, f"{rule}, control") in conversion_report.controls(network)
    monkeypatch.setattr(conversion, "Case", None)  # nothing is left to run
    again = conversion.run(folder, work, kinds=("tiny",), seeds=range(2))
    assert json.loads(json.dumps(again)) == results


TITLES = ("plain", "lower percentile", "half start")


@pytest.fixture
def few(small, monkeypatch, tmp_path):
    """Three arms of the study of conversion, and none of SpikingJelly's."""
    monkeypatch.chdir(tmp_path)
    chosen = [arm for arm in conversion.arms() if arm.title in TITLES]
    monkeypatch.setattr(conversion, "arms", lambda: chosen)
    monkeypatch.setattr(conversion, "native_arms", lambda calibration: {})


def study(folder, work, capsys, seeds=1):
    """Run the study; return its status and what it said on the way out."""
    named = {"--data": folder, "--folder": work, "--seeds": seeds}
    status = cli.main(["reproduce", "conversion", *(str(part) for pair in named.items() for part in pair)])
    return status, capsys.readouterr().err


def interrupt(*arguments, **named):
    raise KeyboardInterrupt


@pytest.mark.usefixtures("few")
def test_an_interrupted_study_keeps_what_was_finished(folder, tmp_path, capsys, monkeypatch):
    work, curve = tmp_path / "work", conversion.Case.curve
    calls = iter(range(3))  # one for the tuning, one for the first arm
    monkeypatch.setattr(
        conversion.Case, "curve", lambda *a, **k: interrupt() if next(calls) == 2 else curve(*a, **k)
    )
    status, err = study(folder, work, capsys)
    assert status == 130
    assert err == (
        f"snn-ext reproduce: interrupted; what is done is kept in {work}, and the same command goes on from "
        "there\n"
    )
    assert sorted(path.name for path in work.iterdir()) == ["tiny-0.json", "tiny-0.pt", "tiny-tuned.json"]
    assert list(json.loads((work / "tiny-0.json").read_text())["arms"]) == ["plain"]
    ran = []
    monkeypatch.setattr(
        conversion.Case, "curve", lambda *a, **k: ran.append(a[1]["initial"]) or curve(*a, **k)
    )
    monkeypatch.setattr(conversion, "train", interrupt)  # the network is not trained again
    assert study(folder, work, capsys)[0] == 0
    assert ran == [0.0, 0.5]


@pytest.mark.usefixtures("few")
def test_a_store_says_what_it_was_made_with_and_is_not_used_for_anything_else(
    folder, small, tmp_path, capsys, monkeypatch
):
    work = tmp_path / "work"
    assert study(folder, work, capsys) == (0, "")
    made = json.loads((work / "tiny-0.json").read_text())["made with"]
    assert made["versions"] == store.versions()
    assert len(made["data"]) == 32
    assert "Linear(in_features=36" in made["settings"]
    assert torch.load(work / "tiny-0.pt")["made with"]["data"] == made["data"]

    # other data: refused, nothing is touched
    with np.load(folder / "mnist.npz") as stored:
        arrays = dict(stored)
    other = tmp_path / "other"
    other.mkdir()
    np.savez(other / "mnist.npz", **{**arrays, "test_images": arrays["test_images"] // 2})
    status, err = study(other, work, capsys)
    assert status == 1
    assert err.count("\n") == 1
    assert "was made from another data set than mnist in the folder of --data; remove it, or choose" in err
    # the same data, packed otherwise, are the same data
    np.savez_compressed(other / "mnist.npz", **arrays)
    monkeypatch.setattr(conversion, "Case", None)
    assert study(other, work, capsys) == (0, "")


@pytest.mark.usefixtures("few")
def test_a_network_that_was_made_with_other_versions_or_settings_is_not_used(
    folder, small, tmp_path, capsys, monkeypatch
):
    work = tmp_path / "work"
    assert study(folder, work, capsys) == (0, "")
    before = {path.name: path.read_bytes() for path in work.iterdir()}
    real = store.versions()
    monkeypatch.setattr(store, "versions", lambda: {**real, "torch": "1.2.3"})
    status, err = study(folder, work, capsys)
    assert status == 1
    assert err.count("\n") == 1
    assert f"torch {real['torch']}" in err
    assert "torch 1.2.3" in err
    assert {path.name: path.read_bytes() for path in work.iterdir()} == before
    monkeypatch.setattr(store, "versions", lambda: real)

    # other settings of the network: trained and measured again
    monkeypatch.setitem(conversion.KINDS, "tiny", small._replace(rate=0.2))
    assert study(folder, work, capsys) == (0, "")
    after = {path.name: path.read_bytes() for path in work.iterdir()}
    assert set(after) == set(before)
    assert all(after[name] != before[name] for name in before)
    # another grid: that arm is tuned and measured again, the network stays
    monkeypatch.setattr(conversion, "PERCENTILES", (0.5,))
    arms = [
        a if not a.grid else dataclasses.replace(a, grid=(("percentile", (0.5,)),)) for a in conversion.arms()
    ]
    monkeypatch.setattr(conversion, "arms", lambda: arms)
    assert study(folder, work, capsys) == (0, "")
    assert (work / "tiny-0.pt").read_bytes() == after["tiny-0.pt"]
    assert json.loads((work / "tiny-tuned.json").read_text())["lower percentile"]["best"] == {
        "percentile": 0.5
    }


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("name", ["tiny-0.json", "tiny-0.pt", "tiny-tuned.json"])
@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1, 2]", b"{}", b"PK\x03\x04 and no more", b'{"made with": 3}']
)
def test_a_store_that_is_corrupt_or_foreign_is_one_line_before_any_work(
    name, content, folder, tmp_path, capsys, monkeypatch
):
    work = tmp_path / "work"
    work.mkdir()
    (work / name).write_bytes(content)
    (work / "tiny-0.json.part").write_text("of a run that was killed")
    monkeypatch.setattr(conversion, "train", None)
    status, err = study(folder, work, capsys)
    assert status == 1
    assert err.count("\n") == 1
    assert err.startswith(f"{work / name} ")
    assert err.endswith("; remove it, or choose another folder with --folder\n")
    assert [path.name for path in work.iterdir()] == [name]
    assert (work / name).read_bytes() == content


@pytest.mark.usefixtures("few")
def test_a_store_of_another_form_is_refused(folder, tmp_path, capsys):
    work = tmp_path / "work"
    assert study(folder, work, capsys) == (0, "")
    for name, value in (
        ("tiny-0.pt", {"weights": {}}),
        ("tiny-0.json", {"ann": 1}),
        ("tiny-tuned.json", {"x": 1}),
    ):
        file = work / name
        kept = file.read_bytes()
        if name.endswith(".pt"):
            torch.save({"made with": torch.load(file)["made with"], **value}, file)
        else:
            file.write_text(json.dumps({"made with": json.loads(kept)["made with"], **value}))
        status, err = study(folder, work, capsys)
        assert status == 1
        assert err == (
            f"{file} is not what this study keeps under that name; remove it, or choose another folder with "
            "--folder\n"
        )
        file.write_bytes(kept)


@pytest.mark.usefixtures("few")
def test_a_disk_that_fills_up_is_one_line_and_leaves_what_was_there(folder, tmp_path, capsys, monkeypatch):
    work, write = tmp_path / "work", store.Path.write_bytes

    def full(file, content):
        if "tuned" in file.name:
            write(file, content[: len(content) // 2])
            raise OSError(28, "No space left on device", str(file))
        return write(file, content)

    monkeypatch.setattr(store.Path, "write_bytes", full)
    status, err = study(folder, work, capsys)
    assert status == 1
    assert err.count("\n") == 1
    assert err.endswith("No space left on device; what was finished is kept\n")
    assert [path.name for path in work.iterdir()] == ["tiny-0.pt"]


@pytest.mark.usefixtures("few")
def test_a_place_that_cannot_be_used_is_one_line_before_any_work(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(conversion, "train", None)
    file = tmp_path / "file"
    file.write_text("")
    for where, what in (
        ((folder, file), f"--folder {file} is a file; name a folder"),
        ((file, tmp_path / "work"), f"--data {file} is a file; name a folder"),
        ((folder, file / "work"), f"{file / 'work'} cannot be written (Not a directory); choose another"),
    ):
        status, err = study(*where, capsys)
        assert status == 1
        assert err.count("\n") == 1
        assert what in err
    monkeypatch.setattr(store, "ROOM", 1 << 60)
    assert "free, a study needs" in study(folder, tmp_path / "work", capsys)[1]
    monkeypatch.setattr(store, "ROOM", 0)
    status, err = study(folder, tmp_path / "work", capsys, seeds=4)
    assert status == 1
    assert err == "--seeds 4: mnist has test images for 3; take 3\n"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (b"", "cannot be read"),
        (b"no archive", "cannot be read"),
        ({"train_labels": None}, "has no train_labels of shape (N,)"),
        ({"test_images": None}, "has no test_images"),
        (
            {"test_images": np.zeros((60, 5, 5), np.uint8)},
            "has test_images of shape (60, 5, 5) and type uint8",
        ),
        ({"test_images": np.zeros((60, 6, 6))}, "has test_images of shape (60, 6, 6) and type float64"),
        ({"test_labels": np.full(60, 10)}, "has test_labels from 10 to 10"),
        ({"test_labels": np.full(60, "x", object)}, "cannot be read"),
    ],
)
@pytest.mark.usefixtures("few")
def test_data_that_cannot_be_used_are_one_line_that_says_what_is_wanted(
    change, what, folder, tmp_path, capsys
):
    file = folder / "mnist.npz"
    if isinstance(change, bytes):
        file.write_bytes(change)
    else:
        with np.load(file) as stored:
            arrays = {**stored, **change}
        np.savez(file, **{key: array for key, array in arrays.items() if array is not None})
    status, err = study(folder, tmp_path / "work", capsys)
    assert status == 1
    assert err.count("\n") == 1
    assert err.startswith(f"{file} {what}")
    assert f"{file} holds train_images and test_images (uint8, shape (N, 6, 6)), train_labels and" in err
    assert not (tmp_path / "work").exists()


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(("name", "url"), [("MNIST", "ossci-datasets"), ("CIFAR10", "cs.toronto.edu")])
def test_offline_it_says_which_file_to_bring_and_where_it_is_found(name, url, tmp_path, capsys, monkeypatch):
    datasets = pytest.importorskip("torchvision.datasets")
    key = {"MNIST": "mnist", "CIFAR10": "cifar10"}[name]
    monkeypatch.setattr(data, "SHAPES", {key: (6, 6)})
    monkeypatch.setitem(conversion.KINDS, "tiny", conversion.KINDS["tiny"]._replace(data=key))

    class Offline(getattr(datasets, name)):
        def __init__(self, *arguments, **named):
            sys.stderr.write("0%\r50%\r")
            raise RuntimeError("Error downloading:\n<urlopen error [Errno -3]>")

    monkeypatch.setattr(datasets, name, Offline)
    status, err = study(tmp_path / "data", tmp_path / "work", capsys)
    assert status == 1
    assert err.count("\n") == 1
    assert "\r" not in err
    assert err.startswith(f"{name} is not in {tmp_path / 'data'} and cannot be downloaded from https://")
    assert url in err
    assert "(Error downloading: <urlopen error [Errno -3]>); bring it there by hand: " in err
    assert f"{tmp_path / 'data' / key}.npz holds train_images and test_images (uint8, shape (N, 6, 6))" in err


@pytest.fixture
def small_energy(monkeypatch):
    """One small network with two kinds of neurons, two short stages."""
    kind = energy.Kind("tiny convolutions", "mnist", 6, (1, 4, 8), 6, 0.2, False, 256, 0.05, 60)
    monkeypatch.setattr(data, "SHAPES", {"mnist": (6, 6)})
    monkeypatch.setattr(energy, "KINDS", {"tiny": kind})
    monkeypatch.setattr(energy, "NEURONS", ("LIF", "VSN"))
    monkeypatch.setattr(energy, "STRENGTHS", (0.5, 20.0))


def test_the_energy_study_runs_writes_draws_and_goes_on_where_it_stopped(
    folder, small_energy, tmp_path, capsys, monkeypatch
):
    pytest.importorskip("spikingjelly")
    pytest.importorskip("torchvision")
    monkeypatch.chdir(tmp_path)
    work = tmp_path / "work"
    arguments = ["reproduce", "energy", "--data", str(folder), "--folder", str(work), "--seeds", "2"]
    assert cli.main(arguments) == 0
    results = json.loads((tmp_path / "snn-ext-energy.json").read_text())
    assert (tmp_path / "snn-ext-energy.png").stat().st_size > 10_000
    neurons = results["networks"]["tiny"]["neurons"]
    assert list(neurons) == ["LIF", "VSN"]
    for seeds in neurons.values():
        assert len(seeds) == 2
        for seed in seeds:
            assert seed["start"]["accuracy"] > 80
            assert list(seed["paths"]) == list(energy.arms())
            for title, path in seed["paths"].items():
                assert len(path) == 2
                assert all((point["lam"] > 0) == (title != energy.CONTROL) for point in path)
            spent = {title: path[-1]["synops"] for title, path in seed["paths"].items()}
            assert spent["synaptic, p = 1"] < 0.9 * spent[energy.CONTROL]
    out = capsys.readouterr().out
    assert out.count("synaptic / total, p = 1") == 3  # in the tables of both neurons, and in the answer
    assert "tiny convolutions, 60 test images, 4 steps" in out
    assert "LIF: 2 seeds, 0.9 pJ an operation" in out
    assert "VSN: 2 seeds, 4.6 pJ an operation" in out
    assert "least of the three: " in out
    assert "next: the tutorial 05_synaptic_penalty" in out

    file = work / "tiny-VSN-1.json"  # one path is lost, and run again; nothing else is
    outcome = json.loads(file.read_text())
    del outcome["paths"]["total, p = 2"]
    file.write_text(json.dumps(outcome))
    ran = []
    path = energy.Case.path
    monkeypatch.setattr(
        energy.Case, "path", lambda case, *arm: ran.append((case.neuron, case.seed, arm)) or path(case, *arm)
    )
    again = energy.run(folder, work, seeds=range(2))
    assert ran == [("VSN", 1, energy.arms()["total, p = 2"])]
    assert json.loads(json.dumps(again)) == results


@pytest.mark.usefixtures("small_energy")
@pytest.mark.parametrize("name", ["tiny-VSN-0.json", "tiny-LIF-0.pt"])
def test_the_energy_study_refuses_a_store_that_is_not_its_own_before_any_work(
    name, folder, tmp_path, capsys, monkeypatch
):
    pytest.importorskip("spikingjelly")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(energy, "train", None)
    work = tmp_path / "work"
    work.mkdir()
    arguments = ["reproduce", "energy", "--data", str(folder), "--folder", str(work), "--seeds", "1"]
    kept = store.Store(work, {"mnist": data.find("mnist", folder).fingerprint})
    settings, of = energy._about("tiny", name.split("-")[1])
    for damage, what in (
        (lambda: (work / name).write_bytes(b""), "cannot be read, is corrupt or foreign"),
        (lambda: kept.write(name, settings, of, {}), "is not what this study keeps under that name"),
        (
            lambda: store.Store(work, {"mnist": "other"}).write(name, settings, of, {}),
            "another data set than mnist",
        ),
    ):
        damage()
        assert cli.main(arguments) == 1
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert err.startswith(f"{work / name} ")
        assert what in err
    kept.write(name, "other settings", of, {})
    about = ("tiny", name.split("-")[1], 0)
    assert energy._kept_network(kept, *about) is None
    assert energy._kept_outcome(kept, *about)["paths"] == {}


def test_the_energy_study_needs_spikingjelly_and_says_so(capsys, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if n == "spikingjelly" else real(n, *a)
    )
    assert cli.main(["reproduce", "energy"]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "snn-ext reproduce energy runs in SpikingJelly: SpikingJelly is not installed; add it with" in err


def points(*pairs):
    return [{"accuracy": accuracy, "synops": synops} for synops, accuracy in pairs]


def seed_of(**paths):
    """An outcome of the energy study whose control has 90 % for 1000 operations."""
    paths = {title: points(*pairs) for title, pairs in paths.items()}
    return {"start": points((1100, 89))[0], "paths": {"none": points((900, 89), (1100, 91)), **paths}}


def test_a_frontier_is_read_between_its_points_and_says_where_it_ends():
    seed = seed_of(arm=[(800, 90), (400, 87), (500, 86), (100, 84)])
    read = energy_report.least
    assert read(seed, "arm", 90) == (pytest.approx(800), "")
    # half way from 87 to 90 in accuracy is half way in the logarithm of the energy
    assert read(seed, "arm", 88.5).value == pytest.approx(math.exp((math.log(400) + math.log(800)) / 2))
    # 500 operations for 86 % are no better than 400 for 87 %
    assert read(seed, "arm", 86) == (pytest.approx(math.exp(math.log(100) + 2 / 3 * math.log(4))), "")
    assert read(seed, "arm", 84) == (pytest.approx(100), "")
    assert read(seed, "arm", 80) == (pytest.approx(100), energy_report.LEAST_SEEN)
    assert read(seed, "arm", 90.5) == (1100, energy_report.AT_START)
    # read below the control, as a fraction of what it spends
    assert energy_report.readings([seed], "arm", 0) == [(pytest.approx(0.8), "")]


def test_ratios_are_paired_and_count_only_seeds_that_can_be_told():
    seeds = [
        seed_of(ours=[(200, 90), (100, 80)], other=[(400, 90), (300, 80)]),
        seed_of(ours=[(400, 90), (300, 80)], other=[(200, 90), (100, 80)]),
        seed_of(ours=[(200, 90), (100, 80)], other=[(400, 90)]),
        seed_of(ours=[(200, 90)], other=[(400, 90), (350, 80)]),
    ]
    at_90 = energy_report.ratio(seeds[:2], "ours", "other", 0)
    assert (at_90.less, at_90.more, at_90.told) == (1, 1, 2)
    assert at_90.mean == pytest.approx(1)
    assert str(at_90) == "1.00 ± 98 % (1/2)"
    # ten points lower: the path of `other` ends above in the third seed, and may go on below ours;
    # that of `ours` in the fourth, where what it has spent is less already
    at_80 = energy_report.ratio(seeds, "ours", "other", 10)
    assert (at_80.less, at_80.more, at_80.told) == (2, 1, 3)
    assert str(at_80).startswith("~")
    same = energy_report.ratio(seeds, "ours", "ours", 5)
    assert (same.less, same.more, same.told) == (0, 0, 3)
    assert same.mean == 1


def test_the_answer_is_counted_from_the_results():
    arms = {f"{name}, p = {p}": [(400 * p, 90), (40 * p, 80)] for name in energy.PENALTIES for p in (1, 2)}
    seeds = [
        seed_of(**arms | {f"synaptic, p = {p}": [(200 * p, 90), (20 * p, 80)] for p in (1, 2)})
        for _ in range(5)
    ]
    results = {"networks": {"kind": {"neurons": {"LIF": seeds}}}}
    found = energy_report.answer(results)
    assert "clearly: in at least 4 of 5 seeds" in found
    counts = "below 1 in 4 of 4, clearly below in 4, clearly above in 0"
    for rival in ("total", "balanced"):
        assert f"synaptic / {rival}, p = 1: 0.50 (0.50 to 0.50); {counts}" in found
    assert "least of the three: 8 of 8, clearly below both rivals 8, clearly above one of them 0" in found
    assert "synaptic, p = 1 / p = 2: 0.50" in found
    for seed in seeds:
        seed["paths"]["total, p = 1"] = points((100, 90), (10, 80))
    found = energy_report.answer(results)
    assert "synaptic / total, p = 1: 2.00" in found
    assert "least of the three: 4 of 8, clearly below both rivals 4, clearly above one of them 4" in found


def test_every_l4_arm_has_a_control_with_the_same_grid():
    arms = {arm.title: arm for arm in conversion.arms()}
    ruled = [arm for arm in arms.values() if arm.options.get("rule") not in (None, "none")]
    for arm in ruled:
        if arm.control_of:
            twin = arms[arm.control_of]
            assert arm.options == {**twin.options, "control": True}
            assert arm.grid == twin.grid
        else:
            assert any(other.control_of == arm.title for other in ruled)


def test_jpeg_files_end_to_end_are_read_as_images(tmp_path):
    image = pytest.importorskip("PIL.Image")
    import io

    files, offsets = b"", [0]
    for value in (0, 128, 255):
        stream = io.BytesIO()
        image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(stream, "JPEG")
        files += stream.getvalue()
        offsets.append(len(files))
    part = {"jpeg": np.frombuffer(files, np.uint8), "offsets": np.array(offsets), "labels": np.arange(3)}
    np.savez(
        tmp_path / "cifar10.npz",
        **{f"{name}_{key}": value for name in ("train", "test") for key, value in part.items()},
    )
    train, test = data.load("cifar10", tmp_path)
    assert train.images.shape == test.images.shape == (3, 3, 8, 8)
    assert train.images.amax((1, 2, 3)).tolist() == pytest.approx([0, 128 / 255, 1])
    assert test.labels.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="name='svhn'"):
        data.load("svhn", tmp_path)


def test_training_reaches_a_network_that_knows_and_repeats_itself(folder):
    train, test = data.load("mnist", folder)
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 2))
        training.train(net, train, epochs=10, rate=0.1, seed=0)
        assert not net.training
        found.append(net[1].weight.detach())
    assert training.accuracy(net, data.Images(test.images[:60], test.labels[:60])) > 90
    assert torch.equal(*found)


def test_the_studies_networks_take_their_images():
    for kind, size in (("perceptron", (1, 28, 28)), ("small_cnn", (1, 28, 28)), ("vgg", (3, 32, 32))):
        assert networks.KINDS[kind].build()(torch.rand(2, *size)).shape == (2, 10)


def test_what_is_missing_is_said_in_one_line(tmp_path, capsys, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if n == "torchvision" else real(n, *a)
    )
    assert cli.main(["reproduce", "conversion", "--data", str(tmp_path / "none")]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "needs torchvision; install with: pip install 'snn-ext[reproduce]'" in err


@pytest.mark.parametrize("study", ["conversion", "energy"])
def test_results_are_found_from_anywhere(study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    of_the_repository = TUTORIALS / "results" / f"{study}.json"
    monkeypatch.setattr(results, "ROOT", TUTORIALS.parent)  # where the package lies in a clone
    assert results.find(study) == of_the_repository
    monkeypatch.setattr(results, "ROOT", tmp_path / "site-packages")
    with pytest.raises(
        FileNotFoundError, match=f"copy tutorials/results .* or run: snn-ext reproduce {study}"
    ):
        results.find(study)
    monkeypatch.chdir(TUTORIALS)
    assert results.find(study) == of_the_repository
    own, below = tmp_path / f"snn-ext-{study}.json", tmp_path / "notes" / "mine"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    for file in (own, own.with_suffix(".png")):
        with pytest.raises(FileNotFoundError):
            results.find(study)
        file.write_text("")
    assert results.find(study) == own


@pytest.mark.parametrize("page", sorted(TUTORIALS.glob("*.ipynb")), ids=lambda page: page.stem)
def test_every_tutorial_says_first_what_it_needs_and_reads_nothing_from_where_it_is(page):
    cells = json.loads(page.read_text())["cells"]
    assert "pip install '.[tutorials]'" in "".join(cells[0]["source"])
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert not any(re.search(r"""["']\.?/?results/""", source) for source in code)
    text = page.with_suffix(".py").read_text()
    assert all(source in text for source in code if not source.startswith("%"))  # jupytext's two halves
