"""The CUDA text compiles for every architecture, and is chosen where it can run."""

import ctypes

import pytest
import torch
from kernels import EQUATIONS

from snn_ext.ops import calls, cupy

nvrtc = pytest.importorskip(
    "cuda.bindings.nvrtc", reason="NVRTC comes with torch's CUDA builds", exc_type=ImportError
)

KINDS = sorted(
    {
        (
            calls.NEURONS.index(e.name),
            calls.RESETS.index(e.reset_mode),
            getattr(e, "mpr", False),
        )
        for e in EQUATIONS
    }
)
DTYPES = {
    torch.float64: torch.float64,
    torch.float32: torch.float32,
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
}


def compiled(options):
    """Return the binary that NVRTC makes of the kernels, or fail with what it says."""

    def check(result):
        status, *rest = result
        assert status == nvrtc.nvrtcResult.NVRTC_SUCCESS, status
        return rest[0] if rest else None

    program = check(nvrtc.nvrtcCreateProgram(cupy.source().encode(), b"kernel.cu", 0, [], []))
    encoded = [option.encode() for option in options]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(encoded), encoded)
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        log = b" " * check(nvrtc.nvrtcGetProgramLogSize(program))
        check(nvrtc.nvrtcGetProgramLog(program, log))
        pytest.fail(log.decode())
    binary = b" " * check(nvrtc.nvrtcGetCUBINSize(program))
    check(nvrtc.nvrtcGetCUBIN(program, binary))
    check(nvrtc.nvrtcDestroyProgram(program))
    return binary


@pytest.mark.parametrize("sequence", DTYPES, ids=str)
@pytest.mark.parametrize("architecture", [75, 80, 90, 100])
def test_every_kind_compiles(architecture, sequence):
    try:
        ctypes.CDLL(None)
        nvrtc.nvrtcVersion()
    except RuntimeError as error:
        pytest.skip(str(error))
    for kind in KINDS:
        options = cupy.options(*kind, DTYPES[sequence], sequence)
        binary = compiled([*options, f"--gpu-architecture=sm_{architecture}"])
        assert b"snn_ext_forward" in binary
        assert b"snn_ext_backward" in binary
