"""Shared settings: hypothesis profiles and quiet frameworks."""

import os
import shutil
import warnings

import pytest
import torch
from faces import face  # noqa: F401  (a fixture for all)
from hypothesis import HealthCheck, settings

settings.register_profile(
    "default", deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("ci", parent=settings.get_profile("default"), derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "default"))

torch.set_num_threads(1)  # the tensors are small, and the machine may be busy

# SpikingJelly 0.0.0.0.14 scripts functions on import; torch 2.14 says that this is deprecated.
warnings.filterwarnings("ignore", category=FutureWarning, module="torch.jit")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
    yield
    torch._dynamo.reset()


@pytest.fixture(params=["aot_eager", "inductor"])
def compile_backend(request):
    """Both a backend that needs nothing, and the default one, which needs a C++ compiler."""
    if request.param == "inductor" and not (shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("torch's default compiler backend needs a C++ compiler")
    return request.param
