"""The README's examples run as they stand."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)


@pytest.mark.parametrize("block", BLOCKS[:2], ids=["snntorch", "spikingjelly"])
def test_the_examples_of_the_readme_run(block):
    for framework in ("snntorch", "spikingjelly"):
        if f"snn_ext.{framework}" in block:
            pytest.importorskip(framework)
    names = {}
    exec(block, names)
    assert names["y"].shape == (32, 1)
    names["y"].sum().backward()
    assert all(p.grad is not None for p in names["net"].parameters())


def test_the_conversion_of_the_readme_runs(capsys):
    pytest.importorskip("snntorch")
    names = {}
    exec(BLOCKS[2], names)
    assert names["accuracy"].shape == (32,)
    assert "a spike is worth" in capsys.readouterr().out


def test_the_penalty_of_the_readme_runs():
    ext = pytest.importorskip("snn_ext.snntorch")
    net = nn.Sequential(nn.Linear(8, 6), ext.VSN(0.5, 0.1, init_hidden=True), nn.Linear(6, 3))
    images = torch.rand(4, 8)
    names = {"net": net, "images": images, "loader": [(images, torch.tensor([0, 1, 2, 0]))]}
    exec(BLOCKS[3], {**names, "cross_entropy": nn.functional.cross_entropy}, names)
    assert names["loss"] == names["task"]  # nothing has been learned yet
    assert names["saving"].penalty.last()["1"] > 0
    names["loss"].backward()
    assert len(BLOCKS) == 4


def test_there_are_two_set_up_commands_and_ci_runs_the_second():
    commands = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert [command.count("\n") for command in commands] == [1, 1]
    assert commands[1].strip() in (ROOT / ".ci" / "run").read_text()
