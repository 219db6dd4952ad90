"""Bad input: every public name, argument and kind of wrong value; one clear error of ours, or it works.

`bad_input` has the working calls and the wrong values.  A call with a wrong value may work, if the value
makes sense there.  Else it raises one of our errors, which names the argument, and the networks given are
as before.
"""

import warnings

import bad_input
import pytest
from bad_input import LEFT_OUT, WRONG, arguments, ours, public, same, state
from torch import nn

CORE = bad_input.rows_of_core()
ALLOWED = {
    ("step_mode", "refused by SpikingJelly's own check, by name"): ("step_mode",),
    ("backend", "refused by SpikingJelly's own check, by name"): ("backend",),
}
"""Arguments that are the framework's, with why they are left to it."""
NATIVE = {name for names in ALLOWED.values() for name in names}


def failures(row):
    """Yield what is neither accepted nor refused as it should be."""
    for argument in arguments(row):
        if argument in NATIVE:
            continue
        for kind, make in WRONG.items():
            if (argument, kind) in row.theirs:
                continue
            given = row.good()
            nets = [value for value in given.values() if isinstance(value, nn.Module)]
            before = state(*nets)
            row_given = {**given, argument: make()}
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    found = row.call(**row_given)
                    if row.after is not None:
                        row.after(found)
            except Exception as error:
                if not ours(error, argument, *row.words):
                    yield f"{argument} = {kind}: {type(error).__name__}: {str(error)[:150]!r}"
                elif not same(before, state(*nets)):
                    yield f"{argument} = {kind}: a network has changed"


@pytest.mark.parametrize("key", CORE, ids=".".join)
def test_what_needs_no_framework_refuses_by_name(key):
    assert not list(failures(CORE[key]))


def test_a_face_refuses_by_name(face):
    rows = {id(row): (key, row) for key, row in bad_input.rows_of_face(face).items()}  # each row once
    found = {key: list(failures(row)) for key, row in rows.values()}
    assert not {key: lines for key, lines in found.items() if lines}


def test_every_public_name_has_a_row_or_a_reason(face):
    rows = bad_input.rows_of_face(face)
    for module in ("functional", "surrogate", "energy", "conversion", "events", "observe"):
        for name in public(module):
            assert (module, name) in CORE or (module, name) in rows or (module, name) in LEFT_OUT, (
                module,
                name,
            )
    for name in public(face.name):
        assert name in rows or name in LEFT_OUT, name
