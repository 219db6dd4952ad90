"""Run a command with another row of `matrix.toml`: its frameworks, laid over the installed ones.

    python compat/overlay.py pinned pytest -x
    python compat/overlay.py neurobench pytest tests/energy

The row's snnTorch and SpikingJelly go into a folder of their own, which comes first on the path; everything
else is shared with the running environment.  That spares a second torch, several gigabytes.  So goes what
`neurobench.txt` names, beside the installed frameworks.
"""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

LAID_OVER = ("snntorch", "spikingjelly", "neurobench")
HERE = Path(__file__).resolve().parent


def main(row: str, *command: str) -> int:
    """Lay the packages of `row` over, run `command`, and return its status."""
    constraints = HERE / f"{row}.txt"
    wanted = dict(line.split("==") for line in constraints.read_text().split() if "==" in line)
    for package in wanted.keys() - LAID_OVER:
        if (found := importlib.metadata.version(package).split("+")[0]) != wanted[package]:
            print(f"row {row!r} wants {package} {wanted[package]}, but {found} is installed", file=sys.stderr)
            return 1
    folder = Path(sys.prefix) / f"overlay-{row}"
    packages = [f"{package}=={wanted[package]}" for package in LAID_OVER if package in wanted]
    marker = folder / "complete"
    if not marker.exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade"]
        environment = {name: value for name, value in os.environ.items() if name != "PIP_CONSTRAINT"}
        subprocess.run([*pip, "--target", str(folder), *packages], check=True, env=environment)
        marker.touch()
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    return subprocess.call(command, env={**os.environ, "PYTHONPATH": path})


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
