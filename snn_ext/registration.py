"""Put classes into a framework's namespace, and take them out again."""

from __future__ import annotations

from types import ModuleType


def add(namespace: ModuleType, classes: tuple[type, ...]) -> None:
    """Make each class an attribute of `namespace` under its own name; already there is fine.

    Raises
    ------
    ValueError
        A name is taken by something else; then nothing has been changed.
    """
    for cls in classes:
        taken = getattr(namespace, cls.__name__, cls)
        if taken is not cls:
            raise ValueError(
                f"{namespace.__name__} has a {cls.__name__} of its own ({taken!r}); import "
                f"{cls.__module__}.{cls.__name__} by its full name instead of register()"
            )
    for cls in classes:
        setattr(namespace, cls.__name__, cls)


def remove(namespace: ModuleType, classes: tuple[type, ...]) -> None:
    """Undo `add`; what is not there, or is something else, is left alone."""
    for cls in classes:
        if vars(namespace).get(cls.__name__) is cls:
            delattr(namespace, cls.__name__)
