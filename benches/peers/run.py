#!/usr/bin/env python3
"""Compares this library with others, side by side in one run.

    benches/peers/run.py                     build everything, measure everything, write the report
    benches/peers/run.py --only gemm,step    cases whose name contains one of these
    benches/peers/run.py --threads 2 --quick --no-report

    benches/peers/run.py --only whisper --whisper-venv VENV      with faster-whisper from another environment

Every peer is a process of its own (protocol/src/lib.rs says how they talk). For each case all peers
prepare the same work on the same numbers; then they take turns, a short slice of time each, so that
a clock that drifts or another program disturbs all alike. Results must agree before times count.
On one thread the time is the process's processor time, on more the clock on the wall. The report
holds medians, spreads and ratios, losses included. A peer that cannot be built or does not know a
case is reported, and the others go on. (`with_nemo.py` beside this file measures nothing: it checks our
archives with NeMo.)
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from cases import CASES
from report import write_report

HERE = Path(__file__).resolve().parent
TARGET = HERE / "target"
VENV = Path(os.environ.get("PEERS_VENV", TARGET / "venv"))
# Where faster-whisper is, if apart; `--whisper-venv` says otherwise.
WHISPER_VENV = Path(os.environ.get("WHISPER_VENV", VENV))

WHEELS = ["numpy", "librosa", "onnx", "onnxruntime", "gguf", "torch==2.11.0", "faster-whisper==1.2.1"]
LLAMA = "llama-cpp-python==0.3.36"
LLAMA_SETTINGS = "-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF -DMTMD_BUILD=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_EXAMPLES=OFF"

# name: (package, features) of a Rust peer, or the file of a Python peer
PEERS = {
    "ours": ("ours", ""),
    "gemm": ("peer-gemm", ""),
    "candle": ("peer-candle", "avx512"),
    "burn": ("peer-burn", ""),
    "dfdx": ("peer-dfdx", ""),
    "melspec": ("peer-melspec", ""),
    "torch": "torch_peer.py",
    "onnx": "onnx_peer.py",
    "numpy": "numpy_peer.py",
    "librosa": "librosa_peer.py",
    "llama": "llama_peer.py",
    "whisper": "whisper_peer.py",
}


def sh(command, **more):
    env = {**os.environ, **more.pop("env", {})}
    return subprocess.run(command, cwd=HERE, env=env, text=True, capture_output=True, **more)


def python(name=""):
    return (WHISPER_VENV if name == "whisper" else VENV) / "bin" / "python"


def build(names, only_look):
    """Builds what the peers need, unless it shall only look; gives the reasons of those that are not there."""
    failed = {}
    if not only_look:
        make(names, failed)
    if "whisper" in names and "whisper" not in failed:
        # The sound and the models that both sides read.
        try:
            done = sh([str(python("whisper")), str(HERE / "python" / PEERS["whisper"]), "prepare"])
            if done.returncode:
                failed["whisper"] = "prepare: " + last_line(done.stderr)
        except OSError as e:
            failed["whisper"] = f"{e}: `--whisper-venv` says where faster-whisper is"
    for name in names:
        if name not in failed and isinstance(PEERS[name], tuple) and not binary(name).exists():
            failed[name] = "not built"
    return failed


def make(names, failed):
    scripts = [n for n in names if isinstance(PEERS[n], str)]
    if scripts and not python().exists():
        sh([sys.executable, "-m", "venv", str(VENV)])
        done = sh([str(python()), "-m", "pip", "install", "-q", *WHEELS, "cmake", "ninja"])
        if done.returncode:
            failed.update({n: "pip: " + last_line(done.stderr) for n in scripts})
    if "llama" in names and not list(VENV.glob("lib/*/site-packages/llama_cpp")):
        env = {"CMAKE_ARGS": LLAMA_SETTINGS, "PATH": f"{VENV}/bin:{os.environ['PATH']}"}
        done = sh([str(python()), "-m", "pip", "install", "-q", LLAMA], env=env)
        if done.returncode:
            failed["llama"] = "pip: " + last_line(done.stderr)
    for name in names:
        if isinstance(PEERS[name], tuple):
            package, features = PEERS[name]
            done = sh(["cargo", "build", "--release", "-q", "-p", package, "--features", features,
                       "--target-dir", str(folder(name))])
            if done.returncode:
                failed[name] = "cargo: " + last_line(done.stderr)


def folder(name):
    """Ours is built apart: it changes often, and need not wait for the others' long builds."""
    return TARGET / "ours" if name == "ours" else TARGET


def binary(name):
    return folder(name) / "release" / PEERS[name][0]


def last_line(text):
    lines = [l for l in text.strip().splitlines() if l.strip()]
    return lines[-1][:200] if lines else "failed"


class Peer:
    def __init__(self, name, threads):
        self.name = name
        what = PEERS[name]
        command = [str(python(name)), str(HERE / "python" / what)] if isinstance(what, str) else [str(binary(name))]
        count = str(threads)
        env = {**os.environ, **{k: count for k in (
            "MOBILIS_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")}}
        self.log = open(TARGET / f"{name}-{threads}.log", "w")
        self.process = subprocess.Popen(
            command, cwd=HERE, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log)

    def ask(self, line):
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        return json.loads(answer) if answer else {"error": "the process ended"}

    def end(self):
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()


def quartiles(values):
    v = sorted(values)
    at = lambda q: v[min(len(v) - 1, int(q * (len(v) - 1) + 0.5))]
    return at(0.25), at(0.5), at(0.75)


def agreement(ours, theirs):
    """The largest difference against the largest value, infinite where there is nothing to compare."""
    if len(ours) != len(theirs) or not ours:
        return float("inf")
    top = max(abs(v) for v in theirs) or 1.0
    difference = max(abs(a - b) for a, b in zip(ours, theirs))
    return difference / top if difference == difference else float("inf")


def measure(case, peers, threads, args):
    """One case on one number of threads: a record for the report."""
    record = {"section": case.section, "case": case.name, "label": case.label, "threads": threads, "peers": {}}
    names = {n: case.names.get(n, case.name) for n in peers}
    wanted = [n for n in ["ours", *case.need, *case.others] if n in peers]
    ready = []
    for n in wanted:
        answer = peers[n].ask(f"load {names[n]}")
        record["peers"][n] = dict(answer)
        if "error" not in answer:
            ready.append(n)
    rounds = 3 if args.quick else case.rounds
    times = {n: {"wall": [], "cpu": []} for n in ready}
    for turn in range(rounds + 1):
        # Each goes first once, second once, ..: nobody always follows the same peer.
        for n in ready[turn % max(1, len(ready)):] + ready[:turn % max(1, len(ready))]:
            time.sleep(0.06)  # threads of the last one that still wait busily (OpenBLAS: 26 ms) go to sleep
            answer = peers[n].ask(f"run {0.0 if turn == 0 else case.slice} {names[n]}")
            if "error" in answer:
                record["peers"][n]["error"] = answer["error"]
            elif turn > 0:  # the first round warms up
                for clock in ("wall", "cpu"):
                    times[n][clock] += answer[clock]
    values = {}
    for n in ready:
        answer = peers[n].ask(f"values {names[n]}")
        entry = record["peers"][n]
        if "error" in answer or not times[n]["wall"]:
            entry.setdefault("error", answer.get("error", "no run"))
            continue
        values[n] = answer["values"]
        clock = "cpu" if threads == 1 else "wall"
        low, mid, high = quartiles(times[n][clock])
        if case.note and (answer.get("notes") or {}).get(case.note) is not None:
            mid = low = high = answer["notes"][case.note]
        entry |= {"median": mid, "low": low, "high": high, "best": min(times[n][clock]), "runs": len(times[n][clock]),
                  "peak_memory": answer["peak"], "notes": answer.get("notes")}
    for n in ready:
        peers[n].ask(f"drop {names[n]}")
        if n != "ours" and n in values and "ours" in values:
            record["peers"][n]["difference"] = agreement(values["ours"], values[n])
            record["peers"][n]["agrees"] = record["peers"][n]["difference"] <= case.tolerance
    return record


def show(record, case, best):
    key = "best" if best else "median"
    ours = record["peers"].get("ours", {}).get(key)
    words = []
    for n, p in record["peers"].items():
        if key not in p:
            words.append(f"{n}: {p.get('error', '?')[:60]}")
        elif n == "ours":
            work, unit = (case.flops, "GFLOP/s") if case.flops else (case.bytes, "GB/s")
            rate = f" {work / p[key] / 1e9:.1f} {unit}" if work else ""
            words.append(f"ours {p[key] * 1e3:.3f} ms{rate}")
        else:
            doubt = "" if p.get("agrees") else f" DIFFERS {p.get('difference', float('nan')):.1e}"
            words.append(f"{n} ×{p[key] / ours:.2f}{doubt}" if ours else f"{n} {p[key] * 1e3:.3f} ms")
    print(f"{record['label']:<34} {record['threads']}T  " + " | ".join(words), flush=True)


def limits():
    answer = sh([str(binary("ours")), "--limits"], env={"MOBILIS_THREADS": str(os.cpu_count())})
    return json.loads(answer.stdout) if answer.returncode == 0 else {}


def best_limits(a, b):
    """The better of two measurements, number by number: nothing but a disturbance makes one smaller."""
    if isinstance(a, list) and isinstance(b, list):
        return [best_limits(x, y) for x, y in zip(a, b)]
    if isinstance(a, dict) and isinstance(b, dict):
        return {k: best_limits(a[k], b.get(k, a[k])) for k in a}
    return max(a, b) if isinstance(a, (int, float)) and isinstance(b, (int, float)) else a


def profile(args):
    failed = build(["ours"], args.no_build)
    if failed:
        sys.exit(failed["ours"])
    for threads in map(int, args.threads.split(",")):
        ours = Peer("ours", threads)
        ours.ask(f"load {args.profile}")
        answer = ours.ask(f"profile {args.profile}")
        print(answer.get("profile") or answer.get("error"))
        ours.end()


def joined(files):
    """The figures of several runs; of a case measured twice the later counts."""
    parts = [json.loads(Path(f).read_text()) for f in files]
    records = {(r["section"], r["case"], r["threads"]): r for part in parts for r in part["records"]}
    result = {**parts[-1], "records": list(records.values()), "command": "\n".join(p["command"] for p in parts)}
    for part in parts:
        result["limits"] = best_limits(result["limits"], part["limits"])
    order = [(c.section, c.name) for c in CASES]
    result["records"].sort(key=lambda r: (order.index((r["section"], r["case"])), r["threads"]))
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose name or section contains one of these words, by commas")
    parser.add_argument("--peers", default="", help="only these peers, by commas")
    parser.add_argument("--threads", default=f"1,{os.cpu_count()}", help="numbers of threads, by commas")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, no large cases")
    parser.add_argument("--best", action="store_true", help="compare the fastest runs, for a machine that is not quiet")
    parser.add_argument("--no-build", action="store_true")
    parser.add_argument("--no-report", action="store_true", help="print only; so do --only, --peers and --quick")
    parser.add_argument("--profile", metavar="CASE", help="tell where our time goes in a case, instead of comparing")
    parser.add_argument("--from", dest="files", nargs="+", default=[], help="measure nothing: write the report from such files")
    parser.add_argument("--json", default=str(TARGET / "results.json"), help="where to write the figures")
    parser.add_argument("--whisper-venv", type=Path, help="an environment with faster-whisper, if it is not the peers' own")
    args = parser.parse_args()
    if args.whisper_venv:
        global WHISPER_VENV
        WHISPER_VENV = args.whisper_venv
    if args.files:
        return write_report(joined(args.files), CASES, HERE.parent / "RESULTS.md")
    if args.profile:
        return profile(args)
    only = [w for w in args.only.split(",") if w]
    chosen = [c for c in CASES if not only or any(w in c.name or w.lower() in c.section.lower() for w in only)]
    chosen = [c for c in chosen if not (args.quick and c.rank > 0)]
    asked = set(filter(None, args.peers.split(","))) | {"ours"} if args.peers else set(PEERS)
    names = [n for n in PEERS if n in asked and any(n == "ours" or n in c.need or n in c.others for c in chosen)]
    TARGET.mkdir(exist_ok=True)
    failed = build(names, args.no_build)
    for n, reason in failed.items():
        print(f"{n} is left out: {reason}", flush=True)
    names = [n for n in names if n not in failed]
    if "ours" not in names:
        sys.exit(1)
    ceilings, records, section = limits(), [], ""
    for threads in map(int, args.threads.split(",")):
        peers = {n: Peer(n, threads) for n in names}
        for case in chosen:
            if threads == 1 and 1 not in case.threads:
                continue
            if case.section != section:
                # Again and again: clocks and other programs change what can be reached.
                section, ceilings = case.section, best_limits(ceilings, limits())
            record = measure(case, peers, threads, args)
            show(record, case, args.best)
            records.append(record)
        for peer in peers.values():
            peer.end()
    ceilings = best_limits(ceilings, limits())
    result = {"limits": ceilings, "failed": failed, "records": records, "command": " ".join(["benches/peers/run.py", *sys.argv[1:]]),
              "best": args.best}
    Path(args.json).write_text(json.dumps(result, indent=1))
    if not (args.no_report or only or args.quick or args.peers):
        write_report(result, CASES, HERE.parent / "RESULTS.md")


if __name__ == "__main__":
    main()
