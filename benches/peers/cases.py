"""What is compared, with whom, and what must hold: the table of requirements as data."""

from dataclasses import dataclass, field


@dataclass
class Case:
    section: str
    name: str  # what the peers are told to load
    label: str
    flops: float = 0.0  # of one run, for rates and the share of the peak
    bytes: float = 0.0  # read and written by one run at least, for bandwidths
    ceiling: str = "flops"  # flops, int8, copy, or memory: reading the level that the bytes stay in
    share: float = 0.0  # of the ceiling, that must be reached
    need: dict = field(default_factory=dict)  # peer -> how many times faster we must be
    others: tuple = ()  # peers to show without a requirement
    names: dict = field(default_factory=dict)  # what a peer loads instead of `name`
    threads: tuple = (1, 2)
    required_threads: tuple = (2,)
    most: float = 0.0  # seconds that it may take
    note: str = ""  # the figure that counts is this one of our notes, not the time of a run
    unit: tuple = ()  # (what, how many of them a run computes): tokens a run, seconds of sound
    tolerance: float = 1e-4  # of results, against the largest of them
    slice: float = 0.12  # seconds of a peer's turn
    rounds: int = 9
    rank: int = 0  # quick runs leave out what is above 0


def gemm():
    for n in (256, 512, 1024, 2048):
        yield Case(
            "Matrix products in f32", f"gemm {n} {n} {n}", f"{n}³", flops=2.0 * n**3,
            share=0.9 if n >= 512 else 0.0, need={"torch": 0.97, "onnx": 0.97, "gemm": 0.97},
            others=("numpy", "candle"), required_threads=(1, 2), rank=int(n == 2048),
        )
    for m in (8, 64):
        for n in (2048, 4096):
            yield Case(
                "Few rows, weights packed", f"packed {m} {n} {n}", f"{m} × {n}²", flops=2.0 * m * n * n,
                bytes=4.0 * n * n, need={"onnx": 1.0}, others=("torch", "gemm", "candle"), required_threads=(1, 2),
                rank=int(n == 4096),
            )


def training():
    yield Case(
        "Training step", "step", "GPT of 4 × 256, 8 × 256 tokens, AdamW", flops=48.2e9,
        need={"torch": 1.4, "burn": 4.0, "candle": 9.0}, unit=("tokens", 2048), tolerance=1e-4, slice=0.5, rounds=7,
    )


# Weights that a prompt multiplies with for every token, and once for its last.
BODY, HEAD = 12 * 7.08e6, 50257 * 768
BYTES = {"f32": 4, "f16": 2, "bf16": 2, "q8_0": 34 / 32, "q4_0": 18 / 32, "int8": 1}


def vectors():
    for kind, k in (("f32", 4096), ("bf16", 4096), ("int8", 4096), ("q8_0", 4096), ("q4_0", 4096), ("q4_0", 2048)):
        size = BYTES[kind] * k * k
        yield Case(
            "One row times weights", f"gemv {kind} {k} {k}", f"{kind}, {k}²", bytes=size, ceiling="memory",
            share=0.6 if kind == "q4_0" else 0.85, rank=1,
        )


def prompts():
    for shape in ("gpt2", "llama"):
        for count in (128, 512):
            attention = 12 * 2 * count * count * 768
            need = {"onnx": 1.25} if shape == "gpt2" else {"llama": 1.5}
            need["candle"] = 3.0
            yield Case(
                "Prompts, 124 M weights, f32", f"prompt {shape} {count} f32", f"{shape}, {count} tokens",
                flops=2 * count * BODY + 2 * HEAD + attention, need=need,
                others=("torch",) if shape == "gpt2" else (), unit=("tokens", count), tolerance=5e-3, slice=0.5, rounds=5,
                rank=int(count == 512),
            )
    for shape, kind, need in (("gpt2", "int8", {"onnx": 1.1}), ("llama", "q8_0", {"llama": 4.0})):
        for count in (128, 512):
            yield Case(
                "Prompts, 8-bit weights and activations", f"prompt {shape} {count} {kind}",
                f"{shape}, {count} tokens, {kind}", flops=2 * count * BODY + 2 * HEAD, ceiling="int8", need=need,
                unit=("tokens", count), tolerance=0.15, slice=0.5, rounds=5, rank=int(count == 512),
            )


def decoding():
    for kind, ratio in (("f32", 1.0), ("bf16", 1.3), ("f16", 1.3), ("q8_0", 1.2), ("q4_0", 1.7)):
        size = BYTES[kind] * (BODY + HEAD)
        yield Case(
            "Decoding after 128 tokens, 124 M weights", f"decode llama {kind}", f"llama, {kind}", bytes=size, ceiling="memory",
            need={"llama": ratio}, unit=("tokens", 1), tolerance=0.01 if "f" in kind else 0.15, slice=0.4, rounds=7,
            rank=int(kind == "f16"),
        )


def embedding():
    for texts, count in ((32, 20), (8, 128)):
        weights = 6 * (4 * 384 * 384 + 2 * 384 * 1536)
        yield Case(
            "Sentence embeddings, MiniLM", f"embed minilm {texts} {count}", f"{texts} texts of {count} tokens",
            flops=2.0 * texts * count * (weights + 6 * 2 * count * 384), need={"onnx": 1.0}, unit=("texts", texts),
            tolerance=1e-3, slice=0.3, rounds=9,
        )


def smollm2():
    """The language model of 135 million weights over its caches: 106 M of them in its layers."""
    body, head = 30 * (576 * 576 * 2 + 576 * 192 * 2 + 3 * 576 * 1536), 49152 * 576
    section = "SmolLM2-135M over its caches"
    for count, kind, need in ((128, "f32", 1.5), (512, "f32", 1.5), (128, "q8_0", 4.0), (512, "q8_0", 4.0)):
        yield Case(
            section, f"smollm2 prompt {count} {kind}", f"prompt of {count} tokens, {kind}",
            flops=2 * count * body + 2 * head, ceiling="flops" if kind == "f32" else "int8", need={"llama": need},
            unit=("tokens", count), tolerance=5e-3 if kind == "f32" else 0.15, slice=0.5, rounds=5, rank=int(count == 512),
        )
    for kind, need in (("f32", 1.0), ("bf16", 1.3), ("f16", 1.3), ("q8_0", 1.2), ("q4_0", 1.7)):
        for batch in (1, 16):
            yield Case(
                section, f"smollm2 decode {batch} {kind}", f"decoding {batch} text{'s' if batch > 1 else ''}, {kind}",
                bytes=BYTES[kind] * (body + head), ceiling="memory", need={"llama": need} if batch == 1 else {},
                others=("llama",) if batch > 1 else (), unit=("tokens", batch),
                tolerance=0.01 if "f" in kind else 0.15, slice=0.4, rounds=7, rank=int(batch > 1),
            )


def speech():
    yield Case(
        "Speech", "quartznet", "QuartzNet 15×5 encoder, 10 s", flops=18.9e9,
        need={"onnx": 1.8, "burn": 1.3, "candle": 15.0}, others=("torch",), unit=("s of sound", 10), tolerance=1e-3,
        slice=0.5, rounds=5,
    )
    yield Case(
        "Speech", "mel", "log-mel of 60 s", bytes=960_000 * 4 + 80 * 6001 * 4, ceiling="copy", need={"melspec": 1.2, "librosa": 10.0},
        threads=(1, 2), required_threads=(1, 2), unit=("s of sound", 60), tolerance=1e-3,
    )


def whisper():
    for size, label in (("tiny.en", "tiny.en"), ("base", "base's sizes, random weights")):
        for kind in ("f32", "int8"):
            # What is compared is how many tokens a window gets.
            yield Case(
                "Whisper, a minute of speech", f"whisper {size} {kind}", f"{label}, {kind}", need={"whisper": 1.0},
                unit=("s of sound", 60), tolerance=0.05, slice=0.5, rounds=5, rank=1,
            )


def rows():
    for what in ("softmax", "layer_norm", "rms_norm", "gelu", "cross_entropy"):
        yield Case(
            "Rows of 1,024 values, 64 MiB", f"rows {what} 1024", what, ceiling="copy", share=0.8,
            bytes=2.0**26 * (1 if what == "cross_entropy" else 2), others=("torch",), tolerance=1e-3, rank=1,
        )


def compilation():
    yield Case("Compilation, 32 layers", "compile", "trace, compile, bind, first run", most=0.05)
    yield Case("Compilation, 32 layers", "rebind", "bind to new sizes", most=1e-3, note="bind")


CASES = [
    *gemm(), *vectors(), *training(), *prompts(), *decoding(), *smollm2(), *embedding(), *speech(), *whisper(), *rows(),
    *compilation(),
]
