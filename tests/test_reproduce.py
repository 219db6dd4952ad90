"""The conversion study, end to end on images of its own making."""

import json

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("rich")
pytest.importorskip("matplotlib")

from snn_ext import cli
from snn_ext.reproduce import conversion, data, networks, report, run, training


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
    for module in (conversion, run):
        monkeypatch.setattr(module, "KINDS", {"tiny": kind})
    monkeypatch.setattr(conversion, "HELD_OUT", 100)
    monkeypatch.setattr(conversion, "CALIBRATION", 50)
    monkeypatch.setattr(conversion, "TESTED", {"mnist": 20})
    monkeypatch.setattr(conversion, "STEPS", (4, 8, 16))
    monkeypatch.setattr(conversion, "PERCENTILES", (0.99,))
    monkeypatch.setattr(
        conversion, "STRENGTHS", {name: values[:2] for name, values in conversion.STRENGTHS.items()}
    )
    return kind


def test_the_study_runs_writes_draws_and_goes_on_where_it_stopped(
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
    assert "next: " in out
    for rule in ("scale", "equalize", "threshold", "bias"):
        assert (rule, f"{rule}, control") in report.controls(network)
    monkeypatch.setattr(conversion, "Case", None)  # nothing is left to run
    again = conversion.run(folder, work, kinds=("tiny",), seeds=range(2))
    assert json.loads(json.dumps(again)) == results


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
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if n == "torchvision" else real(n, *a)
    )
    assert cli.main(["reproduce", "conversion", "--data", str(tmp_path / "none")]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "needs torchvision; install with: pip install 'snn-ext[reproduce]'" in err
