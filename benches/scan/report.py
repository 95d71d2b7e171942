"""Tables out of results.json: benches/scan/RESULTS.md in full, and the short ones in the README."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

GOALS = {"avx512": {"moments": 1.35, "rows": 1.6, "exact": 4.0}, "avx2": {"moments": 1.7}}
"""By the default I/O path at most so many times memory."""
FP8_GOAL = 5.0
"""FP8 is always counted exactly, for its moments too."""
DEFAULT_IO = "mmap"
"""What `io="auto"` is on a local file system."""
PEER_GOALS = {"torch-4": 10.0, "torch-12-chunked": 20.0, "torch-12": 100.0}
"""At least so many times our time."""
METHOD = """\
**Scan against plain read.** Each figure is the median of paired ratios [quartiles]: a scan and the fastest XOR of every
byte of the same files, in one process with as many threads. *÷ memory*: over a map that was faulted in before, which is
memory bandwidth alone, once per round; goals are of this. *÷ read*: by the same I/O path, right before or after. *mmap*
is the default: windows of a map since the commit "Scans read local files through windows of a map", maps of 8 MiB
before. CPU/wall below the thread count means that something else took a core. FP8 is always counted exactly.

**Peers.** Each runs in a warm process of its own beside ours, in alternating pairs; the figure is their time by ours.
Ours is `weightprint._core.scan` from opening the files to the finished columns."""
ISA_NAMES = {"avx512": "AVX-512", "avx2": "AVX2", "portable": "portable"}
START, END = "<!-- bench:start -->", "<!-- bench:end -->"


def goal(dtype: str, work: str, isa: str, io: str) -> float | None:
    """The goal for one case, if there is one."""
    if io != DEFAULT_IO:
        return None
    if dtype == "fp8":
        return FP8_GOAL if work in ("moments", "exact") else None
    return GOALS.get(isa, {}).get(work)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table: first column left, the rest right."""
    lines = [head, [":--"] + ["--:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(s: dict[str, Any]) -> str:
    """Median and quartiles, or the one value there is."""
    if s["n"] == 1:
        return f"{_short(s['median'])} (1 run)"
    return f"{_short(s['median'])} [{_short(s['low'])}–{_short(s['high'])}]"


def _short(x: float) -> str:
    return f"{x:.0f}" if x >= 100 else f"{x:.1f}" if x >= 10 else f"{x:.2f}"


def _mib(nbytes: float) -> str:
    return f"{nbytes / 2**20:.0f} MiB"


def full(results: dict[str, Any]) -> str:
    """RESULTS.md."""
    parts = [
        "# The scan, measured",
        "Written by `python -m benches.scan`; do not edit. Raw figures: results.json.",
        METHOD,
    ]
    for name, measured in results.items():
        parts += [f"## {name}", _software(measured["machine"])]
        for entry in measured["checkpoints"].values():
            parts += _checkpoint(entry)
    return "\n\n".join(parts) + "\n"


def machine_name(m: dict[str, Any]) -> str:
    """What a machine's figures stand under: those of another machine stand beside them."""
    return f"{m['cpu']}, {m['cores']} cores, {', '.join(ISA_NAMES[i] for i in m['isa'])}"


def _software(m: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in m["peers"].items())
    return f"{m['system']}, {m['rustc']}, Python {m['python']}; {versions}."


def _title(entry: dict[str, Any]) -> str:
    return f"{entry['model']}, {entry['size'] / 1e9:g} GB, {entry['dtype']}"


def _checkpoint(entry: dict[str, Any]) -> list[str]:
    reader = entry["plain_read"]
    readers = "; ".join(
        f"{io} {r['sweep']}" + (f", blocks of {r['block'] >> 10} KiB" if r["block"] else "") for io, r in reader.items()
    )
    about = (
        f"{entry['nbytes'] / 1e6:.0f} MB, {entry['elements'] / 1e6:.0f} million elements, {entry['threads']} threads,"
        f" {entry['date']}, load {entry['load_before']:.1f} before the run. Fastest plain reads: {readers}."
        f" Memory: {entry['held_gb_per_s']:.1f} GB/s."
    )
    if "note" in entry:
        about += f" **{entry['note']}**"
    head = ["workload, ISA, I/O", "÷ memory", "goal", "scan ÷ read", "GB/s", "read GB/s", "CPU/wall", "read CPU/wall"]
    parts = [f"### {_title(entry)}", about, table(head, (_case(entry["dtype"], c) for c in entry["cases"]))]
    parts.append(_memory(entry["memory"]))
    if entry["peers"]:
        head = ["peer", "what it answers", "their time ÷ ours", "pairs", "seconds", "ours", "CPU/wall", "peak RSS"]
        parts.append(table(head, (_peer(p) for p in entry["peers"])))
    return parts


def _case(dtype: str, c: dict[str, Any]) -> list[str]:
    limit = goal(dtype, c["work"], c["isa"], c["io"])
    cold = f" ({c['major_faults']} major faults)" if c["major_faults"] else ""
    return [
        f"{c['work']}, {ISA_NAMES[c['isa']]}, {c['io']}{cold}",
        spread(c["ratio_to_held"]),
        f"≤ {limit:g}" if limit else "",
        spread(c["ratio"]),
        f"{c['gb_per_s']:.1f}",
        f"{c['plain_gb_per_s']:.1f}",
        f"{c['cpu_per_wall']:.2f}",
        f"{c['plain_cpu_per_wall']:.2f}",
    ]


def _memory(memory: dict[str, Any]) -> str:
    core = ", ".join(f"{case} {_mib(rss)}" for case, rss in memory["core"].items())
    text = f"Peak RSS of the Rust scan alone: {core}. "
    stats = memory["stats"]
    if "failed" in stats:
        return text + f"`weightprint stats`: {stats['failed']}."
    return text + (
        f"`weightprint stats` as a whole: {_mib(stats['peak'])}, of which {_mib(stats['anon'])} its own and"
        f" {_mib(stats['file'])} mapped files; `weightprint --version`, which reads nothing:"
        f" {_mib(memory['import']['peak'])}."
        if "peak" in memory["import"]
        else f"`weightprint stats` as a whole: {_mib(stats['peak'])}."
    )


def _peer(p: dict[str, Any]) -> list[str]:
    if "failed" in p:
        return [p["peer"], p["question"], p["failed"].replace("|", "/"), "", "", "", "", ""]
    limit = PEER_GOALS.get(p["peer"])
    return [
        p["peer"],
        f"{p['question']} (against *{p['against']}*)",
        spread(p["ratio"]) + (f", goal ≥ {limit:g}" if limit else ""),
        str(p["ratio"]["n"]),
        _short(p["seconds"]["median"]),
        _short(p["our_seconds"]["median"]),
        f"{p['cpu_per_wall']:.2f}",
        _mib(p["peak_rss"]),
    ]


def short(results: dict[str, Any]) -> str:
    """The README's tables: for each machine one of the scan and one of the peers."""
    parts = [
        "Time of a scan of a warm file divided by the time in which as many threads XOR every byte of it once it is"
        " mapped: what memory alone takes. By the default I/O path; medians of interleaved runs. Quartiles, all"
        " figures, and how they were measured: [benches/scan/RESULTS.md](benches/scan/RESULTS.md)."
    ]
    for name, measured in results.items():
        entries = list(measured["checkpoints"].values())
        parts += [f"**{name}**", _short_table(entries)]
        with_peers = [e for e in entries if e["peers"]]
        if with_peers:
            head = ["time of others ÷ ours", *(_title(e) for e in with_peers), "peak RSS"]
            parts.append(table(head, _short_peers(with_peers)))
        notes: dict[str, list[str]] = {}
        for e in entries:
            if "note" in e:
                notes.setdefault(e["note"], []).append(f"{e['size'] / 1e9:g} GB {e['dtype']}")
        parts += [f"*{', '.join(about)}: {note}*" for note, about in notes.items()]
    return "\n\n".join(parts)


def _short_table(entries: list[dict[str, Any]]) -> str:
    """Rows: workloads with their instruction set, by the default I/O path. Columns: checkpoints."""
    head = ["scan ÷ memory", *(f"{e['size'] / 1e9:g} GB {e['dtype']}" for e in entries)]
    keys = dict.fromkeys((c["work"], c["isa"]) for e in entries for c in e["cases"] if c["io"] == DEFAULT_IO)
    rows = []
    for work, isa in keys:
        found = [
            next((c for c in e["cases"] if (c["work"], c["isa"], c["io"]) == (work, isa, DEFAULT_IO)), None)
            for e in entries
        ]
        rows.append([f"{work}, {ISA_NAMES[isa]}", *(_short(c["ratio_to_held"]["median"]) if c else "" for c in found)])
    stats = [e["memory"]["stats"] for e in entries]
    rows.append(["peak RSS of `weightprint stats`", *(_mib(s["peak"]) if "peak" in s else "" for s in stats)])
    return table(head, rows)


def _short_peers(entries: list[dict[str, Any]]) -> list[list[str]]:
    rows = []
    for i, peer in enumerate(entries[0]["peers"]):
        found = [next((p for p in e["peers"] if p["peer"] == peer["peer"]), None) for e in entries]
        cells = ["" if p is None else spread(p["ratio"]) if "ratio" in p else p["failed"].split(" (")[0] for p in found]
        rss = [p["peak_rss"] for p in found if p and "peak_rss" in p]
        rows.append([f"{peer['peer']}: {entries[0]['peers'][i]['question']}", *cells, _mib(max(rss)) if rss else ""])
    return rows


def update_readme(readme: Path, results: dict[str, Any]) -> None:
    """Put the short tables between the README's markers; raises ValueError if they are not there."""
    before, start, rest = readme.read_text().partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise ValueError(f"{readme} lacks {START} and {END}")
    readme.write_text(f"{before}{START}\n{short(results)}\n{END}{after}")
