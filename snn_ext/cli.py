"""The command line: ``snn-ext info``, ``snn-ext demo``, ``snn-ext bench`` and ``snn-ext reproduce``."""

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
STUDIES = {
    "conversion": "the tutorial 04_l4_conversion, or snn-ext bench (images a second)",
    "energy": "the tutorial 05_synaptic_penalty, or snn-ext demo (an energy report)",
}
"""The studies of ``snn-ext reproduce``, and what to look at after each."""


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
    bench = commands.add_parser("bench", help="time and memory beside the frameworks' own neurons")
    bench.add_argument("--quick", action="store_true", help="few sizes and repeats, under a minute")
    bench.add_argument("--framework", choices=FRAMEWORKS, help="measure one framework only")
    bench.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: %(default)s")
    bench.add_argument("--threads", type=_positive, help="threads of torch (default: as torch has it)")
    bench.add_argument(
        "--output", default="snn-ext-bench", help="picture and JSON to write, without ending (%(default)s)"
    )
    study = commands.add_parser("reproduce", help="run a study in full, on data sets of real images")
    study.add_argument("study", choices=STUDIES, help="which one")
    study.add_argument(
        "--data", default="data", help="folder of the data sets, downloaded if missing (%(default)s)"
    )
    study.add_argument("--seeds", type=_positive, default=5, help="repetitions (default: %(default)s)")
    study.add_argument(
        "--folder", default="snn-ext-reproduce", help="where networks and outcomes are kept (%(default)s)"
    )
    study.add_argument(
        "--output",
        help="picture and JSON to write, without ending (snn-ext- and the name of the study)",
    )
    arguments = parser.parse_args(argv)
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.jit")
    if arguments.command == "info":
        return info()
    return {"demo": _demo, "bench": _bench, "reproduce": _reproduce}[arguments.command](arguments)


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
    from .ops import dispatch, operators

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
    for name in dispatch.NAMES:
        if why_not := dispatch.why_not(name):
            print(f"no {name} implementation: {why_not}")
    print(f"(force one with the environment variable {dispatch.VARIABLE}={'|'.join(dispatch.available())})")
    return 0


def _implementation_problem() -> str:
    from .ops import dispatch

    try:
        dispatch.implementation()
    except RuntimeError as error:
        return str(error)
    return ""


def _output_problem(command: str, path: Path) -> str:
    """Return why the picture cannot be written, before anything has been computed for it."""
    from matplotlib.figure import Figure

    kinds = sorted(Figure().canvas.get_supported_filetypes())
    if path.is_dir() or path.suffix.lstrip(".").lower() not in kinds:
        return f"--output {path} does not name a picture; end it in one of: {', '.join(kinds)}"
    folder = path.resolve().parent
    if not os.access(folder, os.W_OK):
        return f"snn-ext {command} cannot write into {folder}; choose another file with --output"
    return ""


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _ready(arguments: argparse.Namespace, needed: tuple[str, ...], picture: str) -> list[str]:
    """Return the frameworks that a command can use, or none after a line that says what is missing."""
    command, state = arguments.command, faces()
    if arguments.framework:
        state = {arguments.framework: state[arguments.framework]}
    available = [name for name, problem in state.items() if not problem]
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    problem = ""
    if not available and arguments.framework:
        problem = state[arguments.framework]
    elif not available:
        problem = (
            f"snn-ext {command} needs snnTorch or SpikingJelly; install both with: pip install 'snn-ext[all]'"
        )
    elif missing:
        problem = (
            f"snn-ext {command} needs {', '.join(missing)}; install with: pip install 'snn-ext[{command}]'"
        )
    problem = problem or _implementation_problem() or _output_problem(command, Path(picture))
    if problem:
        print(problem, file=sys.stderr)
        return []
    for problem in filter(None, state.values()):
        print(f"{problem}  (running the other framework)")
    return available


def _demo(arguments: argparse.Namespace) -> int:
    available = _ready(arguments, ("matplotlib", "rich", "sklearn"), arguments.output)
    if not available:
        return 1
    from .demo.run import run

    run(available, seeds=arguments.seeds, quick=arguments.quick, output=arguments.output)
    return 0


def _bench(arguments: argparse.Namespace) -> int:
    import torch

    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("snn-ext bench --device cuda: torch finds no CUDA device; use --device cpu", file=sys.stderr)
        return 1
    available = _ready(arguments, ("matplotlib", "rich"), f"{arguments.output}.png")
    if not available:
        return 1
    if Path(f"{arguments.output}.json").is_dir():
        print(
            f"--output {arguments.output}: {arguments.output}.json is a folder; choose another",
            file=sys.stderr,
        )
        return 1
    from .bench.memory import keep_freed
    from .bench.run import FULL, QUICK, run

    run(
        available,
        plan=QUICK if arguments.quick else FULL,
        device=torch.device(arguments.device),
        threads=arguments.threads,
        output=arguments.output,
        kept=arguments.device == "cpu" and keep_freed(),
    )
    if arguments.quick:
        print("next: snn-ext bench (all sizes, some eight minutes), or snn-ext info")
    else:
        print("next: snn-ext demo (what the neurons learn), or snn-ext info")
    return 0


def _reproduce(arguments: argparse.Namespace) -> int:
    missing = [name for name in ("matplotlib", "rich") if importlib.util.find_spec(name) is None]
    if not all((Path(arguments.data) / f"{name}.npz").exists() for name in ("mnist", "cifar10")):
        missing += [name for name in ("torchvision",) if importlib.util.find_spec(name) is None]
    output = arguments.output or f"snn-ext-{arguments.study}"
    problem = ""
    if arguments.study == "energy" and (why_not := faces()["spikingjelly"]):
        problem = f"snn-ext reproduce energy runs in SpikingJelly: {why_not}"
    elif missing:
        problem = (
            f"snn-ext reproduce needs {', '.join(missing)}; install with: pip install 'snn-ext[reproduce]'"
        )
    problem = problem or _implementation_problem()
    problem = problem or _output_problem("reproduce", Path(f"{output}.png"))
    if problem:
        print(problem, file=sys.stderr)
        return 1
    from .reproduce.run import run

    run(arguments.study, arguments.data, Path(arguments.folder), seeds=arguments.seeds, output=output)
    print(f"next: {STUDIES[arguments.study]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
