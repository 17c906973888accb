#!/usr/bin/env python3
"""Whisper against faster-whisper (CTranslate2), in turns on the same sound, windows and number of tokens.

    python3 -m venv VENV && VENV/bin/pip install faster-whisper
    cargo build --release
    VENV/bin/python benches/peers/whisper.py --model ~/.cache/mobilis/real/whisper-tiny.en SOUND.wav..
    VENV/bin/python benches/peers/whisper.py --sizes base SOUND.wav..     # random weights of base's sizes

Both read the same weights: the folder's, or random ones. Both take the likeliest tokens without times,
window by window of 30 s, at most 224 tokens each. The sound is repeated to `--seconds`. Our time is what
`mobilis transcribe --json` reports, theirs is that of `transcribe` in a process that has warmed up;
neither holds loading. Of each round the faster side of neither is chosen: medians are compared.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
import wave
from pathlib import Path

import ctranslate2
import faster_whisper
import numpy as np

SIZES = {"tiny.en": (384, 4, 6), "base": (512, 6, 8)}
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
    spec.optimize(quantization={"f32": "float32"}.get(kind, kind))
    target.mkdir()
    spec.save(str(target))
    (target / "tokenizer.json").write_bytes((source / "tokenizer.json").read_bytes())


def sound(files, seconds):
    """16-bit recordings at 16 kHz one after the other, so long."""
    parts = []
    for name in files:
        with wave.open(name) as f:
            assert (f.getframerate(), f.getnchannels(), f.getsampwidth()) == (16_000, 1, 2), name
            parts.append(np.frombuffer(f.readframes(f.getnframes()), np.int16))
    return np.resize(np.concatenate(parts), int(seconds * 16_000))


def main():
    ask = argparse.ArgumentParser()
    ask.add_argument("files", nargs="+")
    ask.add_argument("--model", type=Path, default=Path.home() / ".cache/mobilis/real/whisper-tiny.en")
    ask.add_argument("--sizes", choices=SIZES, help="random weights of these sizes instead of the model's")
    ask.add_argument("--kinds", default="f32,int8")
    ask.add_argument("--seconds", type=float, default=120)
    ask.add_argument("--rounds", type=int, default=5)
    ask.add_argument("--threads", type=int, default=2)
    ask.add_argument("--keep", type=Path, help="make models in this folder, and take what is there")
    ask.add_argument("--mobilis", default="target/release/mobilis")
    a = ask.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = a.keep or Path(folder)
        folder.mkdir(exist_ok=True)
        model = a.model
        if a.sizes:
            model = folder / "model"
            model.exists() or random(model, a.sizes, a.model)
        samples = sound(a.files, a.seconds)
        with wave.open(str(folder / "all.wav"), "wb") as f:
            f.setparams((1, 2, 16_000, 0, "NONE", ""))
            f.writeframes(samples.tobytes())
        for kind in a.kinds.split(","):
            (folder / kind).exists() or convert(model, folder / kind, kind)
            theirs = faster_whisper.WhisperModel(
                str(folder / kind), device="cpu", compute_type={"f32": "float32"}.get(kind, kind), cpu_threads=a.threads,
            )
            floats = samples.astype(np.float32) / 32768

            def their():
                # CTranslate2 writes half as many tokens as its `max_length` of 448 says: 224, as we do.
                begin = time.perf_counter()
                segments, _ = theirs.transcribe(
                    floats, language="en", beam_size=1, temperature=0.0, without_timestamps=True,
                    condition_on_previous_text=False, suppress_tokens=[], suppress_blank=False,
                    compression_ratio_threshold=None, log_prob_threshold=None, no_speech_threshold=None,
                )
                segments = list(segments)
                tokens = sum(len(s.tokens) for s in segments)
                return time.perf_counter() - begin, tokens, " ".join(s.text.strip() for s in segments)

            def our():
                command = [
                    a.mobilis, "transcribe", str(model), str(folder / "all.wav"), "--json", "--greedy", "--no-times",
                    "--no-carry", "--plain", "--weights", kind,
                ]
                env = {**os.environ, "MOBILIS_THREADS": str(a.threads)}
                found = json.loads(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout)
                segments = found["transcripts"][0]["segments"]
                tokens = sum(len(s["tokens"]) for s in segments)
                return found["seconds"], tokens, " ".join(s["text"] for s in segments)

            their()
            rounds = [(our(), their()) for _ in range(a.rounds)]
            ours, others = (statistics.median(r[i][0] for r in rounds) for i in (0, 1))
            (_, n, text), (_, m, other) = rounds[-1]
            print(
                f"{a.sizes or model.name} {kind}, {a.threads} threads, {a.seconds:.0f} s: ours {a.seconds / ours:.1f} times real "
                f"time ({n} tokens), faster-whisper {a.seconds / others:.1f} ({m} tokens): {others / ours:.2f} times as fast; "
                f"texts {'equal' if text == other else 'differ'}", flush=True,
            )


main()
