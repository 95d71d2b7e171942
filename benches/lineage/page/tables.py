"""The parts of the page, each from the numbers of :mod:`.summary`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..score.pair_table import Row
from ..score.pairs import RELATED, SHARED_INIT, UNRELATED
from .markdown import log10, number, percent, rate, scored_with, seconds, table
from .summary import GROUPS, SPOKEN_FROM, verdicts_of

Numbers = Mapping[str, Any]

VERDICTS = (
    "identical", "re_encoded", "shared_origin", "partly_shared", "shared_initialisation", "inconclusive", "no_evidence",
    "error",
)  # fmt: skip


def zoo(numbers: Numbers, about: Numbers) -> str:
    """What was compared."""
    z, pairs = about["zoo"], numbers["pairs"]
    sides = ", ".join(
        f"{side}: {c.get(RELATED, 0)} related, {c.get(UNRELATED, 0)} unrelated ({c['roots']} roots)"
        for side in ("test", "fit", "between")
        if (c := pairs[side])["roots"]
    )
    forms = ", ".join(f"{n} {form}" for form, n in sorted(z["forms"].items()))
    kinds = ", ".join(f"{n} {kind.replace('_', ' ')}" for kind, n in sorted(z["kinds"].items()))
    learned = [1 - r["bits"] / r["unigram_bits"] for r in z["roots"].values() if r["bits"] and r["unigram_bits"]]
    text = (
        f"{z['models']} models ({kinds}; {forms}) from {z['independent']} independent initialisations; "
        f"{pairs['n']} pairs: {pairs['all'].get(RELATED, 0)} related, {pairs['all'].get(UNRELATED, 0)} unrelated, "
        f"{pairs['all'].get(SHARED_INIT, 0)} with only an initialisation in common. By side: {sides}."
    )
    if learned:
        text += (
            f" Held-out loss of roots and students lies {percent(min(learned))} to {percent(max(learned))} below the"
            f" unigram entropy of their text."
        )
    return text


def methods(numbers: Numbers, side: str) -> str:
    """AUC and true positives of every method on one side."""
    found = {name: m for name, m in numbers["methods"].items() if side in m}
    if not found:
        return ""
    c = numbers["pairs"][side]
    rows = []
    for name, m in found.items():
        s = m[side]
        rows.append([
            name,
            rate(s["auc"]),
            rate(s["tpr"]["0.01"], True),
            rate(s["tpr"]["0.001"], True),
            percent(s["applied_related"]),
            percent(s["applied_unrelated"]),
            _highest(s),
            str(s["auc"]["pairs"]),
        ])  # fmt: skip
    head = ["method", "AUC", "TPR at 1 %", "TPR at .1 %", "applies: related", "unrelated", "highest stranger", "pairs"]
    words = {"all": "All pairs", "test": "Test side", "fit": "Fit side"}[side]
    return (
        f"{words}: {c.get(RELATED, 0)} related and {c.get(UNRELATED, 0)} unrelated pairs of {c['roots']} independent "
        f"roots.\n\n{table(head, rows)}"
    )


def _highest(s: Numbers) -> str:
    return number(s["unrelated_highest"][0][2]) if s["unrelated_highest"] else "–"


def footnotes(numbers: Numbers, about: Numbers) -> str:
    """What the table's names mean, and what did not run."""
    lines = [
        "`weightprint` ranks by its verdict, then −log10 p; `weightprint.TEST` is one of its tests alone (−log10 p"
        " where it has one), as stored, without alignments. The rest are published measures, as the package carries"
        " them, and other tools."
    ]
    for name, version in about["peers"].items():
        lines.append(f"{name}: version {version}, in its own interpreter, offline, on local folders.")
    for name, m in about["methods"].items():
        if name not in about["peers"] and m["code"]:
            lines.append(f"{name} was scored with {scored_with(m['code'])}.")
    if kept := about.get("kept"):
        lines.append(
            f"Kept from an earlier run, on the models of an earlier training of the same zoo: {', '.join(kept)}."
        )
    for name, why in about["peers_missing"].items():
        lines.append(f"{name} was not run: {why}.")
    for name, m in numbers["methods"].items():
        if m["why_not"] and "." not in name and name != "weightprint":
            reasons = "; ".join(f"{why} ({n})" for why, n in m["why_not"].items())
            lines.append(f"{name} does not apply to {sum(m['why_not'].values())} of {m['n']} pairs: {reasons}.")
    return "\n".join(f"- {line}" for line in lines)


def decisions(numbers: Numbers) -> str:
    """Rates of the tool's own words; no threshold of ours."""
    rows = []
    for side, relations in numbers["verdicts"].items():
        for relation, r in relations.items():
            rows.append([
                f"{side}: {relation.replace('_', ' ')}", rate(r["claimed"], True), rate(r["inconclusive"], True),
                rate(r["no_evidence"], True), str(r["claimed"]["pairs"]), str(r["claimed"]["roots"]),
            ])  # fmt: skip
    head = ["side and relation", "called related", "inconclusive", "no evidence", "pairs", "roots"]
    parts = [table(head, rows)]
    for name, m in numbers["methods"].items():
        if "called" in m:
            shares = ", ".join(f"{hit} of {n} {rel.replace('_', ' ')}" for rel, (hit, n) in m["called"].items() if n)
            parts.append(f"{name}, by its own thresholds, calls related: {shares} pairs.")
    return "\n\n".join(parts)


def verdict_table(numbers: Numbers, groups: Sequence[str]) -> str:
    """Rows: kinds and operations; columns: verdicts that occur."""
    chosen = [r for r in numbers["verdict_table"] if r["group"] in groups]
    if not chosen:
        return ""
    columns = [v for v in VERDICTS if any(v in r["verdicts"] for r in chosen)]
    rows = [
        [
            (f"{r['group']}: {r['name']}" if len(groups) > 1 else r["name"]).replace("_", " "),
            *(str(r["verdicts"].get(v, "")) for v in columns),
            number(r["share"], 2),
            str(r["pairs"]),
            str(r["roots"]),
        ]
        for r in chosen
    ]
    return table(["", *(v.replace("_", " ") for v in columns), "median share", "pairs", "roots"], rows)


def washed(numbers: Numbers) -> str:
    """The misses by how long the two had been trained apart."""
    found = numbers.get("washing")
    if not found:
        return ""
    rows = [
        [
            r["band"],
            str(r["pairs"]),
            str(r["roots"]),
            rate(r["claimed"], True),
            log10(r["median_log10_p"]),
            number(r["median_share"], 2),
        ]
        for r in found
    ]
    head = ["training apart ÷ root's own", "pairs", "roots", "called related", "median log10 p", "median share"]
    return table(head, rows)


def maps(numbers: Numbers) -> str:
    """Layer map, expert map, direction."""
    rows = []
    for what, m in numbers["maps"].items():
        if m:
            rows.append(
                [f"{what}: whole map exact", rate(m["exact"], True), str(m["exact"]["pairs"]), str(m["exact"]["roots"])]
            )
            if m["exact_where_claimed"]:
                e = m["exact_where_claimed"]
                rows.append(
                    [f"{what}: exact, of pairs called related", rate(e, True), str(e["pairs"]), str(e["roots"])]
                )
            rows.append([f"{what}: rows right", percent(m["rows_right"]), "", ""])
    for what, r in (numbers["direction"] or {}).items():
        if r:
            rows.append([f"direction: {what.replace('_', ' ')}", rate(r, True), str(r["pairs"]), str(r["roots"])])
    return table(["", "share", "pairs", "roots"], rows) if rows else ""


def operations(numbers: Numbers) -> str:
    """Naming what was done."""
    rows = [
        [
            o["name"],
            *(str(o[key]) for key in ("pairs", "roots", "named", "named_kin", "named_elsewhere")),
            f"{o['parameters_right']} of {o['parameters_told']}" if o["parameters_told"] else "–",
        ]
        for o in numbers["operations"]
    ]  # fmt: skip
    if not rows:
        return ""
    head = ["operation", "done in pairs", "roots", "named there", "as a kin", "named elsewhere", "parameters right"]
    words = (
        "Descent pairs with B the later one; a chain counts each of its steps. *As a kin*: not the step, but another "
        "that leaves the same trace was named (training of any length and purpose, and merges with a model that is not "
        "there; changed names of any kind).\n\n"
    )
    return words + table(head, rows)


def failures(numbers: Numbers) -> str:
    """For every method of others: what it gets wrong, with the pairs' names."""
    parts = []
    for name, m in numbers["methods"].items():
        if name.startswith("weightprint") or "all" not in m:
            continue
        parts.append(f"**{name}.** {_failure(name, m)}")
    return "\n\n".join(parts)


def _failure(name: str, m: Numbers) -> str:
    s = m["all"]
    said = []
    spoken = SPOKEN_FROM.get(name)
    strangers = [x for x in s["unrelated_highest"] if x[2] is not None]
    if spoken is not None:
        strange, kin = s["above"]["unrelated"], s["above"]["related"]
        said.append(
            f"Read as a common origin from {spoken:g} on, it names {strange[0]} of {strange[1]} unrelated pairs and "
            f"misses {kin[1] - kin[0]} of {kin[1]} related ones."
        )
    if strangers:
        said.append("Highest between strangers: " + _listed(strangers[:3]) + ".")
    threshold, tpr = s["thresholds"]["0.01"], s["tpr"]["0.01"]["value"]
    if threshold is not None and tpr is not None:
        said.append(f"Held to 1 % false alarms (score ≥ {threshold:.3g}) it finds {percent(tpr)} of the related pairs.")
    elif tpr is not None:
        said.append("No score keeps false alarms to 1 %.")
    if s["missed_by_step"]:
        shown = list(s["missed_by_step"].items())
        words = ", ".join(f"{step.replace('_', ' ')} {hit} of {n}" for step, (hit, n) in shown[:14])
        said.append(f"Missed at that line: {words}{', and others' if len(shown) > 14 else ''}.")
    lowest = [x for x in s["related_lowest"] if x[2] is not None]
    if lowest:
        said.append("Lowest between kin: " + _listed(lowest[:3]) + ".")
    if s["applied_related"] is not None and s["applied_related"] < 0.999:
        said.append(f"It can't be asked of {percent(1 - s['applied_related'])} of the related pairs.")
    return " ".join(said)


def _listed(items: Iterable[Sequence[Any]]) -> str:
    return ", ".join(
        f"`{a}` and `{b}` {x:.3g} ({strength or kind.replace('_', ' ')})" for a, b, x, kind, strength in items
    )


def own_failures(numbers: Numbers) -> str:
    """Strangers called related, and kin that was not seen."""
    false, missed = numbers["false_claims"], numbers["misses"]
    parts = [
        "No pair of strangers was called related."
        if not false
        else f"**{len(false)} pairs of strangers were called related:**\n\n" + _pair_table(false[:30], ("kind",))
    ]
    if missed:
        parts.append(
            f"**{len(missed)} related pairs were not called related**, the ones trained apart least first"
            f"{' (30 of them)' if len(missed) > 30 else ''}:\n\n" + _pair_table(missed[:30], ("steps", "training"))
        )
    else:
        parts.append("No related pair was missed.")
    return "\n\n".join(parts)


def _pair_table(rows: Iterable[Numbers], columns: Sequence[str]) -> str:
    def cell(row: Numbers, key: str) -> str:
        value = row[key]
        if key == "steps":
            return " → ".join(value) or "siblings"
        return number(value, 2) if isinstance(value, float) else str(value).replace("_", " ")

    body = [[f"{r['a']} / {r['b']}", *(cell(r, c) for c in columns), r["verdict"], log10(r["log10_p"])] for r in rows]
    names = {"steps": "operations", "training": "training apart"}
    return table(["pair", *(names.get(c, c) for c in columns), "verdict", "log10 p"], body)


def calibration(found: Numbers) -> str:
    """Observed P(p <= alpha) between strangers for every test that claims a p-value."""
    if not found:
        return ""
    alphas = [level["alpha"] for level in next(iter(found.values()))["levels"]]
    rows = []
    for name, c in found.items():
        cells = [
            f"{x['hits'] / x['n']:.2g}{'!' if x['log10_tail'] < -3 else ''}" if x["hits"] else "0" for x in c["levels"]
        ]
        rows.append(
            [
                name,
                str(c["n"]),
                *cells,
                f"{c['ks']:.3f}",
                f"{c['ks_p']:.2g}",
                log10(c["smallest_log10_p"]),
                percent(c["share_at_one"]),
            ]
        )
    head = ["test", "pairs", *(f"P(p ≤ {a:g})" for a in alphas), "KS, one-sided", "its p", "smallest log10 p", "p = 1"]
    return (
        "Unrelated pairs only. A sound test has at most α in the column of α; `!` marks an excess that a sound test"
        " would show less than once in a thousand. A test in an alignment (`@`; `*`: found through shared tokens, where"
        " p is not one against shared training data) is run only where one was worth a look; the other pairs count with"
        " p = 1. The KS number is the largest excess of small p-values.\n\n" + table(head, rows)
    )


_FEW_RANKS = 50  # fewer say nothing of uniformity


def uniformity(found: Numbers) -> str:
    """Two-sided Kolmogorov-Smirnov test of the ranks of every test."""
    if not found:
        return ""
    rows = [
        [name, str(u["n"]), f"{u['lowest']:.3f}", f"{u['highest']:.3f}", f"{u['ks']:.3f}", f"{u['ks_p']:.2g}"]
        for name, u in found.items()
        if u["n"] >= _FEW_RANKS
    ]
    if not rows:
        return ""
    return (
        "Ranks of B among permuted copies of itself, ties broken at random (`rank_p`): uniform on (0, 1) if the null "
        "of the test holds; in the zoo one pair for every two initialisations, as others are not independent.\n\n"
        + table(["test", "pairs", "lowest 5 %", "highest 5 %", "KS, two-sided", "its p"], rows)
    )


_POPULATIONS = {
    "synthetic": "Synthetic strangers with realistic structure",
    "zoo": "Independently initialised and trained models of the zoo",
    "rotations": "Strangers of the zoo, alignments of the residual channels tried",
    "fitted": "Strangers of the zoo, a signed permutation and a rotation fitted to each pair through shared tokens",
    "sceptr": "Twelve published encoders (SCEPTR)",
}


def calibration_page(found: Numbers) -> str:
    """What `calibrate` found, population by population."""
    parts = []
    for name, c in found.items():
        parts.append(f"### {_POPULATIONS[name]}")
        verdicts = ", ".join(f"{v.replace('_', ' ')} {n}" for v, n in sorted(c["verdicts"].items()))
        text = f"{c['pairs']} pairs{' of ' + str(c['roots']) + ' roots' if 'roots' in c else ''}; verdicts: {verdicts}."
        if c["claims"]:
            text += (
                " Called more than strangers: "
                + ", ".join(
                    f"`{key.replace(' ', '` and `')}` ({v.replace('_', ' ')}, log10 p {log10(p)})"
                    for key, v, p in c["claims"][:20]
                )
                + "."
            )
        if "kinds" in c:
            text += " Of these " + ", ".join(f"{n} {kind.replace('_', ' ')}" for kind, n in sorted(c["kinds"].items()))
            text += (
                f". An alignment of the residual channels was looked for in {c['searched']}." if c["searched"] else "."
            )
        how = "found worth testing" if c.get("searched") else "fitted, and the tests run in it,"
        for basis, kinds in c.get("aligned", {}).items():
            total = ", ".join(f"{n} {kind.replace('_', ' ')}" for kind, n in sorted(kinds.items()))
            text += f" A {basis.replace('_', ' ')} was {how} on {sum(kinds.values())} of them ({total})."
        if c.get("code"):
            text += f" Scored with {scored_with(c['code'])}."
        parts += [text, calibration(c["tests"]), uniformity(c.get("uniform", {}))]
    return "\n\n".join(part for part in parts if part)


def real_size(rows: Sequence[Row]) -> str:
    """weightprint on models of real size: verdicts by operation, and seconds."""
    if not rows:
        return ""
    answered = [r for r in rows if "weightprint" in r]
    times = sorted(r["methods"]["weightprint"]["seconds"] or 0.0 for r in answered)
    largest = max(sum(r["parameters"]) for r in answered) / 1e6
    text = (
        "SmolLM2-135M put through every training-free operation (`python -m benches.lineage real-scale DIR --score`), "
        f"each descendant against its parent: {len(answered)} pairs, up to {largest:.0f} million parameters "
        f"together; median {seconds(times[len(times) // 2])}, longest {seconds(times[-1])} per pair."
    )
    return "\n\n".join(["## At real size", text, verdict_table({"verdict_table": verdicts_of(rows)}, tuple(GROUPS))])


def large(found: Sequence[Mapping[str, Any]]) -> str:
    """What `budget` measured at the shapes of large models."""
    if not found:
        return ""
    rows = [
        [
            ", ".join([m["a"], m["b"], *(["from disk"] if m.get("cold") else []), *m.get("notes", [])]),
            f"{m['bytes'] / 1e9:.1f} GB",
            str(m["verdict"]).replace("_", " "),
            seconds(sum(m["scan"]) / 2),
            seconds(m["seconds"]),
            seconds(m["gemm"]),
            f"{2 * (m['seconds'] - m['gemm']) / sum(m['plain']):.1f}",
            f"{m['read'] / 1e9:.1f} GB",
            f"{m['peak'] / 1e9:.2f} GB",
        ]
        for m in found
    ]
    head = ["pair", "both files", "verdict", "scan of both", "compare", "of it linear algebra"]
    head += ["the rest ÷ plain read of both", "read", "peak memory"]
    return (
        "## At the shapes of large models\n\n"
        "Synthetic roots with realistic structure and a child of each (`big-shapes`), one comparison at effort "
        "standard in a process of its own (`budget`, two threads):\n\n" + table(head, rows)
    )


def times(numbers: Numbers, about: Numbers) -> str:
    """Median seconds per pair."""
    machine, read = about["machine"], numbers.get("bytes")
    size = (
        f" `weightprint` reads {read['median']:.1f} times the size of both files (median; at most {read['most']:.0f}): "
        "once for digests, then samples, which in models this small are whole tensors."
        if read
        else ""
    )
    rows = [
        [name, seconds(m["seconds"]), str(m["n"])] for name, m in numbers["methods"].items() if m["seconds"] is not None
    ]
    return (
        f"{machine['cpu']}, Python {machine['python']}, numpy {machine['numpy']}, one thread per process. "
        "`weightprint` is the whole command's work, from opening the files to the verdict; its tests and the published "
        "measures are timed on open models; the other tools with what they take of each model, less their start. Wall "
        "seconds of a machine that did other work beside: read them against each other."
        f"{size}\n\n" + table(["method", "median per pair", "pairs"], rows)
    )
