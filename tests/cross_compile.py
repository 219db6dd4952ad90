"""Check that the C core compiles for every processor and system that it is meant for.

    python tests/cross_compile.py

Parses and checks the text, without a warning, by the compiler of PyPI's ``ziglang``; two seconds a target.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

CORE = Path(__file__).parents[1] / "snn_ext" / "ops" / "c" / "cpu.c"
TARGETS = (
    "x86_64-linux-gnu",
    "x86_64-linux-musl",
    "aarch64-linux-gnu",
    "aarch64-linux-musl",
    "x86_64-macos",
    "aarch64-macos",
    "x86_64-windows-gnu",
    "aarch64-windows-gnu",
)
COMPILE = (sys.executable, "-m", "ziglang", "cc", "-std=c11", "-O0", "-Wall", "-Wextra", "-Werror")


def compiles(target: str, folder: str, text: Path = CORE) -> bool:
    """Whether `text` compiles for `target`; as a header, which is read whole but makes no code."""
    output = str(Path(folder) / "core.pch")
    return not subprocess.call([*COMPILE, "-target", target, "-x", "c-header", str(text), "-o", output])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        failed = [target for target in TARGETS if not compiles(target, folder)]
    sys.exit(f"{CORE.name} does not compile for: {', '.join(failed)}" if failed else 0)
