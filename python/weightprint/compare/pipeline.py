"""From two checkpoints to the evidence: outline both, measure what the effort allows, run the tests.

    quick      samples of rows, less than 2 % of the bytes of a large model; nothing is read whole, so nothing is called
               equal but a file and itself, and no alignment is looked for
    standard   one pass over both files, block by block: digests, spreads, and what looks at every block; then the other
               tests on samples
    full       the same, with every block, alignment and pair of blocks at full width

The tests first run in the bases as stored. Where that does not find every block of B in A, alignments of the residual
channels are looked for (:mod:`weightprint.evidence.alignment.search`), and the tests that need a common basis run again
in each; every p-value found there pays for the number of alignments that were tried.
"""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

from weightprint.anatomy.anatomy import Anatomy
from weightprint.checkpoint.checkpoint import Checkpoint
from weightprint.evidence.alignment.search import find_bases
from weightprint.evidence.evidence import Evidence
from weightprint.evidence.pair import Basis, Block, ModelPair
from weightprint.evidence.pairing import pair_by_name, pair_tensors
from weightprint.evidence.test import Test
from weightprint.evidence.tests import BASIS_FREE, COLLECTORS, TESTS
from weightprint.evidence.thresholds import LOG10_P
from weightprint.evidence.unit_agreement import found_in_place
from weightprint.fingerprint.build import Examined, measured, outlined, subsampled
from weightprint.fingerprint.ffns import ffns
from weightprint.fingerprint.live import finite_view
from weightprint.fingerprint.steps import Collector
from weightprint.util import parallel
from weightprint.util.linear_algebra import accounted
from weightprint.util.progress import Meter, Progress, phase
from weightprint.verdict.facts import Facts, may_decide
from weightprint.verdict.withheld import qualified

__all__ = ["examine", "gather"]


_BASES = 2  # alignments that the tests are run again in, best first


def examine(
    a: Checkpoint | Anatomy,
    b: Checkpoint | Anatomy,
    effort: str = "standard",
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[Examined, Examined, ModelPair]:
    """Outline and measure both, and pair their tensors. ``progress(bytes done, bytes in all)`` runs with the scans."""
    first, second = outlined(a, "a"), outlined(b, "b")
    collectors: list[Collector] = []
    if effort == "quick":
        first, second = (replace(x, side=subsampled(x.side)) for x in (first, second))
    else:
        # Where a tensor is cut out of another or decoded, equal values no longer have equal bytes: then digests are of
        # values.
        by_value = first.reads.cuts or second.reads.cuts
        meter = Meter(progress, sum(x.anatomy.checkpoint.n_bytes for x in (first, second)))
        named = pair_by_name(first.side, second.side)
        pairs = tuple(named[name] for name in second.side.tensors if name in named)
        in_place = frozenset[Block]() if effort == "full" else None  # at first, where not all pairs are wanted anyway
        outlines = ModelPair(first.side, second.side, pairs, 0.0, seed, effort, settled=in_place)
        collectors = [look for collector in COLLECTORS if (look := collector(outlines)) is not None]
        second = measured(second, by_value, collectors, meter)
        for look in collectors:
            look.turn()
        first = measured(first, by_value, collectors, meter)
    pairs, log10_pairings = pair_tensors(first.side, second.side)
    models = ModelPair(first.side, second.side, pairs, log10_pairings, seed, effort, collectors=collectors)
    return first, second, replace(models, one_file=effort == "quick" and _one_file(first.anatomy, second.anatomy))


def _one_file(a: Anatomy, b: Anatomy) -> bool:
    """The same files, in the same order, by device and inode: links to a model are the model."""
    ours, theirs = ([os.stat(file.path) for model in side.checkpoints for file in model.files] for side in (a, b))
    return [(s.st_dev, s.st_ino) for s in ours] == [(s.st_dev, s.st_ino) for s in theirs]


def gather(models: ModelPair, tests: Sequence[Test] = TESTS) -> tuple[Evidence, ...]:
    """Every test's answer, in the order of the report: as stored first, then in each alignment that was found."""
    phase("units, heads, channels")
    exact, models = models, replace(models, a=finite_view(models.a), b=finite_view(models.b))
    models = replace(models, settled=found_in_place(models))
    exact = replace(exact, settled=models.settled)
    stored = [test for test in tests if "stored" in test.bases]
    first = [test for test in stored if test.exact_values or test.cost == "alone"]
    answers = {test: test(exact if test.exact_values else models) for test in first}
    others = sorted((test for test in stored if test not in answers), key=lambda test: test.cost != "long")
    answers |= zip(others, parallel.each(lambda test: test(models), others, ahead=len(others)), strict=True)
    evidence = [answers[test] for test in stored]
    if not _settled_stands(models, evidence):
        models = replace(models, settled=frozenset())
        again = {test: test(models) for test in stored if test.in_place_first}
        evidence = [again.get(test, answers[test]) for test in stored]
    withheld = {e.test for e in qualified(evidence) if e.withheld}
    evidence += [test(models) for test in tests if withheld.intersection(test.confirms)]
    models.collectors.clear()  # they are of the basis as stored, and hold samples of both models
    if models.effort == "full" or (models.effort == "standard" and not _all_found(models, evidence)):
        models = replace(_of_one_width(models), settled=frozenset())
        started = time.perf_counter()
        with accounted() as spent:
            bases = find_bases(models, next((e for e in evidence if e.test == "unit_geometry" and e.applied), None))
        evidence.append(_search(bases, time.perf_counter() - started, spent.seconds))
        for basis in [found for found in bases if found.kind != "identity"][:_BASES]:
            evidence += _in(replace(models, basis=basis), [test for test in tests if "found" in test.bases])
        if models.effort == "full" or not _all_found(models, evidence):
            evidence += [test(models) for test in tests if "own" in test.bases]
    return qualified(evidence)


def _in(models: ModelPair, tests: Sequence[Test]) -> list[Evidence]:
    """The tests in a basis that was found, refined by those that decide there."""
    basis = models.basis
    found = [replace(test(models), basis=basis.kind, semantic=basis.semantic) for test in tests]
    decided = [e for e in found if may_decide(e) and (e.log10_p or 0.0) <= LOG10_P]
    return [
        e if test.refined is None else test.refined(models, e, decided) for test, e in zip(tests, found, strict=True)
    ]


_SEARCH = Evidence(
    test="alignment",
    asked="Can B's residual channels be brought onto A's by a permutation, sign flips or a rotation?",
    applied=True,
    null="none: it looks for a basis; the tests that run in it decide, and pay for the number tried",
    assumes="nothing: it decides nothing",
    blind_to="turned copies that kept neither unit order nor vocabulary and were trained far away",
    statistic_of="share of hidden units that agree in the best basis, on blocks that it was not fitted on",
    effect_of="the same",
)


def _search(bases: list[Basis], seconds: float, gemm_seconds: float) -> Evidence:
    """What the search for alignments saw, as an entry of the report."""
    tried = max((basis.candidates for basis in bases), default=0)
    kept = {f"{b.kind} by {b.found_by}": dict(b.scores) for b in bases if b.kind != "identity"}
    share = max((scores.get("share", 0.0) for scores in kept.values()), default=0.0)
    found = f"the best aligns {share:.0%} of the units it was tested on" if kept else "none aligns anything"
    return replace(
        _SEARCH,
        says=f"{tried} ways to bring the residual channels together were tried; {found}",
        statistic=share,
        effect=share,
        n=tried,
        details={"found": kept},
        seconds=seconds,
        gemm_seconds=gemm_seconds,
    )


def _of_one_width(models: ModelPair) -> ModelPair:
    """The stacks of each side that share its commonest residual width: a basis is of one stream, not of a tower beside
    it."""
    sides = []
    for side in (models.a, models.b):
        sizes: Counter[int] = Counter()
        widths: dict[str, set[int]] = defaultdict(set)
        for ffn in ffns(side):
            sizes[ffn.width] += ffn.numel
            widths[ffn.stack].add(ffn.width)
        main = max(sizes, key=lambda width: sizes[width], default=0)
        other = {stack for stack, found in widths.items() if found != {main}}
        kept = {n: t for n, t in side.tensors.items() if t.place is None or t.place.stack not in other}
        sides.append(replace(side, tensors=kept))
    a, b = sides
    pairs = tuple(p for p in models.pairs if p.a.name in a.tensors and p.b.name in b.tensors)
    return replace(models, a=a, b=b, pairs=pairs)


def _settled_stands(models: ModelPair, evidence: list[Evidence]) -> bool:
    """Blocks that were found in place are found by what the tests together say too; a common mask, say, keeps the look
    in place out of the verdict."""
    facts = Facts(models, tuple(qualified(evidence)))
    return not models.settled or facts.equal_both_ways or models.settled <= {key[:2] for key in facts.blocks}


def _all_found(models: ModelPair, evidence: list[Evidence]) -> bool:
    """Every block of B has its counterpart in the basis as stored, so no alignment is needed to see more.

    What only a test found that needs no common basis may still be turned.
    """
    facts = Facts(models, tuple(evidence))
    if facts.equal_both_ways:
        return True
    listed = {(f.stack, f.block) for f in ffns(models.b)}
    return bool(listed) and listed <= {key[:2] for key, found in facts.blocks.items() if found.test not in BASIS_FREE}
