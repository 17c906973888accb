"""The report: tables of times, shares of the machine's limits and ratios, with what was asked."""

import datetime
import platform
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent


def run(*command):
    done = subprocess.run(command, cwd=HERE, text=True, capture_output=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def processor():
    for line in open("/proc/cpuinfo"):
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or "?"


def versions():
    """The versions of what was compared, from the lock file and the virtual environment."""
    found, name = {}, ""
    for line in (HERE / "Cargo.lock").read_text().splitlines():
        key, _, value = line.partition(" = ")
        if key == "name":
            name = value.strip('"')
        elif key == "version" and name in ("candle-core", "burn", "dfdx", "gemm", "mel_spec"):
            found[name] = value.strip('"')
    for path in sorted((HERE / "target").glob("venv/lib/*/site-packages/*.dist-info")):
        name, _, version = path.name.removesuffix(".dist-info").partition("-")
        if name in ("torch", "onnxruntime", "numpy", "llama_cpp_python"):
            found[name.replace("_", "-")] = version
    return ", ".join(f"{n} {v}" for n, v in sorted(found.items()))


def seconds(t):
    for unit, factor in (("s", 1), ("ms", 1e3), ("µs", 1e6)):
        if t * factor >= 1:
            return f"{t * factor:.3g} {unit}" if t * factor < 999.5 else f"{t * factor:.0f} {unit}"
    return f"{t * 1e9:.0f} ns"


def ceiling(case, threads, limits):
    """The ceiling in operations or bytes per second, and its name."""
    at = 0 if threads == 1 else 1
    if case.ceiling in ("flops", "int8", "copy"):
        rate = limits.get(case.ceiling) or [float("nan")] * 2
        return rate[at], {"flops": "FMA peak", "int8": "int8 peak", "copy": "copy"}[case.ceiling]
    # The level of the memory that the bytes stay in, with some room for what else is there.
    room = {"L2": limits.get("l2", 0) * threads, "L3": limits.get("l3", 0)}
    name = next((n for n, size in room.items() if case.bytes <= 0.8 * size), "DRAM")
    rate = next((r["rate"] for r in limits.get("read", []) if r["name"] == name), [float("nan")] * 2)
    return rate[at], name


def verdict(ratio, need, binding):
    """A ratio as text: bold where it is below what was asked."""
    text = f"{ratio:.2f}"
    if need is None or not binding:
        return text
    return f"{text} ≥ {need:g} ✓" if ratio >= need else f"**{text} < {need:g}**"


def row(case, record, result, peers):
    key = "best" if result.get("best") else "median"
    ours = record["peers"].get("ours", {})
    threads = record["threads"]
    binding = threads in case.required_threads
    if key not in ours:
        return [record["label"], str(threads), "–", "", "", *[""] * len(peers)], ["ours: " + ours.get("error", "?")], []
    time = ours[key]
    spread = (ours["high"] - ours["low"]) / ours["median"] * 100
    cells = [record["label"], str(threads), f"{seconds(time)} ± {spread:.0f} %"]
    rate = []
    if case.unit:
        rate.append(f"{case.unit[1] / time:,.0f} {case.unit[0]}/s")
    if case.flops:
        rate.append(f"{case.flops / time / 1e9:,.0f} GFLOP/s")
    if case.bytes and not case.flops:
        rate.append(f"{case.bytes / time / 1e9:,.1f} GB/s")
    cells.append(", ".join(rate))
    limit, name = ceiling(case, threads, result["limits"])
    work = case.flops if case.ceiling in ("flops", "int8") else case.bytes
    share = work / time / limit if work else float("nan")
    losses, notes = [], []
    if share == share:
        text = f"{share * 100:.0f} % of {name}"
        if case.share and binding:
            met = share >= case.share
            text = f"{text} ✓" if met else f"**{text} < {case.share * 100:.0f} %**"
            if not met:
                losses.append(f"{record['label']}, {threads} threads: {share * 100:.0f} % of {name}, {case.share * 100:.0f} % asked")
        cells.append(text)
    else:
        cells.append("")
    if case.most:
        met = time <= case.most
        cells[-1] = f"≤ {seconds(case.most)} ✓" if met else f"**> {seconds(case.most)}**"
        if not met and binding:
            losses.append(f"{record['label']}, {threads} threads: {seconds(time)}, at most {seconds(case.most)} asked")
    for p in peers:
        other = record["peers"].get(p)
        if other is None:
            cells.append("")
        elif key not in other:
            cells.append("–")
            notes.append(f"{p}, {record['label']}, {threads} threads: {other.get('error', 'no figure')}")
        else:
            ratio = other[key] / time
            need = case.need.get(p)
            doubt = "" if other.get("agrees") else " (results differ)"
            if doubt:
                notes.append(f"{p}, {record['label']}: results differ by {other.get('difference', float('nan')):.1e}, "
                             f"{case.tolerance:g} allowed")
            cells.append(verdict(ratio, need, binding) + doubt)
            if need and binding and ratio < need:
                most = f"; the machine's limit allows {ratio / share:.2f}" if share == share and 0 < share < 1 else ""
                losses.append(f"{record['label']}, {threads} threads, {p}: {ratio:.2f}, {need:g} asked{most}")
    return cells, notes, losses


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(r) + " |" for r in rows]


def limits_table(limits):
    if not limits:
        return []
    rate = lambda pair, unit: [f"{v / 1e9:,.0f} {unit}" for v in pair]
    rows = [["f32 multiply-add", *rate(limits["flops"], "GFLOP/s")]]
    if limits.get("int8"):
        rows.append(["8-bit dot products", *rate(limits["int8"], "GOP/s")])
    rows += [[f"read from {r['name']}", *rate(r["rate"], "GB/s")] for r in limits["read"]]
    rows.append(["copy, read and written", *rate(limits["copy"], "GB/s")])
    return ["## The machine's limits", "", *table(["", "1 thread", f"{limits['threads']} threads"], rows), ""]


def write_report(result, cases, path):
    by_name = {(c.section, c.name): c for c in cases}
    records = [r for r in result["records"] if (r["section"], r["case"]) in by_name]
    kind = "fastest runs" if result.get("best") else "medians; ± is the distance of the quartiles"
    out = [
        "# Results", "",
        "Written by `benches/peers/run.py`: this library and others on the same work and the same numbers, in turns, in",
        "one run. A ratio is a peer's time over ours: above 1 we are faster. Where a ratio or a share was asked for, it",
        "stands beside it; what is missed is bold. One thread: processor time; more: the clock on the wall.", "",
        f"* {datetime.date.today():%d %B %Y}, revision {run('git', 'rev-parse', '--short', 'HEAD') or '?'}, {run('rustc', '--version')}",
        f"* {processor()}, {result['limits'].get('threads', '?')} processors, load {open('/proc/loadavg').read().split()[0]} at the end; {kind}",
        f"* {versions()}",
        *[f"* `{c}`" for c in result["command"].split("\n")], "",
        *limits_table(result["limits"]),
    ]
    all_losses, all_notes = [], [f"{n} could not be built: {why}" for n, why in result["failed"].items()]
    for section in dict.fromkeys(r["section"] for r in records):
        mine = [r for r in records if r["section"] == section]
        peers = list(dict.fromkeys(n for r in mine for n in r["peers"] if n != "ours"))
        rows = []
        for r in mine:
            cells, notes, losses = row(by_name[r["section"], r["case"]], r, result, peers)
            rows.append(cells)
            all_notes += notes
            all_losses += [f"{section}: {l}" for l in losses]
        head = ["", "threads", "ours", "rate", "limit", *[f"÷ {p}" for p in peers]]
        out += [f"## {section}", "", *table(head, rows), ""]
        out += extra(mine)
    out += ["## What is missed", "", *([f"* {l}" for l in all_losses] or ["Nothing that was asked for."]), ""]
    if all_notes:
        out += ["## Left out", "", *[f"* {n}" for n in dict.fromkeys(all_notes)], ""]
    # What was planned by hand stays.
    before = path.read_text().split("\n## ")[1:] if path.exists() else []
    out += [f"## {text.rstrip()}\n" for text in before if "not measured" in text.split("\n")[0]]
    path.write_text("\n".join(out))
    print(f"wrote {path}")


def extra(records):
    """Memory: the arena against its lower bound, and what each process used at most."""
    lines = []
    for r in records:
        notes = r["peers"].get("ours", {}).get("notes") or {}
        if notes.get("lower_bound"):
            ratio = notes["arena"] / notes["lower_bound"]
            lines.append(f"Memory, {r['label']}, {r['threads']} threads: arena {notes['arena'] / 2**20:.1f} MiB, "
                         f"lower bound of its live set {notes['lower_bound'] / 2**20:.1f} MiB, "
                         + (f"ratio {ratio:.2f} ≤ 1.1 ✓." if ratio <= 1.1 else f"**ratio {ratio:.2f} > 1.1**."))
    return [*dict.fromkeys(lines), ""] if lines else []
