"""Where the results of a study are, for whoever reads them from another place than the repository."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

__all__ = ["find"]

ROOT = Path(__file__).parents[2]


def find(study: str) -> Path:
    """Return the JSON file of a study's results; its picture is beside it, under the same name.

    Looks in this folder and those above it, for what ``snn-ext reproduce`` has written and for a clone of the
    repository, then in the repository that this package runs from.

    Parameters
    ----------
    study : str
        ``"conversion"`` or ``"energy"``.

    Raises
    ------
    FileNotFoundError
        Says where it may be had.
    """
    for file in _places(study):
        if file.is_file() and file.with_suffix(".png").is_file():
            return file
    raise FileNotFoundError(
        f"the results of the study of {study} are not in {Path.cwd()} or above; copy tutorials/results of "
        f"the repository to results beside this page, or run: snn-ext reproduce {study}"
    )


def _places(study: str) -> Iterator[Path]:
    here = Path.cwd()
    for folder in (here, *here.parents):
        yield folder / f"snn-ext-{study}.json"
        yield folder / "results" / f"{study}.json"
        yield folder / "tutorials" / "results" / f"{study}.json"
    yield ROOT / "tutorials" / "results" / f"{study}.json"
