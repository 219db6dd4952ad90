"""The C core compiles for other processors, and the check of it finds what does not."""

import shutil

import pytest

pytest.importorskip("ziglang", reason="the compiler for other processors is PyPI's ziglang")

from cross_compile import CORE, TARGETS, compiles


@pytest.mark.parametrize("target", TARGETS[2::5])
def test_the_core_compiles_for_other_processors(target, tmp_path):
    assert compiles(target, str(tmp_path))


def test_a_macro_that_renames_a_member_is_found(tmp_path):
    shutil.copytree(CORE.parent, tmp_path / "c")
    text = (tmp_path / "c" / "cpu.c").read_text()
    rename = '#include "call.h"\n#ifndef __x86_64__\n#define stream memcpy\n#endif\n'
    assert text.count('#include "call.h"\n') == 1
    (tmp_path / "c" / "cpu.c").write_text(text.replace('#include "call.h"\n', rename))
    assert compiles("x86_64-linux-gnu", str(tmp_path), tmp_path / "c" / "cpu.c")
    assert not compiles("aarch64-linux-gnu", str(tmp_path), tmp_path / "c" / "cpu.c")
