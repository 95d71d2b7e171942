"""The rules, in one table read top to bottom: the first that holds decides. Each line names the tests it reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from weightprint.evidence.tests import DECIDING
from weightprint.verdict import wording
from weightprint.verdict.facts import Facts
from weightprint.verdict.power import lacks
from weightprint.verdict.thresholds import Limits
from weightprint.verdict.values import Name


@dataclass(frozen=True)
class Rule:
    """One line of the table: a verdict, the condition, that in words, the tests it reads, and the verdict's sentence.

    Where a limit enters, ``words`` has a field for it.
    """

    verdict: Name
    holds: Callable[[Facts], bool]
    words: str
    reads: tuple[str, ...]
    sentence: Callable[[Facts], str]

    def told(self, limits: Limits) -> str:
        """The condition in words."""
        return self.words.format(limits=limits)


_COPY = ("exact_sharing", "same_values")

RULES: tuple[Rule, ...] = (
    Rule(
        "identical",
        lambda f: f.equal_both_ways and not f.moved and f.more == (0, 0),
        "every tensor of either model is in the other, bit for bit",
        ("exact_sharing",),
        wording.identical,
    ),
    Rule(
        "shared_origin",
        lambda f: f.equal_both_ways and bool(f.moved),
        "every tensor of either model is in the other, bit for bit, some of them at other places",
        ("exact_sharing",),
        wording.moved,
    ),
    Rule(
        "re_encoded",
        lambda f: f.stored_otherwise and f.whole and (f.complete or f.missing_outside_blocks_only),
        "every value of either model, but for a head or pooler that one lacks, is the other's in another encoding",
        _COPY,
        wording.re_encoded,
    ),
    Rule(
        "shared_origin",
        lambda f: f.same_but and not f.reordered,
        "every value of one model is the other's, some of them times a factor that nothing stores",
        _COPY,
        wording.same_but,
    ),
    Rule(
        "shared_origin",
        lambda f: f.same_but,
        "every value of one model is the other's, some of them in another order within their tensor",
        _COPY,
        wording.same_but,
    ),
    Rule(
        "shared_origin",
        lambda f: bool(f.shown) and any(f.contained),
        "one model holds all of the other, value for value, and more",
        _COPY,
        wording.all_of_one,
    ),
    Rule(
        "shared_initialisation",
        lambda f: bool(f.blocks or f.found_regions) and not f.shown and f.initialisation_only,
        "blocks agree in place, and what training made of them does not",
        (*DECIDING, "training_shared"),
        wording.shared_initialisation,
    ),
    Rule(
        "partly_shared",
        lambda f: (
            bool(f.exchanged)
            or (bool(f.blocks) and bool(f.absent_beside_found) and not (f.deeper_only or f.more_experts_only))
        ),
        "some blocks agree (log10 p <= {limits.log10_p:g}, and a cosine or share of units >= {limits.effect:g}), "
        "others of the same stack, or of another that both models have, were looked for with power and are not there; "
        "more than layers that a deeper model has beside all of the other's",
        DECIDING,
        wording.partly_shared,
    ),
    Rule(
        "partly_shared",
        lambda f: bool(f.blocks) and f.open_beside_found,
        "some blocks agree (log10 p <= {limits.log10_p:g}, and a cosine or share of units >= {limits.effect:g}), "
        "others were not found in what fingerprints keep",
        DECIDING,
        wording.partly_shared,
    ),
    Rule(
        "shared_origin",
        lambda f: bool(f.blocks) or f.units_only,
        "channels, hidden units or heads find themselves again (log10 p <= {limits.log10_p:g}) in blocks with a cosine "
        "or share of units >= {limits.effect:g}",
        DECIDING,
        wording.shared_origin,
    ),
    Rule(
        "shared_initialisation",
        lambda f: f.first_factors_only and not f.blocks,
        "what is equal are the first factors of adapters, which one random seed draws alike",
        _COPY,
        wording.first_factors,
    ),
    Rule(
        "partly_shared",
        lambda f: bool(f.shown or f.found_regions or f.turned_tables) or f.equal_rows is not None or f.order_shows,
        "some tensors, or rows of an embedding, are equal or agree, and no more than these was shown",
        (*_COPY, "embeddings", *DECIDING),
        wording.partly_shared,
    ),
    Rule(
        "no_evidence",
        lambda f: not lacks(f) and not f.decisive and not f.copies_unclear,
        "every way of looking had the power to see a descendant, and none saw anything",
        (*_COPY, *DECIDING),
        wording.no_evidence,
    ),
    Rule(
        "inconclusive",
        lambda f: True,
        "no test that may decide found enough",
        (*_COPY, *DECIDING),
        wording.inconclusive,
    ),
)
