"""onnxruntime on the CPU: weights are initializers, which it packs when a session is made."""

import os
import tempfile

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from protocol import serve, uniform

THREADS = int(os.environ.get("OMP_NUM_THREADS", "1"))


def session(nodes, inputs, outputs, weights):
    """A session for a graph. Weights go into a file beside the model: a model itself has at most 2 GB."""
    graph = helper.make_graph(nodes, "peer", inputs, outputs, [numpy_helper.from_array(w, n) for n, w in weights.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)])
    model.ir_version = 8
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.onnx")
        onnx.save(model, path, save_as_external_data=True, location="weights", size_threshold=1024)
        options = ort.SessionOptions()
        options.intra_op_num_threads = THREADS
        options.inter_op_num_threads = 1
        # Threads that wait busily would take the processor from the peer that runs next.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def value(name, sizes, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, sizes)


def runner(session, feeds):
    """Runs with inputs and outputs bound beforehand: no copies between numpy and the session."""
    binding = session.io_binding()
    for name, array in feeds.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))
    for output in session.get_outputs():
        binding.bind_output(output.name)
    return lambda: session.run_with_iobinding(binding), lambda: binding.copy_outputs_to_cpu()[0]


def gemm(m, k, n):
    s = session([helper.make_node("MatMul", ["a", "b"], ["c"])], [value("a", [m, k])], [value("c", [m, n])],
                {"b": uniform("b", (k, n), 1.0)})
    return runner(s, {"a": uniform("a", (m, k), 1.0)})


def load(words):
    numbers = [int(w) for w in words[1:] if w.isdigit()]
    match words[0]:
        case "gemm" | "packed":
            return gemm(*numbers)
    raise ValueError(f"no case `{words[0]}`")


serve(load)
