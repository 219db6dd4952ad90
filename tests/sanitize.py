"""Run a command with a build of the C core that checks every access and every operation.

    python tests/sanitize.py pytest tests/ops

Needs gcc with its address and undefined-behaviour sanitizers; any finding ends the command with an error.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

CORE = Path(__file__).parents[1] / "snn_ext" / "ops" / "c" / "cpu.c"
FLAGS = ["-std=c11", "-O1", "-g", "-fPIC", "-shared", "-ffp-contract=off", "-fno-omit-frame-pointer"]
CHECKS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def main(*command: str) -> int:
    """Build, run `command` with the build, and return its status."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "checked.so"
        # No clones for wider instructions: the loader would pick among them before the sanitizers are up.
        build = ["gcc", *FLAGS, *CHECKS, "-DSNN_EXT_PLAIN", str(CORE), "-o", str(library), "-lm"]
        subprocess.run(build, check=True)
        runtimes = [
            subprocess.run(
                ["gcc", f"-print-file-name={name}"], check=True, capture_output=True, text=True
            ).stdout.strip()
            for name in ("libasan.so", "libubsan.so")
        ]
        checked = {
            "SNN_EXT_NATIVE": str(library),
            "LD_PRELOAD": " ".join(runtimes),
            "ASAN_OPTIONS": "detect_leaks=0",  # Python itself keeps memory until the end
            "UBSAN_OPTIONS": "print_stacktrace=1",
        }
        return subprocess.call(command, env={**os.environ, **checked})


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
