"""Compiled kernels beside the reference: the neurons in all their kinds, and what must be equal."""

import ctypes
import functools
import pathlib
import shutil
import subprocess
import tempfile

import pytest
import torch
from specs import SPECS

from snn_ext.neurons import lifb, vsn
from snn_ext.neurons.soft_reset_mpr import SoftResetMPR
from snn_ext.ops import calls, cupy, native, reference

RANGES = {name: limits for neuron in SPECS for name, limits in neuron.parameters.items()}
EQUATIONS = [
    *(vsn.VSN(activation) for activation in ("identity", "relu", "tanh", "gelu")),
    *(lifb.LIFB(mode) for mode in ("hard", "soft", "late", "again", "none")),
    lifb.LIFB("hard", -0.5),
    *(
        SoftResetMPR(mpr, mode, v_reset)
        for mpr in (True, False)
        for mode, v_reset in (("soft", 0.0), ("hard", 0.0), ("hard", 0.25))
    ),
]
WHEN = ("detach_reset", "reset_delay", "constant_start")
every_equation = pytest.mark.parametrize("equations", EQUATIONS, ids=str)


def tensors(equations, shape, dtype, shapes=None):
    """Return x_seq, v0 and the parameters, drawn from torch's generator."""
    x_seq, v0 = torch.rand(shape) * 3.5 - 1.5, torch.rand(shape[1:]) * 2 - 1
    p = {}
    for name in equations.parameters:
        low, high = RANGES[name]
        p[name] = (torch.rand((shapes or {}).get(name, ())) * (high - low) + low).to(dtype)
    return x_seq.to(dtype), v0.to(dtype), p


class Native:
    """The compiled C core."""

    device = "cpu"
    forward, backward = staticmethod(native.forward), staticmethod(native.backward)


class CuPy:
    """The CUDA kernels on a GPU."""

    device = "cuda"
    forward, backward = staticmethod(cupy.forward), staticmethod(cupy.backward)


class CudaOnCpu:
    """The whole CUDA text on the CPU, each thread of a block taking its turn."""

    device = "cpu"
    folder = pathlib.Path(__file__).parent / "ops"
    calls = 0

    @staticmethod
    @functools.cache
    def library(*kind):
        build = pathlib.Path(tempfile.mkdtemp(prefix="snn-ext-"))
        (build / "kernel.cu").write_text(cupy.source())
        defined = [option for option in cupy.options(*kind) if option.startswith("-D")]
        flags = ["-std=c++14", "-O1", "-ffp-contract=off", "-fPIC", "-shared", "-w"]
        command = ["g++", *flags, *defined, f'-DKERNEL="{build / "kernel.cu"}"']
        subprocess.run(
            [*command, str(CudaOnCpu.folder / "cuda_on_cpu.cpp"), "-o", str(build / "kernel.so")], check=True
        )
        library = ctypes.CDLL(str(build / "kernel.so"))
        shutil.rmtree(build)
        return library

    @classmethod
    def run(cls, call):
        numbers = call.numbers
        library = cls.library(numbers.neuron, numbers.reset, numbers.mpr, call.dtype, call.x.dtype)
        call, grid = cupy.prepared(call)
        cls.calls += 1
        backwards = cls.calls // 2 % 2  # both orders of threads for both passes, which take turns
        assert library.launch(call.what == "backward", call.packed(), grid, cupy.THREADS, backwards) == 0

    @classmethod
    def forward(cls, *arguments, **options):
        return calls.Kernels(cls.run, cupy.blocks, half=True).forward(*arguments, **options)

    @classmethod
    def backward(cls, *arguments, **options):
        return calls.Kernels(cls.run, cupy.blocks, half=True).backward(*arguments, **options)


KERNELS = [
    pytest.param(Native, marks=pytest.mark.skipif(bool(native.why_not), reason=native.why_not)),
    pytest.param(
        CudaOnCpu,
        marks=pytest.mark.skipif(
            shutil.which("g++") is None or not pathlib.Path("/usr/include/ucontext.h").exists(),
            reason="runs the CUDA text on the CPU with g++ and ucontext",
        ),
    ),
    pytest.param(
        CuPy, marks=[pytest.mark.gpu, pytest.mark.skipif(bool(cupy.why_not()), reason=cupy.why_not())]
    ),
]
every_kernel = pytest.mark.parametrize("kernels", KERNELS, ids=lambda kernels: kernels.__name__)


def both(
    kernels,
    equations,
    x_seq,
    v0,
    p,
    surrogate,
    when,
    *,
    threads=1,
    potentials=True,
    wanted=None,
    power=0.0,
    until=None,
):
    """Run the reference and `kernels`, forward and backward; return all outputs and gradients by name.

    Without `potentials` none are asked for, and no gradients come from them; `until` a step, gradients come
    from the emissions before it alone.
    """
    results = []
    torch.set_num_threads(threads)
    for run_by, device in ((reference, "cpu"), (kernels, kernels.device)):
        there = [None if tensor is None else tensor.to(device) for tensor in (x_seq, v0)]
        values = {name: value.to(device) for name, value in p.items()}
        outputs = run_by.forward(
            equations, *there, values, surrogate, **when, return_v_seq=potentials, power=power
        )
        assert (outputs[2] is not None) == potentials
        assert (outputs[3] is not None) == bool(power)
        generator = torch.Generator().manual_seed(0)
        grads = [None if o is None else torch.randn(o.shape, generator=generator).to(o) for o in outputs]
        if until is not None:
            grads[0][until:] = 0
            grads[1:] = [None if grad is None else torch.zeros_like(grad) for grad in grads[1:]]
        gx, gv0, gp = run_by.backward(
            equations,
            *(grads[:3] if potentials else (grads[0], None, None)),
            *there,
            values,
            surrogate,
            **when,
            wanted=equations.parameters if wanted is None else wanted,
            power=power,
            grad_sent=grads[3],
        )
        names = "y_seq", "v", "v_seq", "sent", "gx", "gv0"
        named = dict(zip(names, (*outputs, gx, gv0), strict=True), **gp)
        results.append({name: value.to("cpu") for name, value in named.items() if value is not None})
    torch.set_num_threads(1)
    return results


def agree(results, equations, spiking=True):
    """The forward pass to the last bit (spikes, potentials), gradients to rounding."""
    expected, found = results
    assert found.keys() == expected.keys()
    exact = ("v", "v_seq", "sent") if spiking else ()
    if getattr(equations, "activation", "identity") in ("identity", "relu") and spiking:
        exact += ("y_seq",)
    for name, value in expected.items():
        other = found[name]
        assert other.shape == value.shape
        assert other.dtype == value.dtype
        assert other.stride() == value.stride()
        if name in exact:
            assert torch.equal(other, value), name
        else:
            scale = max(1.0, value.abs().max().item()) if value.isfinite().all() else 1.0
            tolerance = {torch.float64: 1e-12, torch.float32: 2e-5}.get(value.dtype, 2e-2)
            assert torch.allclose(other, value, rtol=tolerance, atol=tolerance * scale, equal_nan=True), name
