"""Arguments by other names: what a caller meant is said, in the words of the function that was called."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from .convert import Options

F = TypeVar("F", bound=Callable[..., Any])

COMMON = {
    "mode": "percentile: mode='99.9%' is percentile=0.999, mode='Max' is percentile=1.0",
    "channel_wise": "per_channel",
    "half_threshold": "initial: half the threshold is initial=0.5, the default",
    "fuse_flag": "nothing: batch norm is always folded",
    "v_threshold": "percentile, or per_channel: thresholds come from the calibration data",
    "threshold": "percentile, or per_channel: thresholds come from the calibration data",
    "encoding": "coding",
    "dataset": "dataloader",
}
"""Words of other converters, by what they are here."""


def known_words(**others: str) -> Callable[[F], F]:
    """Return a decorator: a keyword that the function lacks is refused with the one that was meant.

    Parameters
    ----------
    **others : str
        Words of another face, by what they are in this one.
    """

    def decorate(function: F) -> F:
        parameters = inspect.signature(function).parameters.values()
        names = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD and p.name != "self"]
        own = {field.name for field in dataclasses.fields(Options)} - {"decay", "reset", "steps"}
        takes_options = any(p.kind is p.VAR_KEYWORD for p in parameters)
        names += sorted(own - set(names)) if takes_options else []
        meant = {**COMMON, **others} if takes_options else others
        title = function.__qualname__.removesuffix(".__init__")

        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            for name in sorted(kwargs.keys() - set(names)):
                near = difflib.get_close_matches(name, names, 1)
                hint = meant.get(name) or (near[0] if near else "")
                raise TypeError(
                    f"{title} has no argument {name!r}; "
                    + (f"here it is {hint}" if name in meant else f"did you mean {hint!r}?" if near else "")
                    + ("" if hint else f"it takes {', '.join(names)}")
                )
            return function(*args, **kwargs)

        return checked  # type: ignore[return-value]

    return decorate
