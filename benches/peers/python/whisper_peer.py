"""faster-whisper (CTranslate2) on our weights, and what both sides read: see `prepare`.

The likeliest tokens without times, window by window of 30 s, at most 224 tokens each; loading is not timed.
"""

import json
import os
import shutil
import sys
import wave
from pathlib import Path

import ctranslate2
import faster_whisper
import numpy as np

from protocol import serve

REAL = Path(os.environ.get("MOBILIS_REAL", Path.home() / ".cache/mobilis/real"))
WORK = Path(__file__).resolve().parents[1] / "target" / "whisper"
SECONDS = 60
SIZES = {"base": (512, 6, 8)}
KINDS = {"f32": "float32", "int8": "int8"}
TYPES = {"F16": np.float16, "F32": np.float32}


def read(path):
    """The tensors of a safetensors file, in f32."""
    raw = Path(path).read_bytes()
    size = int.from_bytes(raw[:8], "little")
    found = {}
    for name, t in json.loads(raw[8 : 8 + size]).items():
        if name != "__metadata__":
            a, b = (8 + size + n for n in t["data_offsets"])
            found[name] = np.frombuffer(raw[a:b], TYPES[t["dtype"]]).reshape(t["shape"]).astype(np.float32)
    return found


def write(path, tensors):
    """A safetensors file of f32."""
    header, at = {}, 0
    for name, t in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(t.shape), "data_offsets": [at, at + t.nbytes]}
        at += t.nbytes
    text = json.dumps(header).encode()
    with open(path, "wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for t in tensors.values():
            out.write(np.ascontiguousarray(t, np.float32).tobytes())


def random(folder, size, like):
    """A folder with random weights of a size, and the vocabulary of another."""
    width, layers, heads = SIZES[size]
    config = json.loads((like / "config.json").read_text())
    config.update({
        "d_model": width, "encoder_layers": layers, "decoder_layers": layers, "encoder_attention_heads": heads,
        "decoder_attention_heads": heads, "encoder_ffn_dim": 4 * width, "decoder_ffn_dim": 4 * width,
    })
    rng = np.random.default_rng(1)
    tensors = {}

    def add(name, *sizes, scale=None):
        scale = sizes[-1] ** -0.5 if scale is None else scale
        tensors[name] = rng.standard_normal(sizes, np.float32) * np.float32(scale)

    def norm(name):
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = np.ones(width, np.float32), np.zeros(width, np.float32)

    for side, positions in (("encoder", 1500), ("decoder", 448)):
        p = f"model.{side}"
        add(f"{p}.embed_positions.weight", positions, width, scale=0.02)
        norm(f"{p}.layer_norm")
        for i in range(layers):
            q = f"{p}.layers.{i}"
            for part in ("self_attn", "encoder_attn")[: 1 + (side == "decoder")]:
                norm(f"{q}.{part}_layer_norm")
                for x in ("q", "k", "v", "out"):
                    add(f"{q}.{part}.{x}_proj.weight", width, width)
                    if x != "k":
                        add(f"{q}.{part}.{x}_proj.bias", width, scale=0.01)
            norm(f"{q}.final_layer_norm")
            for x, sizes in (("fc1", (4 * width, width)), ("fc2", (width, 4 * width))):
                add(f"{q}.{x}.weight", *sizes)
                add(f"{q}.{x}.bias", sizes[0], scale=0.01)
    for x, inputs in (("conv1", 80), ("conv2", width)):
        add(f"model.encoder.{x}.weight", width, inputs, 3, scale=(3 * inputs) ** -0.5)
        add(f"model.encoder.{x}.bias", width, scale=0.01)
    add("model.decoder.embed_tokens.weight", config["vocab_size"], width, scale=0.05)
    # The end is never the likeliest: both sides write as many tokens as they may.
    tensors["model.decoder.embed_tokens.weight"][config["eos_token_id"]] = 0
    folder.mkdir()
    write(folder / "model.safetensors", tensors)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_bytes((like / "tokenizer.json").read_bytes())


def convert(source, target, kind):
    """A folder of Hugging Face's as CTranslate2 has it."""
    config, w = json.loads((source / "config.json").read_text()), read(source / "model.safetensors")
    spec = ctranslate2.specs.WhisperSpec(
        config["encoder_layers"], config["encoder_attention_heads"], config["decoder_layers"],
        config["decoder_attention_heads"],
    )

    def norm(to, name):
        to.gamma, to.beta = w[f"{name}.weight"], w[f"{name}.bias"]

    def linear(to, *names):
        to.weight = np.concatenate([w[f"{n}.weight"] for n in names])
        none = [np.zeros(len(w[f"{n}.weight"]), np.float32) for n in names]
        to.bias = np.concatenate([w.get(f"{n}.bias", zeros) for n, zeros in zip(names, none)])

    for side in ("encoder", "decoder"):
        to, p = getattr(spec, side), f"model.{side}"
        to.position_encodings.encodings = w[f"{p}.embed_positions.weight"]
        norm(to.layer_norm, f"{p}.layer_norm")
        for i, layer in enumerate(to.layer):
            q = f"{p}.layers.{i}"
            norm(layer.self_attention.layer_norm, f"{q}.self_attn_layer_norm")
            linear(layer.self_attention.linear[0], *(f"{q}.self_attn.{x}_proj" for x in "qkv"))
            linear(layer.self_attention.linear[1], f"{q}.self_attn.out_proj")
            if side == "decoder":
                norm(layer.attention.layer_norm, f"{q}.encoder_attn_layer_norm")
                linear(layer.attention.linear[0], f"{q}.encoder_attn.q_proj")
                linear(layer.attention.linear[1], f"{q}.encoder_attn.k_proj", f"{q}.encoder_attn.v_proj")
                linear(layer.attention.linear[2], f"{q}.encoder_attn.out_proj")
            norm(layer.ffn.layer_norm, f"{q}.final_layer_norm")
            linear(layer.ffn.linear_0, f"{q}.fc1")
            linear(layer.ffn.linear_1, f"{q}.fc2")
    for x in ("conv1", "conv2"):
        getattr(spec.encoder, x).weight, getattr(spec.encoder, x).bias = (
            w[f"model.encoder.{x}.weight"], w[f"model.encoder.{x}.bias"],
        )
    spec.decoder.embeddings.weight = spec.decoder.projection.weight = w["model.decoder.embed_tokens.weight"]
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    ids = {**tokenizer["model"]["vocab"], **{t["content"]: t["id"] for t in tokenizer["added_tokens"]}}
    words = [t for t, _ in sorted(ids.items(), key=lambda item: item[1])]
    words += [f"<|{i * 0.02:.2f}|>" for i in range(config["vocab_size"] - len(words))]
    spec.register_vocabulary(words)
    spec.config.suppress_ids, spec.config.suppress_ids_begin = [], []
    spec.config.lang_ids, spec.config.alignment_heads = [], [(config["decoder_layers"] - 1, 0)]
    spec.validate()
    spec.optimize(quantization=KINDS[kind])
    target.mkdir()
    spec.save(str(target))
    (target / "tokenizer.json").write_bytes((source / "tokenizer.json").read_bytes())


def prepare():
    """What both sides read, under `target/whisper`: `sound.wav`, the real clips repeated; `tiny.en`, the real
    model; `base`, random weights of base's sizes; each as CTranslate2 has it too."""
    if (WORK / "ready").exists():
        return
    if WORK.exists():
        shutil.rmtree(WORK)
    WORK.mkdir(parents=True)
    clips = []
    for name in sorted((REAL / "speech" / "librivox").glob("*.wav")):
        with wave.open(str(name)) as f:
            assert (f.getframerate(), f.getnchannels(), f.getsampwidth()) == (16_000, 1, 2), name
            clips.append(np.frombuffer(f.readframes(f.getnframes()), np.int16))
    if not clips:
        raise FileNotFoundError(f"no clips in {REAL / 'speech' / 'librivox'}")
    with wave.open(str(WORK / "sound.wav"), "wb") as f:
        f.setparams((1, 2, 16_000, 0, "NONE", ""))
        f.writeframes(np.resize(np.concatenate(clips), SECONDS * 16_000).tobytes())
    (WORK / "tiny.en").symlink_to(REAL / "whisper-tiny.en")
    for size in SIZES:
        random(WORK / size, size, WORK / "tiny.en")
    for size in ("tiny.en", *SIZES):
        for kind in KINDS:
            convert(WORK / size, WORK / f"{size} {kind}", kind)
    (WORK / "ready").touch()


def load(words):
    what, size, kind = words
    if what != "whisper":
        raise ValueError("only Whisper")
    threads = int(os.environ["OMP_NUM_THREADS"])
    model = faster_whisper.WhisperModel(
        str(WORK / f"{size} {kind}"), device="cpu", compute_type=KINDS[kind], cpu_threads=threads
    )
    with wave.open(str(WORK / "sound.wav")) as f:
        sound = np.frombuffer(f.readframes(f.getnframes()), np.int16).astype(np.float32) / 32768
    counts = [None]

    def run():
        # CTranslate2 writes half as many tokens as its `max_length` of 448 says: 224, as we do.
        segments, _ = model.transcribe(
            sound, language="en", beam_size=1, temperature=0.0, without_timestamps=True,
            condition_on_previous_text=False, suppress_tokens=[], suppress_blank=False,
            compression_ratio_threshold=None, log_prob_threshold=None, no_speech_threshold=None,
        )
        counts[0] = [len(s.tokens) for s in segments]

    return run, lambda: counts[0]


if sys.argv[1:] == ["prepare"]:
    prepare()
else:
    serve(load)
