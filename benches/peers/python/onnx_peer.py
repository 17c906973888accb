"""onnxruntime on the CPU: weights are initializers, which it packs when a session is made."""

import os
import tempfile

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from protocol import quartznet_blocks, serve, tokens, uniform, weight

THREADS = int(os.environ.get("OMP_NUM_THREADS", "1"))


def save(folder, nodes, inputs, outputs, weights):
    """A model's file. Weights go into one beside it: a model itself has at most 2 GB."""
    weights = [numpy_helper.from_array(w, n) for n, w in weights.items()]
    graph = helper.make_graph(nodes, "peer", inputs, outputs, weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets)
    model.ir_version = 8
    path = os.path.join(folder, "model.onnx")
    onnx.save(model, path, save_as_external_data=True, location="weights", size_threshold=1024)
    return path


def session(nodes, inputs, outputs, weights, quantized=False):
    with tempfile.TemporaryDirectory() as folder:
        path = save(folder, nodes, inputs, outputs, weights)
        if quantized:
            from onnxruntime.quantization import QuantType, quantize_dynamic

            source, path = path, os.path.join(folder, "quantized.onnx")
            quantize_dynamic(source, path, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"],
                             use_external_data_format=True, extra_options={"DefaultTensorType": TensorProto.FLOAT})
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


class Graph:
    """Nodes and weights, gathered one by one. Weights have the names and values that all peers use."""

    def __init__(self):
        self.nodes, self.weights = [], {}

    def op(self, kind, *inputs, domain="", outputs=1, **attributes):
        names = [f"v{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, domain=domain, **attributes))
        return names[0]

    def weight(self, name, *sizes):
        if name not in self.weights:
            self.weights[name] = weight(name, sizes)
        return name

    def constant(self, name, value):
        self.weights[name] = np.asarray(value)
        return name

    def matmul(self, x, name, n_in, n_out):
        """x W^T: the weight lies transposed, as MatMul wants it."""
        if name not in self.weights:
            self.weights[name] = np.ascontiguousarray(weight(name, (n_out, n_in)).T)
        return self.op("MatMul", x, name)

    def linear(self, x, name, n_in, n_out):
        return self.op("Add", self.matmul(x, f"{name}.weight", n_in, n_out), self.weight(f"{name}.bias", n_out))

    def layer_norm(self, x, name, d):
        w, b = self.weight(f"{name}.weight", d), self.weight(f"{name}.bias", d)
        return self.op("LayerNormalization", x, w, b, axis=-1, epsilon=1e-5)


def gpt2(count, quantized):
    g, d, heads, vocab = Graph(), 768, 12, 50257
    h = g.op("Gather", g.weight("embed.weight", vocab, d), "tokens", axis=0)
    g.weights["places"] = weight("positions.weight", (1024, d))[:count]
    h = g.op("Add", h, "places")
    for i in range(12):
        n = f"blocks.{i}"
        a = g.layer_norm(h, f"{n}.norm1", d)
        # One product for queries, keys and values, as its own optimizer joins them.
        parts = [weight(f"{n}.attn.{p}_proj.weight", (d, d)).T for p in "qkv"]
        qkv = g.op("MatMul", a, g.constant(f"{n}.qkv", np.ascontiguousarray(np.concatenate(parts, 1))))
        qkv = g.op("Add", qkv, g.constant(f"{n}.qkv.bias", np.zeros(3 * d, np.float32)))
        sizes = g.constant("thirds", np.array([d, d, d], np.int64))
        names = [f"{n}.{p}" for p in "qkv"]
        g.nodes.append(helper.make_node("Split", [qkv, sizes], names, axis=-1))
        o = g.op("MultiHeadAttention", *names, domain="com.microsoft", num_heads=heads, unidirectional=1)
        h = g.op("Add", h, g.linear(o, f"{n}.attn.o_proj", d, d))
        m = g.linear(g.layer_norm(h, f"{n}.norm2", d), f"{n}.mlp.up_proj", d, 4 * d)
        m = g.op("Gelu", m, domain="com.microsoft")
        h = g.op("Add", h, g.linear(m, f"{n}.mlp.down_proj", 4 * d, d))
    index = g.constant("last", np.array([count - 1], np.int64))
    h = g.layer_norm(g.op("Gather", h, index, axis=1), "norm", d)
    g.nodes.append(helper.make_node("Identity", [g.matmul(h, "head.weight", d, vocab)], ["logits"]))
    s = session(g.nodes, [value("tokens", [1, count], TensorProto.INT64)], [value("logits", [1, 1, vocab])], g.weights,
                quantized)
    return runner(s, {"tokens": tokens("prompt", (1, 1024), vocab)[:, :count].astype(np.int64)})


def minilm(texts, count):
    """The graph that onnxruntime's optimizer for transformers makes of BERT."""
    g, d, heads, ffn, vocab = Graph(), 384, 12, 1536, 30522
    ms = {"domain": "com.microsoft"}
    h = g.op("Gather", g.weight("embeddings.word_embeddings.weight", vocab, d), "tokens", axis=0)
    # All tokens have type 0, and places are the same in every run.
    places = weight("embeddings.position_embeddings.weight", (512, d))[:count]
    h = g.op("Add", h, g.constant("places", places + weight("embeddings.token_type_embeddings.weight", (2, d))[:1]))
    h = g.layer_norm(h, "embeddings.norm", d)
    for i in range(6):
        n = f"encoder.layer.{i}"
        parts = [weight(f"{n}.attention.self.{p}.weight", (d, d)).T for p in ("query", "key", "value")]
        qkv = g.constant(f"{n}.qkv", np.ascontiguousarray(np.concatenate(parts, 1)))
        bias = g.constant(f"{n}.qkv.bias", np.zeros(3 * d, np.float32))
        a = g.op("Attention", h, qkv, bias, "lengths", num_heads=heads, **ms)

        def joined(x, skip, name, n_in):
            norm = [g.weight(f"{name}.norm.{part}", d) for part in ("weight", "bias")]
            y = g.matmul(x, f"{name}.dense.weight", n_in, d)
            return g.op("SkipLayerNormalization", y, skip, *norm, g.weight(f"{name}.dense.bias", d), epsilon=1e-12, **ms)

        h = joined(a, h, f"{n}.attention.output", d)
        m = g.matmul(h, f"{n}.intermediate.dense.weight", d, ffn)
        m = g.op("BiasGelu", m, g.weight(f"{n}.intermediate.dense.bias", ffn), **ms)
        h = joined(m, h, f"{n}.output", ffn)
    mean = g.op("ReduceMean", h, axes=[1], keepdims=0)
    g.nodes.append(helper.make_node("LpNormalization", [mean], ["vectors"], axis=-1, p=2))
    inputs = [value("tokens", [texts, count], TensorProto.INT64), value("lengths", [texts], TensorProto.INT32)]
    s = session(g.nodes, inputs, [value("vectors", [texts, d])], g.weights)
    ids = tokens("texts", (texts, count), vocab).astype(np.int64)
    return runner(s, {"tokens": ids, "lengths": np.full(texts, count, np.int32)})


def quartznet():
    g = Graph()

    def norm(x, name, n):
        rest = [g.weight(f"{name}.{part}", n) for part in ("weight", "bias", "running_mean", "running_var")]
        return g.op("BatchNormalization", x, *rest, epsilon=1e-5)

    def sub(x, name, i, o, k, stride=1, dilation=1):
        pad = dilation * (k - 1) // 2
        w = g.weight(f"{name}.depthwise.weight", i, 1, k)
        x = g.op("Conv", x, w, group=i, pads=[pad, pad], strides=[stride], dilations=[dilation])
        return norm(g.op("Conv", x, g.weight(f"{name}.pointwise.weight", o, i, 1)), f"{name}.norm", o)

    h = g.op("Relu", sub("x", "first", 64, 256, 33, stride=2))
    for name, i, o, k in quartznet_blocks():
        y = sub(h, f"{name}.first", i, o, k)
        for r in range(4):
            y = sub(g.op("Relu", y), f"{name}.rest.{r}", o, o, k)
        side = norm(g.op("Conv", h, g.weight(f"{name}.residual.weight", o, i, 1)), f"{name}.residual_norm", o)
        h = g.op("Relu", g.op("Add", y, side))
    h = g.op("Relu", sub(h, "wide", 512, 512, 87, dilation=2))
    h = norm(g.op("Conv", h, g.weight("out.weight", 1024, 512, 1)), "out_norm", 1024)
    g.nodes.append(helper.make_node("Relu", [h], ["y"]))
    s = session(g.nodes, [value("x", [1, 64, 1000])], [value("y", [1, 1024, 500])], g.weights)
    return runner(s, {"x": uniform("features", (1, 64, 1000), 1.0)})


def load(words):
    numbers = [int(w) for w in words[1:] if w.isdigit()]
    match words[0]:
        case "prompt":
            if words[1] != "gpt2":
                raise ValueError(f"no shape `{words[1]}`")
            return gpt2(int(words[2]), words[3] != "f32")
        case "embed":
            return minilm(*numbers)
        case "quartznet":
            return quartznet()
        case "gemm" | "packed":
            return gemm(*numbers)
    raise ValueError(f"no case `{words[0]}`")


serve(load)
