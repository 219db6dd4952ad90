"""The command line: ``snn-ext info``, ``snn-ext demo``, ``snn-ext bench`` and ``snn-ext reproduce``.

The status is 0 if all went well, 1 if something cannot be done, 2 if it was not understood, 130 after Ctrl-C
and 143 after a request to end (SIGTERM), each told in one line; and 141 if nobody reads on.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import signal
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from . import __version__
from .terminal import Interrupted, RefusedError, answered, reason, write_problem

FRAMEWORKS = {"snntorch": "snnTorch", "spikingjelly": "SpikingJelly"}
STUDIES = {
    "conversion": "the tutorial 04_l4_conversion, or snn-ext bench (images a second)",
    "energy": "the tutorial 05_synaptic_penalty, or snn-ext demo (an energy report)",
}
"""The studies of ``snn-ext reproduce``, and what to look at after each."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    command = "snn-ext"
    try:
        with answered(signal.SIGTERM, _terminate):
            try:
                arguments = _parser().parse_args(argv)
                command = f"snn-ext {arguments.command}"
                warnings.filterwarnings("ignore", category=FutureWarning, module="torch.jit")
                status = arguments.run(arguments)
            finally:
                if sys.stdout is not None:
                    sys.stdout.flush()
    except RefusedError as problem:
        print(problem, file=sys.stderr)
        return 1
    except BrokenPipeError:  # as in `snn-ext info | head -1`; what is left to write goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + _SIGPIPE
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        print(f"{command}:{where}: {reason(error)}; what was finished is kept", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        kept = f"; {interrupt}" if isinstance(interrupt, Interrupted) else ""
        terminated = _Terminated in map(type, _causes(interrupt))
        what, number = ("ended", signal.SIGTERM) if terminated else ("interrupted", signal.SIGINT)
        print(f"{command}: {what}{kept}", file=sys.stderr)
        return 128 + number
    return status


_SIGPIPE = 13  # Windows has no name for it


class _Terminated(KeyboardInterrupt):
    """A request to end, which is answered like an interrupt."""


def _terminate(number: int, frame: Any) -> NoReturn:
    """Make an exception of SIGTERM, so that what is finished is kept and what is half done is removed."""
    raise _Terminated


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


class _Parser(argparse.ArgumentParser):
    """Takes no abbreviations, and says in one line what it did not understand."""

    def __init__(self, **named: Any) -> None:
        super().__init__(**{**named, "allow_abbrev": False})

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser() -> _Parser:
    parser = _Parser(prog="snn-ext", description=__doc__.splitlines()[0])
    parser.add_argument("--version", action="version", version=f"snn-ext {__version__}")
    commands = parser.add_subparsers(dest="command")
    found = commands.add_parser("info", help="versions, faces available, implementation of each operator")
    found.set_defaults(run=lambda arguments: info())
    demo = commands.add_parser("demo", help="train small mixed networks on real data, beside their twins")
    demo.add_argument("--seeds", type=_number, default=1, help="paired repetitions (default: 1)")
    demo.add_argument("--framework", choices=FRAMEWORKS, help="run one framework only")
    demo.add_argument(
        "--quick", action="store_true", help="few epochs: shows that it runs, not what it reaches"
    )
    demo.add_argument("--output", default="snn-ext-demo.png", help="picture to write (default: %(default)s)")
    bench = commands.add_parser("bench", help="time and memory beside the frameworks' own neurons")
    bench.add_argument("--quick", action="store_true", help="few sizes and repeats, under a minute")
    bench.add_argument("--framework", choices=FRAMEWORKS, help="measure one framework only")
    bench.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: %(default)s")
    bench.add_argument("--threads", type=_threads, help="threads of torch (default: as torch has it)")
    bench.add_argument(
        "--output", default="snn-ext-bench", help="picture and JSON to write, without ending (%(default)s)"
    )
    study = commands.add_parser("reproduce", help="run a study in full, on data sets of real images")
    study.add_argument("study", choices=STUDIES, help="which one")
    study.add_argument(
        "--data", default="data", help="folder of the data sets, downloaded if missing (%(default)s)"
    )
    study.add_argument("--seeds", type=_number, default=5, help="repetitions (default: %(default)s)")
    study.add_argument(
        "--folder", default="snn-ext-reproduce", help="where networks and outcomes are kept (%(default)s)"
    )
    study.add_argument(
        "--output",
        help="picture and JSON to write, without ending (snn-ext- and the name of the study)",
    )
    parser.set_defaults(run=functools.partial(_help, parser))
    for chosen, run in ((demo, _demo), (bench, _bench), (study, _reproduce)):
        chosen.set_defaults(run=run)
    return parser


def _help(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    parser.print_help()
    return 0


def _number(text: str, most: int = 1000) -> int:
    """Return a whole number from 1 to `most`."""
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not 1 <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is no whole number from 1 to {most}")
    return int(text)


def _threads(text: str) -> int:
    return _number(text, os.cpu_count() or 1)


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

    _refuse_if(_implementation_problem())
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


def _refuse_if(problem: str) -> None:
    if problem:
        raise RefusedError(problem)


def _implementation_problem() -> str:
    from .ops import dispatch

    try:
        dispatch.implementation()
    except RuntimeError as error:
        return str(error)
    return ""


def _picture_problem(path: Path) -> str:
    """Return why `path` does not name a picture, before anything has been computed for it."""
    from matplotlib.figure import Figure

    kinds = sorted(Figure().canvas.get_supported_filetypes())
    if path.is_dir() or path.suffix.lstrip(".").lower() not in kinds:
        return f"--output {path} does not name a picture; end it in one of: {', '.join(kinds)}"
    return ""


def _written(output: str) -> tuple[Path, Path]:
    """Return the files that `output` without an ending stands for."""
    return Path(f"{output}.json"), Path(f"{output}.png")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _ready(arguments: argparse.Namespace, needed: tuple[str, ...], files: Iterable[Path]) -> list[str]:
    """Return the frameworks that a command can use; refuse if anything is missing or in the way."""
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
    _refuse_if(problem or _implementation_problem() or write_problem(files, f"snn-ext {command}"))
    for problem in filter(None, state.values()):
        print(f"{problem}  (running the other framework)")
    return available


def _demo(arguments: argparse.Namespace) -> int:
    path = Path(arguments.output)
    needed = ("matplotlib", "rich", "sklearn")
    if importlib.util.find_spec("matplotlib"):
        _refuse_if(_picture_problem(path))
    available = _ready(arguments, needed, (path, path.with_name(f"{path.stem}-energy{path.suffix}")))
    from .demo.run import run

    run(available, seeds=arguments.seeds, quick=arguments.quick, output=arguments.output)
    return 0


def _bench(arguments: argparse.Namespace) -> int:
    import torch

    if arguments.device == "cuda" and not torch.cuda.is_available():
        _refuse_if("snn-ext bench --device cuda: torch finds no CUDA device; use --device cpu")
    available = _ready(arguments, ("matplotlib", "rich"), _written(arguments.output))
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
    problem = problem or _implementation_problem() or write_problem(_written(output), "snn-ext reproduce")
    for name in ("data", "folder"):
        if not problem and Path(getattr(arguments, name)).is_file():
            problem = f"--{name} {getattr(arguments, name)} is a file; name a folder"
    folder = Path(arguments.folder).resolve()
    there = next(path for path in (folder, *folder.parents) if path.exists())  # it is made when it is needed
    if not problem and there.is_dir():
        problem = write_problem([there / "probe"], "snn-ext reproduce", option="--folder")
    _refuse_if(problem)
    from .reproduce.run import run

    run(arguments.study, arguments.data, Path(arguments.folder), seeds=arguments.seeds, output=output)
    print(f"next: {STUDIES[arguments.study]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
