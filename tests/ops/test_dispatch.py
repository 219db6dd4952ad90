"""Which implementation runs: the fastest that serves the device, or the one forced, never another."""

import pytest

from snn_ext.ops import cupy, dispatch, native


@pytest.fixture(autouse=True)
def _nothing_forced(monkeypatch):
    monkeypatch.delenv(dispatch.VARIABLE, raising=False)


@pytest.fixture
def everything(monkeypatch):
    """An installation that has all implementations."""
    monkeypatch.setattr(native, "why_not", "")
    monkeypatch.setattr(cupy, "why_not", lambda: "")


@pytest.mark.usefixtures("everything")
@pytest.mark.parametrize(("device", "name"), [("cpu", "native"), ("cuda", "cupy"), ("mps", "reference")])
def test_the_fastest_for_each_device(device, name):
    assert dispatch.implementation(device) == name
    assert dispatch.available() == dispatch.NAMES


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_the_reference_where_nothing_else_is(device, monkeypatch):
    monkeypatch.setattr(native, "why_not", "not compiled")
    monkeypatch.setattr(cupy, "why_not", lambda: "not installed")
    assert dispatch.implementation(device) == "reference"
    assert dispatch.available() == ("reference",)


@pytest.mark.usefixtures("everything")
@pytest.mark.parametrize("forced", ["by name", "by the environment"])
def test_what_is_forced_runs_or_says_why_not(forced, monkeypatch):
    def implementation(device, name):
        if forced == "by name":
            return dispatch.implementation(device, name)
        monkeypatch.setenv(dispatch.VARIABLE, name)
        return dispatch.implementation(device)

    assert implementation("cuda", "reference") == "reference"
    with pytest.raises(RuntimeError, match="'native' runs on the CPU, not on cuda; unset it"):
        implementation("cuda", "native")
    with pytest.raises(RuntimeError, match="'cupy' runs on CUDA, not on cpu; unset it, or use 'reference'"):
        implementation("cpu", "cupy")
    with pytest.raises(RuntimeError, match="'warp' is not available here; unset it, or use one of: ref"):
        implementation("cpu", "warp")
    monkeypatch.setattr(cupy, "why_not", lambda: "CuPy is not installed")
    with pytest.raises(RuntimeError, match="'cupy' is not available here: CuPy is not installed"):
        implementation("cuda", "cupy")


@pytest.mark.usefixtures("everything")
def test_the_environment_comes_first(monkeypatch):
    monkeypatch.setenv(dispatch.VARIABLE, "reference")
    assert dispatch.implementation("cuda", "cupy") == "reference"


def test_cupy_says_what_it_misses(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert cupy.why_not() == "torch finds no CUDA device"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(cupy.importlib.util, "find_spec", lambda name: None)
    cupy._missing.cache_clear()
    assert cupy.why_not() == "CuPy is not installed; add it with: pip install 'snn-ext[cupy]'"
    cupy._missing.cache_clear()
