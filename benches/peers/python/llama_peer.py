"""llama.cpp through llama-cpp-python's low-level functions, on a GGUF file of the common weights."""

import ctypes
import os
import tempfile
from dataclasses import dataclass

import gguf
import llama_cpp as ll
import numpy as np

from protocol import serve, tokens, weight

THREADS = int(os.environ.get("OMP_NUM_THREADS", "1"))


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama, and what ours calls its tensors."""

    width: int
    heads: int
    kv_heads: int
    layers: int
    ffn: int
    vocab: int
    names: dict

    def head_dim(self):
        return self.width // self.heads


SHAPES = {
    "llama": Shape(768, 12, 12, 12, 2048, 50257, {
        "token_embd": "embed", "output_norm": "norm", "output": "head", "blk": "blocks", "attn_norm": "norm1",
        "ffn_norm": "norm2", "attn": "attn",
    }),
    "smollm2": Shape(576, 9, 3, 30, 1536, 49152, {
        "token_embd": "model.embed_tokens", "output_norm": "model.norm", "blk": "model.layers",
        "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn": "self_attn",
    }),
}
TYPES = {
    "f32": gguf.GGMLQuantizationType.F32, "f16": gguf.GGMLQuantizationType.F16, "bf16": gguf.GGMLQuantizationType.BF16,
    "q8_0": gguf.GGMLQuantizationType.Q8_0, "q4_0": gguf.GGMLQuantizationType.Q4_0,
}

ll.llama_backend_init()


def rotated(w, heads):
    """Rows of queries or keys in the order in which llama.cpp rotates them: pairs side by side."""
    rows, width = w.shape
    return w.reshape(heads, 2, rows // heads // 2, width).swapaxes(1, 2).reshape(rows, width)


def write(path, shape, kind):
    out = gguf.GGUFWriter(path, "llama")
    out.add_context_length(1024)
    out.add_embedding_length(shape.width)
    out.add_block_count(shape.layers)
    out.add_feed_forward_length(shape.ffn)
    out.add_head_count(shape.heads)
    out.add_head_count_kv(shape.kv_heads)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_rope_dimension_count(shape.head_dim())
    out.add_rope_freq_base(10000.0)
    out.add_vocab_size(shape.vocab)
    out.add_tokenizer_model("no_vocab")
    names, d, kv = shape.names, shape.width, shape.kv_heads * shape.head_dim()
    tied = "output" not in names

    def add(theirs, ours, *sizes, heads=0):
        w = weight(f"{ours}.weight", sizes)
        w = np.ascontiguousarray(rotated(w, heads) if heads else w, np.float32)
        # Of an embedding that is no head only rows are read: it stays as the others have it.
        plain = len(sizes) == 1 or (theirs == "token_embd" and not tied) or kind == gguf.GGMLQuantizationType.F32
        if plain:
            out.add_tensor(f"{theirs}.weight", w)
        else:
            out.add_tensor(f"{theirs}.weight", gguf.quants.quantize(w, kind), raw_dtype=kind)

    add("token_embd", names["token_embd"], shape.vocab, d)
    add("output_norm", names["output_norm"], d)
    if not tied:
        add("output", names["output"], shape.vocab, d)
    for i in range(shape.layers):
        t, n = f"blk.{i}", f"{names['blk']}.{i}"
        add(f"{t}.attn_norm", f"{n}.{names['attn_norm']}", d)
        add(f"{t}.ffn_norm", f"{n}.{names['ffn_norm']}", d)
        add(f"{t}.attn_q", f"{n}.{names['attn']}.q_proj", d, d, heads=shape.heads)
        add(f"{t}.attn_k", f"{n}.{names['attn']}.k_proj", kv, d, heads=shape.kv_heads)
        add(f"{t}.attn_v", f"{n}.{names['attn']}.v_proj", kv, d)
        add(f"{t}.attn_output", f"{n}.{names['attn']}.o_proj", d, d)
        add(f"{t}.ffn_gate", f"{n}.mlp.gate_proj", shape.ffn, d)
        add(f"{t}.ffn_up", f"{n}.mlp.up_proj", shape.ffn, d)
        add(f"{t}.ffn_down", f"{n}.mlp.down_proj", d, shape.ffn)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


class Model:
    """A model of a shape, with caches for several texts."""

    def __init__(self, shape, kind, texts):
        self.shape = shape
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "model.gguf")
            write(path, shape, TYPES[kind])
            settings = ll.llama_model_default_params()
            settings.use_mmap = False
            self.model = ll.llama_model_load_from_file(path.encode(), settings)
        if not self.model:
            raise RuntimeError("llama.cpp does not load the file")
        settings = ll.llama_context_default_params()
        settings.n_ctx, settings.n_batch, settings.n_ubatch = 1024 * texts if texts == 1 else 256 * texts, 512, 512
        settings.n_seq_max = texts
        settings.n_threads = settings.n_threads_batch = THREADS
        # Keys and values as the others hold them.
        settings.type_k = settings.type_v = 0
        self.context = ll.llama_init_from_model(self.model, settings)
        self.memory = ll.llama_get_memory(self.context)

    def __del__(self):
        if getattr(self, "context", None):
            ll.llama_free(self.context)
        if getattr(self, "model", None):
            ll.llama_model_free(self.model)

    def decode(self, ids, first, texts=(0,), logits=True):
        """These tokens at positions from `first` on, in each of the texts; logits of the last."""
        batch = ll.llama_batch_init(len(ids) * len(texts), 0, 1)
        batch.n_tokens = len(ids) * len(texts)
        for k, text in enumerate(texts):
            for i, t in enumerate(ids):
                at = k * len(ids) + i
                batch.token[at], batch.pos[at], batch.n_seq_id[at] = int(t), first + i, 1
                batch.seq_id[at][0], batch.logits[at] = text, int(logits and i == len(ids) - 1)
        if ll.llama_decode(self.context, batch):
            raise RuntimeError("llama_decode failed")
        ll.llama_batch_free(batch)

    def logits(self):
        found = ll.llama_get_logits_ith(self.context, -1)
        return np.ctypeslib.as_array(ctypes.cast(found, ctypes.POINTER(ctypes.c_float)), (self.shape.vocab,)).copy()


def load(words):
    # `prompt llama TOKENS KIND`, `decode llama KIND`, `smollm2 prompt TOKENS KIND`, `smollm2 decode TEXTS KIND`
    name = "smollm2" if words[0] == "smollm2" else words[1]
    what = words[1] if words[0] == "smollm2" else words[0]
    if what not in ("prompt", "decode") or name not in SHAPES:
        raise ValueError("only prompts and decoding of the shapes of Llama")
    shape = SHAPES[name]
    text = tokens("prompt", (1024,), shape.vocab)
    count = int(words[2]) if len(words) == 4 else 1
    texts = list(range(count if what == "decode" else 1))
    model = Model(shape, words[-1], len(texts))
    if what == "prompt":
        def run():
            ll.llama_memory_clear(model.memory, False)
            model.decode(text[:count], 0)
    else:
        for k in texts:
            model.decode(text[:128], 0, [k], logits=False)

        def run():
            for k in texts:
                ll.llama_memory_seq_rm(model.memory, k, 128, -1)
            model.decode(text[128:129], 128, texts)

    run()
    return run, model.logits


serve(load)
