"""Networks leave torch: ``torch.export``, ONNX by both exporters, plain operators when asked."""

import io

import pytest
import torch
from torch import nn

from snn_ext.functional import decompositions

NEURONS = ("VSN", "LIFB", "SoftResetMPR")
every_neuron = pytest.mark.parametrize("name", NEURONS)
pytestmark = pytest.mark.filterwarnings("ignore")


class Unrolled(nn.Module):
    """A network of single steps, over a sequence."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x_seq):
        return torch.stack([self.net(x) for x in x_seq])


class AllSteps(nn.Module):
    """A layer and a neuron of snnTorch, over a sequence in one call."""

    def __init__(self, net):
        super().__init__()
        self.fc, self.lif = net

    def forward(self, x_seq):
        return self.lif.multi_step(self.fc(x_seq))


def spike_function(u):
    return (u > 0).to(u.dtype)


def network(face, name, form, **options):
    """Return a network with an input for it: one step, a loop over steps, or all steps in one call."""
    torch.manual_seed(0)
    x_seq = torch.rand(3, 4, 8) * 3
    if face.name == "snntorch":
        neuron = getattr(face.ext, name)(0.5, 0.5, init_hidden=True, **options)
    else:
        step_mode = "m" if form == "all" else "s"
        neuron = getattr(face.ext, name + "Node")(2.0, False, 0.5, step_mode=step_mode, **options)
    net = nn.Sequential(nn.Linear(8, 8), neuron).eval()
    if form == "step":
        return net, x_seq[0]
    if form == "loop":
        return Unrolled(net), x_seq
    return (AllSteps(net) if face.name == "snntorch" else net), x_seq


def fresh(face, net):
    if face.name == "snntorch":
        face.ext.reset(net)
    else:
        face.functional.reset_net(net)


def emitted(face, net, x):
    fresh(face, net)
    with torch.no_grad():
        y = net(x)
    assert 0.1 < (y != 0).double().mean() < 0.9
    fresh(face, net)
    return y


def onnx_model(net, x, dynamo=True):
    pytest.importorskip("onnx")
    if dynamo:
        pytest.importorskip("onnxscript")
    import onnx

    file = io.BytesIO()
    with torch.no_grad():
        program = torch.onnx.export(net, (x,), None if dynamo else file, dynamo=dynamo, verbose=False)
    return program.model_proto if dynamo else onnx.load_from_string(file.getvalue())


def run_onnx(model, x):
    from onnx.reference import ReferenceEvaluator

    return torch.from_numpy(ReferenceEvaluator(model).run(None, {model.graph.input[0].name: x.numpy()})[0])


def operators(ep):
    return {str(node.target) for node in ep.graph.nodes if node.op == "call_function"}


@every_neuron
@pytest.mark.parametrize("form", ["step", "loop", "all"])
def test_onnx_spikes_as_eager(face, name, form):
    net, x = network(face, name, form)
    expected = emitted(face, net, x)
    model = onnx_model(net, x)
    assert not {node.domain for node in model.graph.node} - {"", "pkg.onnxscript.torch_lib"}
    torch.testing.assert_close(run_onnx(model, x), expected, rtol=1e-5, atol=1e-6)


def test_onnx_with_a_callable_surrogate_and_activation(face):
    key = {"snntorch": "spike_grad", "spikingjelly": "surrogate_function"}[face.name]
    net, x = network(face, "VSN", "loop", activation=torch.sin, **{key: spike_function})
    expected = emitted(face, net, x)
    torch.testing.assert_close(run_onnx(onnx_model(net, x), x), expected, rtol=1e-5, atol=1e-6)


@every_neuron
def test_onnx_runtime_agrees(face, name):
    runtime = pytest.importorskip("onnxruntime")
    net, x = network(face, name, "all")
    expected = emitted(face, net, x)
    session = runtime.InferenceSession(onnx_model(net, x).SerializeToString())
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "form"), [("VSN", "step"), ("LIFB", "loop"), ("SoftResetMPR", "all")])
def test_the_exporter_by_tracing_works_too(face, name, form):
    net, x = network(face, name, form)
    expected = emitted(face, net, x)
    model = onnx_model(net, x, dynamo=False)
    torch.testing.assert_close(run_onnx(model, x), expected, rtol=1e-5, atol=1e-6)


@every_neuron
@pytest.mark.parametrize(("form", "strict"), [("step", False), ("loop", True), ("all", False)])
def test_exported_programs_run_as_eager_and_come_apart_when_asked(face, name, form, strict):
    net, x = network(face, name, form)
    expected = emitted(face, net, x)
    with torch.no_grad():
        ep = torch.export.export(net, (x,), strict=strict)
        assert torch.equal(ep.module()(x), expected)
        plain = ep.run_decompositions({**torch.export.default_decompositions(), **decompositions()})
        assert torch.equal(plain.module()(x), expected)
    assert any(operator.startswith("snn_ext") for operator in operators(ep))
    assert not any(operator.startswith("snn_ext") for operator in operators(plain))


@every_neuron
def test_an_export_in_the_middle_of_a_sequence_leaves_the_state(face, name):
    net, x = network(face, name, "step")
    net(x)
    attribute = {"snntorch": "mem", "spikingjelly": "v"}[face.name]
    before = getattr(net[1], attribute)
    value = before.detach().clone()
    torch.export.export(net, (x,), strict=False)
    after = getattr(net[1], attribute)
    assert type(after) is torch.Tensor
    assert torch.equal(after, value)
    net(x)


def test_what_is_compiled_keeps_the_operator_and_its_shapes_for_any_number_of_steps():
    from snn_ext.functional import vsn

    seen = []

    def backend(graph, inputs):
        seen.append(graph)
        return graph

    compiled = torch.compile(lambda x_seq: vsn(x_seq, decay=0.5, threshold=0.5)[0], backend=backend)
    for steps in (3, 5, 7):
        x_seq = torch.rand(steps, 4)
        torch._dynamo.mark_dynamic(x_seq, 0)
        assert torch.equal(compiled(x_seq), vsn(x_seq, decay=0.5, threshold=0.5)[0])
    assert len(seen) == 1
    assert "snn_ext.vsn" in seen[0].code
