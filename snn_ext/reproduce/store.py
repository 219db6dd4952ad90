"""What the studies keep in their folders: each file is written whole or not at all, and says how it was made.

A file is used again where settings, data and versions are those of now.  Made with other settings, it counts
as missing, and is made again; made from other data or with other versions it is neither mixed with what is
run now nor overwritten: it is refused.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..terminal import RefusedError, reason, whole

MADE_WITH = "made with"
ROOM = 64 << 20
"""Bytes that must be free before a study begins; what it keeps takes less."""


class Store:
    """The files of a study in a folder, which is made if it is missing.

    Parameters
    ----------
    folder : Path
    data : dict of str to str
        The fingerprint of each data set, from `data.fingerprint`.

    Raises
    ------
    RefusedError
        The folder cannot be written, or has no room.
    """

    def __init__(self, folder: Path, data: dict[str, str]) -> None:
        self.folder, self.data, self.versions = folder, data, versions()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.glob("*.part"):  # by a run that was killed
                left.unlink()
            with whole(folder / "probe") as part:
                part.write_bytes(bytes(1 << 16))
            (folder / "probe").unlink()
        except OSError as error:
            raise RefusedError(
                f"{folder} cannot be written ({reason(error)}); choose another folder with --folder"
            ) from error
        if (free := shutil.disk_usage(folder).free) < ROOM:
            raise RefusedError(
                f"{folder} has {free >> 20} MB free, a study needs {ROOM >> 20}; free some space, or choose "
                "another folder with --folder"
            )

    def read(self, name: str, settings: str, data: str, fits: Callable[[Any], bool]) -> Any:
        """Return what `write` has written for these settings and this data set, ``None`` if there is nothing.

        Raises
        ------
        RefusedError
            The file is corrupt, not of this study (it does not `fits`), or made from other data or with other
            versions.
        """
        file = self.folder / name
        if not file.exists():
            return None
        value = _load(file)
        made = value.pop(MADE_WITH, None) if isinstance(value, dict) else None
        if not isinstance(made, dict) or set(made) != {"settings", "data", "versions"}:
            raise _refused(file, "does not say what it was made with: an older version's, or foreign")
        if made["data"] != self.data[data]:
            raise _refused(file, f"was made from another data set than {data} in the folder of --data")
        if made["versions"] != self.versions:
            raise _refused(file, f"was made with {_told(made['versions'])}; here are {_told(self.versions)}")
        if made["settings"] != settings:
            return None
        if not _fits(fits, value):
            raise _refused(file, "is not what this study keeps under that name")
        return value

    def write(self, name: str, settings: str, data: str, value: dict[str, Any]) -> None:
        """Write a dictionary: of tensors if `name` ends in ``.pt``, else of numbers, texts, lists."""
        made = {"settings": settings, "data": self.data[data], "versions": self.versions}
        value = {MADE_WITH: made, **value}
        (save if name.endswith(".pt") else write)(self.folder / name, value)


def write(file: Path, value: Any) -> None:
    """Write numbers, texts, lists and dictionaries."""
    with whole(file) as part:
        part.write_bytes((json.dumps(value, indent=1) + "\n").encode())


def save(file: Path, value: Any) -> None:
    """Write tensors, for ``torch.load``."""
    buffer = io.BytesIO()  # so that a full disk is an OSError, whatever torch would make of it
    torch.save(value, buffer)
    with whole(file) as part:
        part.write_bytes(buffer.getvalue())


def shapes(weights: dict[str, torch.Tensor]) -> dict[str, torch.Size]:
    """Return the shapes of the tensors of a state dictionary."""
    return {name: weight.shape for name, weight in weights.items()}


def versions() -> dict[str, str]:
    """Return the versions of the packages that the results hang on."""
    found = {}
    for package in ("snn-ext", "torch", "spikingjelly"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _load(file: Path) -> Any:
    try:
        return torch.load(file) if file.suffix == ".pt" else json.loads(file.read_text())
    except Exception as error:  # whatever reading a foreign file raises
        raise _refused(file, f"cannot be read, is corrupt or foreign ({type(error).__name__})") from error


def _fits(fits: Callable[[Any], bool], value: Any) -> bool:
    try:
        return fits(value)
    except (AttributeError, KeyError, TypeError):  # of another form altogether
        return False


def _refused(file: Path, what: str) -> RefusedError:
    return RefusedError(f"{file} {what}; remove it, or choose another folder with --folder")


def _told(versions: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in versions.items()) if isinstance(versions, dict) else str(versions)
