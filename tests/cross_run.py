"""Run the C core of another processor on cases of the kernel tests, and compare with the compiled one here.

    python tests/cross_run.py aarch64 qemu-aarch64
    python tests/cross_run.py x86_64 qemu-x86_64 -cpu Nehalem     # without AVX

Compiles by PyPI's ``ziglang`` (against musl, statically), runs in QEMU's user mode (Debian: ``qemu-user``),
and prints for each kind of output how many numbers differ.  All must be equal to the last bit but what comes
from the C library: the arc tangent (a smooth `ATan`), and the error function in double (GELU).
"""

import collections
import ctypes
import itertools
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from kernels import EQUATIONS, WHEN, Native, both, tensors
from specs import SCALES

from snn_ext.ops import calls, native
from snn_ext.surrogate import from_name

FLAGS = ("-std=c11", "-O2", "-ffp-contract=off", "-fno-math-errno", "-static", "-w")
FIELDS = ("x", "v0", "y", "v", "v_seq", "gy", "gv", "gv_seq", "gx", "gv0")
OUTPUTS = ("y", "v", "v_seq", "gx", "gv0", "sent")
AT = {name: 8 * 17 + 8 * i for i, name in enumerate(FIELDS)} | {"sent": 8 * 49, "gsent": 8 * 50}
"""Where the pointers lie in the structure of c/call.h."""


class Recorder:
    """Runs calls natively and keeps them, with what came out."""

    def __init__(self):
        self.run, self.written, self.found = native.run, [], []

    def __call__(self, call):
        inputs = self.buffers(call)
        head = 2 * (call.what == "backward") + (call.dtype == torch.float64), call.neurons, len(inputs)
        self.written.append(struct.pack("=3q", *head) + call.packed(stream=bool(len(self.found) % 2)))
        for _, at, tensor, out in inputs:
            content = ctypes.string_at(tensor.data_ptr(), tensor.nbytes)
            self.written.append(struct.pack("=3q", at, tensor.nbytes, out) + content)
        self.run(call)
        outputs = [(name, tensor.clone()) for name, _, tensor, out in inputs if out]
        self.found.append((call, outputs))

    @staticmethod
    def buffers(call):
        named = [(name, at, getattr(call, name), name in OUTPUTS) for name, at in AT.items()]
        for k, parameter in enumerate(call.parameters):
            at = 8 * (17 + len(FIELDS)) + 32 * k
            named.append(("parameter", at, parameter.values, False))
            named.append(("gradient", at + 8, parameter.gradient, True))
        return [each for each in named if each[2] is not None]


def record():
    """Run the cases, and return what was recorded."""
    recorder = Recorder()
    kernels = calls.Kernels(recorder, native.blocks, half=False)
    recording = type(
        "Recording", (), {"device": Native.device, "forward": kernels.forward, "backward": kernels.backward}
    )
    powers = itertools.cycle((0.0, 1.0, 2.0))
    for equations, dtype in itertools.product(EQUATIONS, (torch.float32, torch.float64)):
        for name, strict, spiking, *flags in itertools.product(SCALES, *[(False, True)] * 5):
            case = tensors(equations, (5, 2, 19), dtype, {"threshold": (19,), "decay": (2, 1)})
            surrogate = from_name(name, SCALES[name], spiking=spiking, strict=strict)
            power = next(powers) if spiking else 1.0
            when = dict(zip(WHEN, flags, strict=True))
            both(recording, equations, *case, surrogate, when, power=power)
        case = tensors(equations, (70, 300), dtype)
        for name in SCALES:
            both(
                recording,
                equations,
                *case,
                from_name(name, SCALES[name]),
                dict.fromkeys(WHEN, False),
                potentials=False,
            )
    return recorder


def compare(recorded, out):
    """Print how many numbers differ by kind; return how many of those that must be equal."""
    at, differ, wrong = 0, collections.Counter(), 0
    for call, outputs in recorded.found:
        numbers = call.numbers
        by_library = (calls.SURROGATES[numbers.surrogate] == "atan" and not numbers.spiking) or (
            calls.ACTIVATIONS[numbers.activation] == "gelu" and call.dtype == torch.float64
        )
        for name, tensor in outputs:
            content = bytearray(out[at : at + tensor.nbytes])
            other = torch.frombuffer(content, dtype=tensor.dtype).view(tensor.shape)
            at += tensor.nbytes
            bits = torch.int64 if tensor.dtype == torch.float64 else torch.int32
            unequal = (other.view(bits) != tensor.view(bits)) & ~(other.isnan() & tensor.isnan())
            how = f"{'from' if by_library else 'not from'} the C library"
            differ[call.what, str(call.dtype), name, how] += int(unequal.sum())
            if by_library:
                torch.testing.assert_close(other, tensor, equal_nan=True, rtol=1e-5, atol=1e-5)
            else:
                wrong += int(unequal.sum())
    assert at == len(out)
    for key, number in sorted(differ.items()):
        print(*key, number)
    print(f"{len(recorded.found)} calls; {wrong} numbers differ that must not")
    return wrong


def main(processor, *emulator):
    """Compile, record, run and compare; return 1 if anything differs that must not."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "cross_run"
        source = Path(__file__).with_suffix(".c")
        compiler = (sys.executable, "-m", "ziglang", "cc", "-target", f"{processor}-linux-musl")
        subprocess.run([*compiler, *FLAGS, str(source), "-o", str(program)], check=True)
        recorded = record()
        given = b"".join(recorded.written)
        out = subprocess.run(
            [*emulator, str(program)], input=given, stdout=subprocess.PIPE, check=True
        ).stdout
    return compare(recorded, out) > 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
