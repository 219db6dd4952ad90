"""Where a public name of the package is, read from the files that declare it: nothing is imported."""

from __future__ import annotations

import ast
from pathlib import Path

MODULES = ("energy", "conversion", "observe", "events", "surrogate", "functional", "snntorch", "spikingjelly")
"""What users import from; what needs no framework comes first."""


def where(name: str) -> str:
    """Return a line that says where `name` is, or an empty one."""
    if name.startswith("_"):
        return ""
    places = [f"snn_ext.{module}" for module in MODULES if name in public(module)]
    if places:
        return f"snn_ext.{name} is in {' and '.join(places)}: from {places[0]} import {name}"
    return f"snn_ext.{name} has not been imported: import snn_ext.{name}" if name in MODULES else ""


def public(module: str) -> list[str]:
    """Return the public names of a module: its ``__all__``."""
    path = Path(__file__).parent / module
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                return ast.literal_eval(value)
    return []
