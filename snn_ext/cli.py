"""The command line: ``snn-ext info`` and ``snn-ext demo``."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
import warnings
from pathlib import Path

FRAMEWORKS = {"snntorch": "snnTorch", "spikingjelly": "SpikingJelly"}


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="snn-ext", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("info", help="versions found, faces available, implementation of each operator")
    demo = commands.add_parser("demo", help="train small mixed networks on real data, beside their twins")
    demo.add_argument("--seeds", type=_positive, default=1, help="paired repetitions (default: 1)")
    demo.add_argument("--framework", choices=FRAMEWORKS, help="run one framework only")
    demo.add_argument(
        "--quick", action="store_true", help="few epochs: shows that it runs, not what it reaches"
    )
    demo.add_argument("--output", default="snn-ext-demo.png", help="picture to write (default: %(default)s)")
    arguments = parser.parse_args(argv)
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.jit")
    return info() if arguments.command == "info" else _demo(arguments)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not a positive number")
    return value


def faces() -> dict[str, str]:
    """Return for each framework ``""`` if its face can be imported, else the reason in one line."""
    found = {}
    for name, title in FRAMEWORKS.items():
        if importlib.util.find_spec(name) is None:
            found[name] = f"{title} is not installed; add it with: pip install 'snn-ext[{name}]'"
            continue
        try:
            importlib.import_module(f"snn_ext.{name}")
            found[name] = ""
        except Exception as error:  # whatever a framework raises, the other one may still work
            found[name] = f"{title} cannot be used: {type(error).__name__}: {error}"
    return found


def info() -> int:
    """Print what is installed, which faces can be used, and what runs each operator."""
    from .ops import dispatch, native, operators

    print(f"{'Python':<14}{platform.python_version()}")
    for package in ("snn-ext", "torch", "numpy", "snntorch", "spikingjelly", "nir", "nirtorch", "cupy"):
        print(f"{package:<14}{_version(package)}")
    print()
    for name, problem in faces().items():
        print(f"snn_ext.{name:<13}{problem or 'available'}")
    print()
    import torch

    if problem := _implementation_problem():
        print(problem, file=sys.stderr)
        return 1
    devices = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    for device in devices:
        for neuron in operators.NEURONS:
            implementation = dispatch.implementation(device)
            print(f"snn_ext::{neuron.name} on {device:<5} runs: {implementation}")
    if why_not := native.why_not:
        print(f"no native implementation: {why_not}")
    print(f"(force one with the environment variable {dispatch.VARIABLE}={'|'.join(dispatch.available())})")
    return 0


def _implementation_problem() -> str:
    from .ops import dispatch

    try:
        dispatch.implementation()
    except RuntimeError as error:
        return str(error)
    return ""


def _output_problem(path: Path) -> str:
    """Return why the picture cannot be written, before anything has been trained for it."""
    from matplotlib.figure import Figure

    kinds = sorted(Figure().canvas.get_supported_filetypes())
    if path.is_dir() or path.suffix.lstrip(".").lower() not in kinds:
        return f"--output {path} does not name a picture; end it in one of: {', '.join(kinds)}"
    folder = path.resolve().parent
    if not os.access(folder, os.W_OK):
        return f"snn-ext demo cannot write into {folder}; choose another file with --output"
    return ""


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _demo(arguments: argparse.Namespace) -> int:
    state = faces()
    if arguments.framework:
        state = {arguments.framework: state[arguments.framework]}
    available = [name for name, problem in state.items() if not problem]
    if not available:
        print(
            "snn-ext demo needs snnTorch or SpikingJelly; install both with: pip install 'snn-ext[all]'"
            if not arguments.framework
            else next(iter(state.values())),
            file=sys.stderr,
        )
        return 1
    missing = [name for name in ("matplotlib", "rich", "sklearn") if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"snn-ext demo needs {', '.join(missing)}; install with: pip install 'snn-ext[demo]'",
            file=sys.stderr,
        )
        return 1
    problem = _implementation_problem() or _output_problem(Path(arguments.output))
    if problem:
        print(problem, file=sys.stderr)
        return 1
    for problem in filter(None, state.values()):
        print(f"{problem}  (running the other framework)")
    from .demo import run

    run(available, seeds=arguments.seeds, quick=arguments.quick, output=arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
