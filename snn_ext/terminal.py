"""What the command line owes to who runs it: one line where something fails, plain lines where none watches.

Progress is a bar on a terminal, and a line now and then in a pipe, a log or a notebook.
"""

from __future__ import annotations

import contextlib
import io
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

EVERY = 10.0
"""Seconds between two lines of progress at least."""


class RefusedError(Exception):
    """What cannot be done, in one line that names the remedy; the command line prints it, with status 1."""


class Interrupted(KeyboardInterrupt):
    """An interrupt that says in one line what was kept."""


def track(*arguments: Any, disable: bool = False, **named: Any) -> Any:
    """Return ``tqdm(...)``: its bar on a terminal, else a line every `EVERY` seconds.

    What is done before the first line is due says nothing.
    """
    if not disable and not sys.stderr.isatty():
        named |= {"file": _Lines(sys.stderr), "mininterval": EVERY, "delay": EVERY, "maxinterval": EVERY}
    return tqdm(*arguments, disable=disable, **named)


class _Lines(io.TextIOBase):
    """Takes what tqdm draws over and over, and writes each drawing as a line of its own."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        if line := text.strip():
            self.stream.write(f"{line}\n")
            self.stream.flush()
        return len(text)


class Progress:
    """The progress of a command on a ``rich`` console: call it with what is done now, and `advance` it.

    Parameters
    ----------
    console : rich.console.Console
    total : int, optional
        How often it is advanced.  ``None``: not known, and no percentage is shown.
    """

    def __init__(self, console: Any, total: int | None = None) -> None:
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        self.console, self.total, self.done, self.what = console, total, 0, ""
        self.begun, self.said = time.monotonic(), float("-inf")
        self.bars = Bars(
            TextColumn("{task.description:<48}", markup=False),
            BarColumn(),
            *(() if total is None else (TaskProgressColumn(),)),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_interactive,
        )
        self.task = self.bars.add_task("", total=total)

    def __enter__(self) -> Progress:
        self.bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bars.stop()

    def __call__(self, what: str) -> None:
        """Say what is done now."""
        self.what = what
        self.bars.update(self.task, description=what)
        self._line()

    def advance(self) -> None:
        """Count one of `total` as done."""
        self.done += 1
        self.bars.advance(self.task)
        self._line()

    def _line(self) -> None:
        now = time.monotonic()
        if self.bars.disable and now - self.said >= EVERY:
            self.said = now
            minutes, seconds = divmod(int(now - self.begun), 60)
            part = "" if self.total is None else f", {100 * self.done // self.total} %"
            line = f"{minutes}:{seconds:02}{part}  {self.what}"
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)


@contextlib.contextmanager
def answered(number: int, handler: Any) -> Iterator[None]:
    """Answer a signal by `handler` for a while; not outside the main thread, which alone may."""
    try:
        before = signal.signal(number, handler)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(number, before)


@contextlib.contextmanager
def whole(file: Path) -> Iterator[Path]:
    """Give a place to write to, which becomes `file` if all goes well; else nothing of it is left."""
    part = file.with_name(f"{file.name}.part")
    try:
        yield part
        part.replace(file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_problem(files: Iterable[Path], command: str, room: int = 1 << 20, option: str = "--output") -> str:
    """Return in one line why these files cannot be written, or ``""``.

    Tries it, with a file of `room` bytes in each folder.
    """
    for file in files:
        folder = file.resolve().parent
        if file.is_dir():
            return f"{file} is a folder, no file to write; choose another file with {option}"
        try:
            if file.exists():
                file.open("ab").close()
            with tempfile.TemporaryFile(dir=folder) as probe:
                probe.write(bytes(room))
        except OSError as error:
            another = "another file" if option == "--output" else "another"
            return f"{command} cannot write into {folder}; choose {another} with {option} ({reason(error)})"
    return ""


def reason(error: BaseException) -> str:
    """Return what an error says, in one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__
