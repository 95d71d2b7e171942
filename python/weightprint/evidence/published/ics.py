"""ICS, the invariant terms' cosine similarity [HuRef 2312.04828].

With X the embeddings of tokens that both models have (tokens x d), the terms of a layer are

    X W_q' W_k X',    X W_v' W_o' X',    X (W_gate * W_up)' W_down' X'    (tokens x tokens; without a gate W_up alone)

of the last two layers. Each term is standardised (its mean out, deviation one) and ICS is the cosine of all of them
together. Permuted or rotated residual channels and units cancel in the first two terms, since X turns along, and
neither width nor depth has to agree. The third one is no invariant where there is a gate: an elementwise product of two
matrices does not follow a rotation, or a flipped sign of channels, so a copy moved like that keeps two terms of three.
The authors take 4096 rare tokens; here tokens of the same number are drawn, fewer of them.

Known false positives: X itself. Tokens that are near each other in both embeddings make large entries in every term of
both models, so strangers with one tokenizer and like data score high, and so does the tokens' common mean. The form
with each term double-centred is shown beside it. Known misses: another vocabulary, the norm gains (not folded, so
absorbing or replacing them changes all terms: attack T5 of [Independence Tests]), retrained last layers, rotated or
sign-flipped channels where the FFN is gated.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from weightprint.evidence.evidence import Evidence, not_applied
from weightprint.evidence.nulls.exchange import double_centre, finite
from weightprint.evidence.pair import ModelPair
from weightprint.evidence.published.parts import Blocks, blocks, cosine, expanded, grouped, shared_tokens, too_large
from weightprint.evidence.test import Test
from weightprint.fingerprint.model import ModelView, Tensor
from weightprint.util.arrays import F32
from weightprint.util.linear_algebra import product

_SLICE = 1 << 23  # values of a matrix that are multiplied at once
_LAYERS = 2

_QUESTION = Evidence(
    test="ics",
    asked="Do the invariant products of the last two layers, seen through shared tokens, agree?",
    null="none: descriptive. Strangers with one tokenizer share the geometry of their embeddings",
    assumes="nothing: it decides nothing",
    blind_to="another vocabulary, norm gains moved or replaced, retrained last layers",
    statistic_of="cosine of the standardised invariant terms, as published",
    effect_of="the same with every term double-centred",
)


def _through(side: ModelView, tensor: Tensor, x: F32, other: Tensor | None = None) -> F32:
    """x @ W' in slices of W, times the same of `other` elementwise in W: (tokens, rows of W)."""
    pieces = []
    for start, w in side.slices(tensor):
        w = finite(w)
        if other is not None:
            w = w * finite(side.rows(other, start, start + w.shape[0]))
        pieces.append(product(x, w.T))
    return np.concatenate(pieces, axis=1)


def _against(side: ModelView, tensor: Tensor, x: F32) -> F32:
    """x @ W in slices of W's rows: (tokens, columns of W)."""
    out = np.zeros((x.shape[0], tensor.shape[1]), np.float32)
    for start, w in side.slices(tensor, _SLICE):  # few, since each is a pass over the output
        out += product(x[:, start : start + w.shape[0]], finite(w))
    return out


def _shared(models: ModelPair, side: ModelView, tensor: Tensor, queries: int, x: F32) -> F32 | None:
    """x @ W' of k or v with grouped heads repeated; None where the groups are not known."""
    size = grouped(models, side, tensor.stack, queries, tensor.shape[0])
    return None if size is None else expanded(_through(side, tensor, x).T, queries, size).T


def terms(models: ModelPair, side: ModelView, block: dict[str, Tensor], x: F32) -> dict[str, F32]:
    """The invariant terms of one layer, as far as its matrices are known: name → (tokens, tokens)."""
    out: dict[str, F32] = {}
    if "q" in block and "k" in block:
        keys = _shared(models, side, block["k"], block["q"].shape[0], x)
        if keys is not None:
            out["q'k"] = product(_through(side, block["q"], x), keys.T)
    if "v" in block and "o" in block:
        values = _shared(models, side, block["v"], block["o"].shape[1], x)
        if values is not None:
            out["v'o'"] = product(values, _against(side, block["o"], x).T)
    if "up" in block and "down" in block and block["down"].shape == block["up"].shape[::-1]:
        gate = block.get("gate")
        gate = gate if gate is not None and gate.shape == block["up"].shape else None
        out["u'd'"] = product(_through(side, block["up"], x, gate), _against(side, block["down"], x).T)
    return out


def _standardised(x: F32) -> F32:
    centred = x - x.mean(dtype=np.float64)
    out: F32 = (centred / max(float(centred.std()), 1e-30)).astype(np.float32)
    return out


@partial(Test, published=True, cost="long")
def ics(models: ModelPair) -> Evidence:
    """Cosine of the last two layers' invariant terms, raw and double-centred."""
    tokens = shared_tokens(models, models.budget.published.ics_tokens)
    if isinstance(tokens, str):
        return not_applied(_QUESTION, tokens)
    found = [_last(side, x.shape[1]) for side, x in ((models.a, tokens[0]), (models.b, tokens[1]))]
    if not all(found):
        return not_applied(_QUESTION, "no blocks of the embedding's width were recognised in both models")
    if too_large(models, (block for side in found for block in side)):
        return not_applied(_QUESTION, "this effort does not read such matrices whole")
    ours, theirs = (
        [terms(models, side, block, x) for block in own]
        for side, own, x in ((models.a, found[0], tokens[0]), (models.b, found[1], tokens[1]))
    )
    pairs = [(a[name], b[name], name) for a, b in zip(ours, theirs, strict=False) for name in a if name in b]
    if not pairs:
        return not_applied(_QUESTION, "no invariant term could be formed on both sides")
    raw, centred = (
        cosine(
            np.stack([form(a) for a, _, _ in pairs]),
            np.stack([form(b) for _, b, _ in pairs]),
        )
        for form in (_standardised, lambda x: _standardised(double_centre(x)))
    )
    per_term = [[name, cosine(_standardised(a), _standardised(b))] for a, b, name in pairs]
    return replace(
        _QUESTION,
        says=f"{len(pairs)} invariant terms over {len(tokens[0])} tokens agree {raw:.4f}, double-centred {centred:.4f}",
        statistic=raw,
        effect=centred,
        n=len(pairs),
        details={"terms": per_term, "tokens": int(tokens[0].shape[0])},
    )


def _last(side: ModelView, width: int) -> list[dict[str, Tensor]]:
    """What is known of the last two blocks, first the last but one; matrices that don't have the stream's width out."""
    parts: list[Blocks] = [blocks(side, (role,)) for role in ("q", "k", "v", "up", "gate")]
    writes: list[Blocks] = [blocks(side, (role,)) for role in ("o", "down")]
    merged: Blocks = {}
    for axis, group in ((1, parts), (0, writes)):
        for single in group:
            for number, block in single.items():
                for role, tensor in block.items():
                    if tensor.shape[axis] == width:
                        merged.setdefault(number, {})[role] = tensor
    return [merged[i] for i in sorted(merged)[-_LAYERS:]]
