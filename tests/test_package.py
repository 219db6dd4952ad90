"""The package as a whole: what it imports, what it promises, how it behaves without a framework."""

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

import snn_ext

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]


def python(code, *, without=()):
    """Run `code` in a fresh interpreter where the modules in `without` cannot be imported."""
    hide = "".join(f"sys.modules[{name!r}] = None\n" for name in without)
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"import sys\n{hide}{code}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )


def test_importing_the_package_imports_neither_framework():
    done = python("import snn_ext\nprint({'snntorch', 'spikingjelly'} & set(sys.modules))")
    assert done.stdout.strip() == "set()", done.stderr


@pytest.mark.parametrize(("face", "other"), [("snntorch", "spikingjelly"), ("spikingjelly", "snntorch")])
def test_each_face_works_without_the_other_framework(face, other):
    pytest.importorskip(face)
    done = python(
        f"import snn_ext.{face}\nprint({other!r} in sys.modules and sys.modules[{other!r}] is not None)",
        without=[other],
    )
    assert done.stdout.strip() == "False", done.stderr


def test_an_unsupported_snntorch_is_refused_with_the_remedy():
    done = python(
        "import types\nsnn = types.ModuleType('snntorch'); snn.__version__ = '0.6.4'\n"
        "snn.Leaky = type('Leaky', (), {'__init__': lambda self, beta, threshold=1.0: None})\n"
        "sys.modules['snntorch'] = snn\nimport snn_ext.snntorch"
    )
    assert "ImportError: snnTorch 0.6.4 is not supported" in done.stderr
    assert "pip install 'snntorch>=0.8.1'" in done.stderr


def test_an_unsupported_spikingjelly_is_refused_with_the_remedy():
    done = python(
        "import types\nsj = types.ModuleType('spikingjelly'); sj.__path__ = []\n"
        "sys.modules['spikingjelly'] = sj\nimport snn_ext.spikingjelly"
    )
    assert "ImportError: this SpikingJelly has no spikingjelly.activation_based" in done.stderr
    assert "pip install 'spikingjelly>=0.0.0.0.14'" in done.stderr


def test_core_depends_on_torch_numpy_and_a_progress_bar_alone():
    core = [r for r in importlib.metadata.requires("snn-ext") if "extra ==" not in r]
    assert {re.match(r"[\w-]+", r).group() for r in core} == {"torch", "numpy", "tqdm"}


def test_the_version_is_one():
    assert snn_ext.__version__ == importlib.metadata.version("snn-ext")
    assert f"## [{snn_ext.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_package_is_typed():
    assert (Path(snn_ext.__file__).parent / "py.typed").exists()


def matrix():
    return tomllib.loads((ROOT / "compat" / "matrix.toml").read_text())["row"]


def test_the_matrix_agrees_with_its_constraint_files_and_with_tox():
    tox = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["tox"]
    for row in matrix():
        pins = dict(
            re.findall(r"^([\w-]+)==([\w.]+)$", (ROOT / "compat" / row["constraints"]).read_text(), re.M)
        )
        assert {name: row[name] for name in ("torch", "snntorch", "spikingjelly")} == {
            name: pins[name] for name in ("torch", "snntorch", "spikingjelly")
        }
        settings = {**tox["env_run_base"], **tox["env"][row["tox"]]}
        assert settings["set_env"]["PIP_CONSTRAINT"].endswith(f"compat/{row['constraints']}")


def test_the_installed_frameworks_are_a_row_of_the_matrix():
    installed = {}
    for name in ("snntorch", "spikingjelly"):
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if not installed:
        pytest.skip("no framework is installed")
    assert any(installed.items() <= {k: row[k] for k in installed}.items() for row in matrix())


WHERE = {
    "VSN": "snn_ext.VSN is in snn_ext.snntorch: from snn_ext.snntorch import VSN",
    "LIFBNode": "snn_ext.LIFBNode is in snn_ext.spikingjelly: from snn_ext.spikingjelly import LIFBNode",
    "decouple": "snn_ext.decouple is in snn_ext.snntorch and snn_ext.spikingjelly: "
    "from snn_ext.snntorch import decouple",
    "fan_out": "snn_ext.fan_out is in snn_ext.energy: from snn_ext.energy import fan_out",
    "l4_norm": "snn_ext.l4_norm is in snn_ext.conversion: from snn_ext.conversion import l4_norm",
    "saccades": "snn_ext.saccades is in snn_ext.events: from snn_ext.events import saccades",
    "ATan": "snn_ext.ATan is in snn_ext.surrogate: from snn_ext.surrogate import ATan",
    "energy": "snn_ext.energy has not been imported: import snn_ext.energy",
    "nonsense": "module 'snn_ext' has no attribute 'nonsense'",
}


def test_a_name_asked_of_the_package_answers_with_where_it_is_and_imports_no_framework():
    done = python(
        f"import snn_ext\nfor name in {list(WHERE)}:\n    assert not hasattr(snn_ext, name)\n"
        "    try: getattr(snn_ext, name)\n    except AttributeError as error: print(error)\n"
        "assert not {'snntorch', 'spikingjelly', 'snn_ext.energy'} & set(sys.modules)"
    )
    assert done.stdout.splitlines() == list(WHERE.values()), done.stderr


def test_every_public_name_is_found_and_a_wrong_import_is_an_import_error():
    import importlib

    from snn_ext._places import MODULES, public, where

    for module in MODULES:
        if module in ("snntorch", "spikingjelly"):
            pytest.importorskip(module)
        names = importlib.import_module(f"snn_ext.{module}").__all__
        assert public(module) == names
        assert all(f"snn_ext.{module}" in where(name) for name in names)
    with pytest.raises(ImportError, match="cannot import name 'SynapticPenalty'"):
        exec("from snn_ext import SynapticPenalty")
    from snn_ext import energy  # a submodule is imported as ever

    assert energy.SynapticPenalty
