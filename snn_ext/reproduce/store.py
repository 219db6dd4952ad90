"""What the studies keep in their folders: each file is written whole or not at all."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import torch


def read(file: Path) -> Any:
    """Return what `write` has written, ``None`` if there is nothing."""
    return json.loads(file.read_text()) if file.exists() else None


def write(file: Path, value: Any) -> None:
    """Write numbers, texts, lists and dictionaries."""
    part = file.with_suffix(".part")
    part.write_text(json.dumps(value, indent=1) + "\n")
    part.replace(file)


def save(file: Path, value: Any) -> None:
    """Write tensors, for ``torch.load``."""
    part = file.with_suffix(".part")
    torch.save(value, part)
    part.replace(file)


def versions() -> dict[str, str]:
    """Return the versions of the packages that the results hang on."""
    found = {}
    for package in ("snn-ext", "torch", "spikingjelly"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
