"""The README's examples run as they stand."""

import re
from pathlib import Path

import pytest

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
    assert len(BLOCKS) == 3


def test_there_are_two_set_up_commands_and_ci_runs_the_second():
    commands = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert [command.count("\n") for command in commands] == [1, 1]
    assert commands[1].strip() in (ROOT / ".ci" / "run").read_text()
