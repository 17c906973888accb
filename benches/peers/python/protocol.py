"""What a peer and run.py say to each other: see protocol/src/lib.rs, which this file repeats."""

import functools
import json
import sys
import time

import numpy as np


def uniform(name, sizes, scale):
    """Numbers in -scale..scale that depend on a name and an index alone."""
    seed = 0x811C9DC5
    for byte in name.encode():
        seed = ((seed ^ byte) * 0x01000193) & 0xFFFFFFFF
    h = np.arange(int(np.prod(sizes)), dtype=np.uint32) * np.uint32(0x9E3779B9)
    h ^= np.uint32(seed)
    h ^= h >> np.uint32(16)
    h *= np.uint32(0x85EBCA6B)
    h ^= h >> np.uint32(13)
    h *= np.uint32(0xC2B2AE35)
    h ^= h >> np.uint32(16)
    unit = (h >> np.uint32(8)).astype(np.float32) / np.float32(8388608) - np.float32(1)
    return (unit * np.float32(scale)).reshape(sizes)


@functools.lru_cache(maxsize=None)
def weight(name, sizes):
    """A parameter's first value by its name and sizes (a tuple or a number)."""
    sizes = (sizes,) if isinstance(sizes, int) else sizes
    if name.endswith("bias") or name.endswith("running_mean"):
        return np.zeros(sizes, np.float32)
    if "norm" in name or name.endswith("running_var"):
        return np.ones(sizes, np.float32)
    if "embed" in name or "positions" in name:
        return uniform(name, sizes, 0.1)
    fan_in = int(np.prod(sizes[1:]))
    return uniform(name, sizes, np.sqrt(np.float32(3) / np.float32(fan_in)))


def tokens(name, sizes, vocab):
    """Token numbers below vocab."""
    unit = (uniform(name, sizes, 1.0) + np.float32(1)) * np.float32(0.5) * np.float32(vocab)
    return np.minimum(unit.astype(np.int32), vocab - 1)


def quartznet_blocks():
    """Names, widths and taps of the residual blocks of QuartzNet 15x5."""
    groups = [("a", 256, 33, 3), ("b", 256, 39, 3), ("c", 512, 51, 2), ("d", 512, 63, 3), ("e", 512, 75, 3)]
    for group, width, taps, count in groups:
        if group == "c":
            yield "c_first", 256, 512, taps
        for i in range(count):
            yield f"{group}.{i}", width, width, taps


def samples(values):
    """At most 64 values spread over all, and the mean of the magnitudes of all."""
    flat = np.asarray(values, dtype=np.float32).reshape(-1)
    step = max(1, -(-flat.size // 64))
    return [float(v) for v in flat[::step]] + [float(np.abs(flat).mean(dtype=np.float64))]


def peak():
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def timed(run, seconds):
    wall, cpu = [], []
    begin = time.perf_counter()
    while not wall or (time.perf_counter() - begin < seconds and len(wall) < 2000):
        start, used = time.perf_counter(), time.process_time()
        run()
        cpu.append(time.process_time() - used)
        wall.append(time.perf_counter() - start)
    return {"wall": wall, "cpu": cpu}


def serve(load):
    """Answers commands until the input ends. load(words) gives (run, values)."""
    cases = {}
    out = sys.stdout
    sys.stdout = sys.stderr  # what libraries print is not an answer
    for line in sys.stdin:
        command, _, rest = line.rstrip("\n").partition(" ")
        try:
            if command == "load":
                start = time.perf_counter()
                cases[rest] = load(rest.split(" "))
                answer = {"setup": time.perf_counter() - start}
            elif command == "run":
                seconds, _, name = rest.partition(" ")
                answer = timed(cases[name][0], float(seconds))
            elif command == "values":
                answer = {"values": samples(cases[rest][1]()), "peak": peak()}
            elif command == "drop":
                cases.pop(rest, None)
                answer = {}
            else:
                answer = {"error": f"`{command}` is no command"}
        except Exception as e:  # a case that fails must not end the others
            answer = {"error": f"{type(e).__name__}: {e}".splitlines()[0][:300]}
        out.write(json.dumps(answer) + "\n")
        out.flush()
