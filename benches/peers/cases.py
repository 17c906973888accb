"""What is compared, with whom, and what must hold: the table of requirements as data."""

from dataclasses import dataclass, field


@dataclass
class Case:
    section: str
    name: str  # what the peers are told to load
    label: str
    flops: float = 0.0  # of one run, for rates and the share of the peak
    bytes: float = 0.0  # read and written by one run at least, for bandwidths
    ceiling: str = "flops"  # flops, int8, copy, or a level of the memory
    share: float = 0.0  # of the ceiling, that must be reached
    need: dict = field(default_factory=dict)  # peer -> how many times faster we must be
    others: tuple = ()  # peers to show without a requirement
    names: dict = field(default_factory=dict)  # what a peer loads instead of `name`
    threads: tuple = (1, 2)
    required_threads: tuple = (2,)
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


CASES = [*gemm(), *training()]
