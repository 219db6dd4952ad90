"""The compiled C core: threads, forks, bounded memory, and being chosen."""

import concurrent.futures
import math
import multiprocessing
import os
import struct
import subprocess
import sys

import pytest
import torch
from kernels import EQUATIONS, WHEN, Native, both, every_equation, tensors
from specs import VSN, every_neuron

from snn_ext.neurons.soft_reset_mpr import SoftResetMPR
from snn_ext.ops import calls, dispatch, native
from snn_ext.surrogate import from_name

pytestmark = pytest.mark.skipif(bool(native.why_not), reason=f"no compiled kernels: {native.why_not}")


@pytest.mark.parametrize("steps", [1, 16, 64, 65, 1000, 10**4, 10**6, 10**8])
@pytest.mark.parametrize("size", [4, 8])
def test_scratch_memory_is_bounded(steps, size):
    block, segment = native.blocks("backward", steps, size)
    rows = 2 * segment + math.ceil(steps / segment)
    assert block >= 16
    assert block * rows * size <= max(native.SCRATCH, 16 * size * 3.1 * math.sqrt(steps))
    assert rows <= max(129, 3.1 * math.sqrt(steps))


@pytest.fixture(params=["torch's threads", "threads of its own"])
def threads(request, monkeypatch):
    """Both ways of sharing a call, whatever its size."""
    monkeypatch.setattr(native, "GRAIN", 1)
    if request.param == "threads of its own":
        monkeypatch.setattr(native, "_openmp", None)
    elif native._openmp is None:
        pytest.skip("torch has no OpenMP that can be reached here")


@every_equation
@pytest.mark.parametrize("usual", [False, True])
def test_threads_change_nothing(equations, threads, usual):
    shapes = {} if usual else {"threshold": (9000,), "decay": (9000,)}
    x_seq, v0, p = tensors(equations, (4, 9000), torch.float32, shapes)
    when, surrogate = dict.fromkeys(WHEN, False), from_name("atan", 2.0)
    alone = both(Native, equations, x_seq, v0, p, surrogate, when, potentials=not usual)[1]
    shared = both(Native, equations, x_seq, v0, p, surrogate, when, potentials=not usual, threads=4)[1]
    for name, value in alone.items():
        assert torch.equal(shared[name], value), name


@every_equation
@pytest.mark.parametrize("count", [1, 7, 255, 4099])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("potentials", [True, False])
def test_writing_past_the_cache_changes_nothing(equations, count, dtype, potentials, monkeypatch):
    x_seq, v0, p = tensors(equations, (5, count), dtype)
    when, surrogate = dict.fromkeys(WHEN, False), from_name("sigmoid", 4.0)
    results = []
    for bound in (math.inf, 0):
        monkeypatch.setattr(native, "STREAM", bound)
        results.append(both(Native, equations, x_seq, v0, p, surrogate, when, potentials=potentials)[1])
    for name, value in results[0].items():
        assert torch.equal(results[1][name], value), name


def test_several_python_threads_at_once(threads):
    torch.set_num_threads(3)
    torch.manual_seed(3)
    x_seq, v0, p = tensors(EQUATIONS[4], (8, 5000), torch.float32)
    when = dict.fromkeys(WHEN, False)

    def once(_):
        return native.forward(EQUATIONS[4], x_seq, v0, p, from_name("atan", 2.0), **when, return_v_seq=False)[
            0
        ]

    expected = once(0)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(torch.equal(found, expected) for found in pool.map(once, range(64)))
    torch.set_num_threads(1)


def _send(queue, run):
    queue.put(run().tolist())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own(monkeypatch, threads):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)  # torch's own threads would not survive the fork
    x_seq, v0, p = tensors(EQUATIONS[0], (4, 5000), torch.float32)

    def run():
        surrogate, when = from_name("atan", 2.0), dict.fromkeys(WHEN, False)
        return native.forward(EQUATIONS[0], x_seq, v0, p, surrogate, **when, return_v_seq=False)[1]

    expected = run()  # starts threads in this process
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=_send, args=(queue, run))
    child.start()
    found = queue.get()
    child.join(60)
    assert child.exitcode == 0
    assert found == expected.tolist()


_GRADIENTS_IN_A_CHILD = """
import os, sys, torch, snn_ext.functional as F
torch.set_num_threads(2)
x_seq = torch.linspace(-1, 2, 4 * 100_000)
cases = ((torch.tensor(0.4), (4, 100_000)), (torch.full((50_000,), 0.4), (4, 2, 50_000)))
weights = torch.ones(100_000)

def gradients():  # of potentials alone, and summed over a batch: where torch would take several threads
    found = []
    for threshold, shape in cases:
        x, threshold = (tensor.detach().requires_grad_() for tensor in (x_seq.view(shape), threshold))
        _, v = F.vsn(x, decay=0.5, threshold=threshold)
        v.backward(weights[: v.numel()].view(v.shape))
        found += [grad.flatten()[i].item() for grad in (x.grad, threshold.grad) for i in (0, -1)]
    return found

expected = gradients()
(x_seq * 2).sum()  # and torch has used its threads
child = os.fork()
if child == 0:
    os._exit(gradients() != expected)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_the_backward_pass_does_not_hang_in_a_forked_child(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-W", "ignore", "-c", _GRADIENTS_IN_A_CHILD]
    subprocess.run(command, check=True, env=environment, timeout=60, cwd=tmp_path)  # not the sources


_INTERRUPTED = """
import os, signal, sys, threading, time, torch
from snn_ext.ops import calls, native
from snn_ext.neurons.vsn import VSN
from snn_ext.surrogate import from_name
if sys.argv[1] == "threads of its own":
    native._openmp = None
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background ignores
torch.set_num_threads(2)
x, y, v = torch.rand(400, 60_000), torch.empty(400, 60_000), torch.empty(60_000)
numbers = calls.numbers(VSN(), from_name("atan", 2.0), False, False, False)
values = [calls.Parameter(torch.tensor(0.5), None, 1, 1)] * 3
call = calls.Call(
    "forward", x.dtype, *x.shape, 256, 400, numbers, False, 2.0, 0.0, x, None, y=y, v=v, parameters=values
)
native.run(call)
expected, _ = y.clone(), y.fill_(torch.nan)

def interrupt():
    time.sleep(0.005)
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt).start()
try:
    native.run(call)
    time.sleep(10)
except KeyboardInterrupt:
    sys.exit(0 if torch.equal(y, expected) else "an interrupt came before the threads were done")
sys.exit("not interrupted")
"""


@pytest.mark.skipif(os.name != "posix", reason="sends itself a signal")
def test_an_interrupt_waits_for_whoever_still_writes(threads, request, tmp_path):
    command = [sys.executable, "-c", _INTERRUPTED, request.node.callspec.params["threads"]]
    subprocess.run(command, check=True, timeout=60, cwd=tmp_path)  # not the sources, which have no library


@pytest.mark.parametrize(
    "wrong",
    [
        {"neuron": 3},
        {"neuron": -1},
        {"reset": 5},
        {"activation": 4},
        {"surrogate": 7},
        {"neuron": 0, "mpr": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("what", ["forward", "backward"])
@pytest.mark.parametrize("size", [64, 2**18])
def test_unknown_numbers_run_no_other_neuron(what, wrong, size, threads):
    numbers = calls.numbers(EQUATIONS[-1], from_name("atan", 2.0), False, False, False)._replace(**wrong)
    x = torch.rand(2, size)
    step, sequence = torch.rand(size), torch.full((2, size), 7.0)
    memory = {"y": sequence, "v": step} if what == "forward" else {"gy": x, "gx": sequence, "gv0": step}
    values = [calls.Parameter(torch.tensor(0.5), None, 1, 1)] * 4
    call = calls.Call(
        what, x.dtype, 2, size, 256, 2, numbers, False, 2.0, 0.0, x, None, parameters=values, **memory
    )
    torch.set_num_threads(2)
    with pytest.raises(ValueError, match="the compiled kernels do not know Numbers"):
        native.run(call)
    torch.set_num_threads(1)
    assert (sequence == 7).all()


@pytest.mark.parametrize("flag", [2, 256, 2**40, 1.0, "yes"])
def test_a_flag_is_packed_as_a_truth_value(flag):
    def packed(flag):
        equations = SoftResetMPR()
        equations.mpr = flag  # past the check of the constructor
        numbers = calls.numbers(equations, from_name("atan", 2.0), flag, flag, flag)
        x = torch.zeros(1, 1)
        return calls.Call("forward", x.dtype, 1, 1, 1, 1, numbers, flag, 2.0, 0.0, x, None).packed()[:120]

    assert packed(flag) == packed(True)
    assert struct.unpack("=7q", packed(True)[64:]) == (1, 0, 1, 1, 1, 1, 1)
    assert struct.unpack("=7q", packed(0)[64:]) == (1, 0, 0, 0, 0, 0, 0)


@every_neuron
def test_the_operator_runs_natively_on_the_cpu(neuron, monkeypatch):
    monkeypatch.delenv(dispatch.VARIABLE, raising=False)
    assert dispatch.implementation("cpu") == "native"
    called = []
    forward = native.forward
    monkeypatch.setattr(native, "forward", lambda *a, **k: called.append(1) or forward(*a, **k))
    neuron(torch.rand(3, 4))
    assert called


def test_without_compiled_kernels_the_reference_runs_and_says_so_once():
    code = """
import warnings, torch
from snn_ext.neurons.soft_reset_mpr import SoftResetMPR
from snn_ext.ops import calls, dispatch, native
native.why_not = "it was not compiled at installation"
import snn_ext.functional as F
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    for _ in range(3):
        F.vsn(torch.rand(3, 4), decay=0.5, threshold=0.5)
assert dispatch.implementation() == "reference"
assert [str(w.message) for w in seen if "compiled" in str(w.message)] == [
    "snn_ext runs on its reference, several times slower than its compiled kernel: "
    "it was not compiled at installation"
], seen
"""
    environment = {name: value for name, value in os.environ.items() if name != dispatch.VARIABLE}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_the_usual_neuron_is_computed_alike():
    x_seq = torch.rand(4, 6, requires_grad=True)
    y_seq, _ = VSN(x_seq)
    assert torch.equal(y_seq, VSN.oracle(x_seq)[0].to(y_seq))
