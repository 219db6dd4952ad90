"""register() and unregister(): the neurons under the frameworks' own names, reversibly."""

import subprocess
import sys

import pytest

NAMES = {
    "snntorch": ["VSN", "LIFB", "SoftResetMPR"],
    "spikingjelly": ["VSNNode", "LIFBNode", "SoftResetMPRNode"],
}


def namespace(face):
    import importlib

    name = {"snntorch": "snntorch", "spikingjelly": "spikingjelly.activation_based.neuron"}[face.name]
    return importlib.import_module(name)


@pytest.fixture(autouse=True)
def _unregistered(face):
    face.ext.unregister()
    yield
    face.ext.unregister()


def test_the_neurons_appear_and_disappear(face):
    before = set(vars(namespace(face)))
    face.ext.register()
    face.ext.register()
    for name in NAMES[face.name]:
        assert getattr(namespace(face), name) is getattr(face.ext, name)
    assert set(vars(namespace(face))) - before == set(NAMES[face.name])
    face.ext.unregister()
    face.ext.unregister()
    assert set(vars(namespace(face))) == before


@pytest.mark.parametrize("place", [0, 2])
def test_a_name_that_is_taken_is_left_alone_and_nothing_is_half_done(face, place, monkeypatch):
    name = NAMES[face.name][place]
    monkeypatch.setattr(namespace(face), name, dict, raising=False)
    with pytest.raises(ValueError, match=rf"has a {name} of its own .*by its full name"):
        face.ext.register()
    assert [n for n in NAMES[face.name] if hasattr(namespace(face), n)] == [name]
    face.ext.unregister()
    assert getattr(namespace(face), name) is dict


def test_importing_the_face_registers_nothing(face):
    module = namespace(face).__name__
    code = (
        f"import {module} as framework\nimport snn_ext.{face.name}\n"
        f"print(set({NAMES[face.name]}) & set(vars(framework)))"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_spikingjelly_configs_name_the_neurons_by_their_path(face):
    if face.name != "spikingjelly":
        pytest.skip("SpikingJelly only")
    config = pytest.importorskip(
        "spikingjelly.activation_based.distributed.vision.config", reason="this SpikingJelly has no registry"
    )
    path = "snn_ext.spikingjelly.neurons.LIFBNode"
    wanted = config.NeuronConfig(class_path=path, kwargs={"tau": 3.0, "burst_intensity": 4.0})
    with pytest.raises(ValueError, match="Unregistered neuron class"):
        config._resolve_neuron_config(wanted)
    face.ext.register()
    cls, kwargs = config._resolve_neuron_config(wanted)
    assert cls(**kwargs).burst_intensity.item() == 4.0
    by_namespace = config.NeuronConfig(class_path="spikingjelly.activation_based.neuron.VSNNode", kwargs={})
    assert config._resolve_neuron_config(by_namespace)[0] is face.ext.VSNNode
    face.ext.unregister()
    with pytest.raises(ValueError, match="Unregistered neuron class"):
        config._resolve_neuron_config(wanted)
