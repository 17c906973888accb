"""llama.cpp through llama-cpp-python's low-level functions, on a GGUF file of the common weights."""

import ctypes
import os
import tempfile

import gguf
import llama_cpp as ll
import numpy as np

from protocol import serve, tokens, weight

THREADS = int(os.environ.get("OMP_NUM_THREADS", "1"))
D, HEADS, LAYERS, FFN, VOCAB = 768, 12, 12, 2048, 50257
TYPES = {
    "f32": gguf.GGMLQuantizationType.F32, "f16": gguf.GGMLQuantizationType.F16, "bf16": gguf.GGMLQuantizationType.BF16,
    "q8_0": gguf.GGMLQuantizationType.Q8_0, "q4_0": gguf.GGMLQuantizationType.Q4_0,
}

ll.llama_backend_init()


def rotated(w):
    """Rows of queries and keys in the order in which llama.cpp rotates them: pairs side by side."""
    return w.reshape(HEADS, 2, D // HEADS // 2, D).swapaxes(1, 2).reshape(D, D)


def write(path, kind):
    out = gguf.GGUFWriter(path, "llama")
    out.add_context_length(1024)
    out.add_embedding_length(D)
    out.add_block_count(LAYERS)
    out.add_feed_forward_length(FFN)
    out.add_head_count(HEADS)
    out.add_head_count_kv(HEADS)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_rope_dimension_count(D // HEADS)
    out.add_rope_freq_base(10000.0)
    out.add_vocab_size(VOCAB)
    out.add_tokenizer_model("no_vocab")

    def add(theirs, ours, *sizes, change=lambda w: w):
        w = change(weight(ours, sizes))
        # Only rows of the embedding are read: it stays as the others have it.
        if len(sizes) == 1 or theirs == "token_embd.weight" or kind == gguf.GGMLQuantizationType.F32:
            out.add_tensor(theirs, np.ascontiguousarray(w, np.float32))
        else:
            out.add_tensor(theirs, gguf.quants.quantize(np.ascontiguousarray(w, np.float32), kind), raw_dtype=kind)

    add("token_embd.weight", "embed.weight", VOCAB, D)
    add("output_norm.weight", "norm.weight", D)
    add("output.weight", "head.weight", VOCAB, D)
    for i in range(LAYERS):
        t, n = f"blk.{i}", f"blocks.{i}"
        add(f"{t}.attn_norm.weight", f"{n}.norm1.weight", D)
        add(f"{t}.ffn_norm.weight", f"{n}.norm2.weight", D)
        add(f"{t}.attn_q.weight", f"{n}.attn.q_proj.weight", D, D, change=rotated)
        add(f"{t}.attn_k.weight", f"{n}.attn.k_proj.weight", D, D, change=rotated)
        add(f"{t}.attn_v.weight", f"{n}.attn.v_proj.weight", D, D)
        add(f"{t}.attn_output.weight", f"{n}.attn.o_proj.weight", D, D)
        add(f"{t}.ffn_gate.weight", f"{n}.mlp.gate_proj.weight", FFN, D)
        add(f"{t}.ffn_up.weight", f"{n}.mlp.up_proj.weight", FFN, D)
        add(f"{t}.ffn_down.weight", f"{n}.mlp.down_proj.weight", D, FFN)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


class Model:
    def __init__(self, kind):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "model.gguf")
            write(path, TYPES[kind])
            settings = ll.llama_model_default_params()
            settings.use_mmap = False
            self.model = ll.llama_model_load_from_file(path.encode(), settings)
        if not self.model:
            raise RuntimeError("llama.cpp does not load the file")
        settings = ll.llama_context_default_params()
        settings.n_ctx, settings.n_batch, settings.n_ubatch = 1024, 512, 512
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

    def decode(self, ids, first):
        """Logits of the last of these tokens, at positions from `first` on."""
        batch = ll.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for i, t in enumerate(ids):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = int(t), first + i, 1
            batch.seq_id[i][0], batch.logits[i] = 0, int(i == len(ids) - 1)
        if ll.llama_decode(self.context, batch):
            raise RuntimeError("llama_decode failed")
        ll.llama_batch_free(batch)

    def logits(self):
        found = ll.llama_get_logits_ith(self.context, -1)
        return np.ctypeslib.as_array(ctypes.cast(found, ctypes.POINTER(ctypes.c_float)), (VOCAB,)).copy()


def load(words):
    if words[0] not in ("prompt", "decode") or words[1] != "llama":
        raise ValueError("only prompts and decoding of the shape of Llama")
    text = tokens("prompt", (1024,), VOCAB)
    model = Model(words[-1])
    if words[0] == "prompt":
        count = int(words[2])

        def run():
            ll.llama_memory_clear(model.memory, False)
            model.decode(text[:count], 0)
    else:
        model.decode(text[:128], 0)

        def run():
            ll.llama_memory_seq_rm(model.memory, 0, 128, -1)
            model.decode(text[128:129], 128)

    run()
    return run, model.logits


serve(load)
