"""Aligned weights and units: cosines that are known in advance, and the ways in which nothing must be found."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic import Arrays, child, decoder, hidden, models
from weightprint.evidence.aligned_units import aligned_units
from weightprint.evidence.aligned_weights import AlignedWeights, aligned_weights
from weightprint.evidence.evidence import Evidence


def gaussian(seed: int, d: int, h: int, layers: int) -> Arrays:
    rng = np.random.default_rng([seed, 5])
    shapes = {"self_attn.q_proj": (d, d), "self_attn.o_proj": (d, d), "mlp.up_proj": (h, d), "mlp.down_proj": (d, h)}
    return {
        f"model.layers.{i}.{name}.weight": rng.standard_normal(shape).astype(np.float32)
        for i in range(layers)
        for name, shape in shapes.items()
    }


@pytest.mark.slow_but_first
@pytest.mark.parametrize("rho", [0.02, 0.1, 0.5, 0.95])
def test_children_have_cosine_rho(rho: float) -> None:
    """Children of known likeness: aligned cosine rho within its null width 1/sqrt(mn)."""
    parent = gaussian(0, 576, 1536, 3)
    rng = np.random.default_rng(1)
    b = {
        n: (rho * x + np.sqrt(1 - rho**2) * rng.standard_normal(x.shape)).astype(np.float32) for n, x in parent.items()
    }
    evidence = aligned_weights(models(parent, b))
    for name, cosine in evidence.told(AlignedWeights).cosines.items():
        n = min(512, max(parent[name].shape) if "mlp" in name else 512) * 576
        assert cosine == pytest.approx(rho, abs=5 / np.sqrt(n)), name
    assert evidence.effect == pytest.approx(rho, abs=5 / np.sqrt(12 * 512 * 576))
    if rho >= 0.1:
        assert seen(evidence)
    if rho >= 0.5:
        assert (evidence.log10_p or 0) < -6


def test_strangers_stay_within_the_quoted_deviation() -> None:
    evidence = aligned_weights(models(gaussian(0, 576, 1536, 3), gaussian(1, 576, 1536, 3)))
    assert abs(evidence.told(AlignedWeights).z) < 5
    assert evidence.log10_p == pytest.approx(0, abs=1)
    # 12 matrices x 512 rows: chance cosines of channels have deviation 1/sqrt(6144), their maximum sqrt(2 ln d) of
    # that.
    assert evidence.detectable == pytest.approx(np.sqrt(2 * np.log(576) / (12 * 512)), rel=0.05)


@pytest.mark.slow_but_first
@pytest.mark.parametrize("d", [64, 576])
def test_the_quoted_detectable_effect_is_detected(d: int) -> None:
    """What an inconclusive report says would have been seen, is seen."""
    a = gaussian(0, d, 3 * d, 3)
    quoted = aligned_weights(models(a, gaussian(1, d, 3 * d, 3))).detectable or 1.0
    assert seen(aligned_weights(models(a, child(a, quoted))))


def seen(evidence: Evidence) -> bool:
    """It has a p-value, or says that a fitted order could do as much."""
    return (evidence.log10_p or 0) < -6 or evidence.withheld is not None


def test_a_child_is_found_and_a_permuted_child_is_not() -> None:
    a = decoder(0)
    b = child(a, 0.75)
    assert (aligned_weights(models(a, b)).log10_p or 0) < -40
    assert (aligned_units(models(a, b)).log10_p or 0) < -200
    order = np.random.default_rng(0).permutation(64)
    turned = {n: permuted(n, x, order) for n, x in b.items()}
    evidence = aligned_weights(models(a, turned))
    assert (evidence.log10_p or 0) > -2  # blind to it, and says so
    assert "permuted" in evidence.blind_to


def permuted(name: str, x: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The model with its residual channels in another order."""
    if x.ndim == 1:
        return x[order]
    return x[order] if "o_proj" in name or "down_proj" in name else x[:, order]


def test_hidden_units_are_told_apart_from_channels() -> None:
    a = decoder(0)
    order = np.random.default_rng(0).permutation(160)
    b = {}
    for name, x in child(a, 0.8).items():
        if "gate_proj" in name or "up_proj" in name:
            x = x[order]
        b[name] = x[:, order] if "down_proj" in name else x
    m = models(a, b)
    assert (aligned_weights(m).log10_p or 0) < -40
    assert (aligned_units(m).log10_p or 0) > -2


def test_one_shared_block_among_strangers_is_found() -> None:
    a, b = decoder(0, layers=6), decoder(1, layers=6)
    b |= {n: x for n, x in child(a, 0.9).items() if ".layers.3." in n}
    evidence = aligned_weights(models(a, b))
    assert (evidence.log10_p or 0) < -6
    assert evidence.told(AlignedWeights).best_region == "decoder.3"


def test_position_tables_do_not_make_kin() -> None:
    table = np.random.default_rng(0).standard_normal((512, 64)).astype(np.float32)
    a, b = decoder(0), decoder(1)
    a["model.embed_positions.weight"] = b["model.embed_positions.weight"] = table
    a["model.unknown_table"] = b["model.unknown_table"] = table + 1
    evidence = aligned_weights(models(a, b))
    assert set(evidence.told(AlignedWeights).left_out) == {"model.embed_positions.weight", "model.unknown_table"}
    assert (evidence.log10_p or 0) > -2


def test_names_that_do_not_help_cost_power_and_are_paid_for() -> None:
    a = decoder(0)
    b = hidden({n: x for n, x in child(a, 0.9).items() if "embed" not in n})  # its shape would tell
    m = models(a, b)
    assert m.log10_pairings > 10
    evidence = aligned_weights(m)
    assert evidence.log10_p == pytest.approx(-89.1 + m.log10_pairings + np.log10(2), abs=0.2)


def test_one_tiny_named_tensor_does_not_cost_the_others_their_say() -> None:
    a = decoder(0)
    a["token_type_embeddings.weight"] = a["model.embed_tokens.weight"][:2]
    copy = child(a, 0.9)
    b = {n: x for n, x in copy.items() if "token_type" in n} | hidden(
        {n: x for n, x in copy.items() if "token" not in n}
    )
    m = models(a, b)
    assert aligned_weights(m).told(AlignedWeights).log10_price_of_pairing == m.log10_pairings
    assert (aligned_weights(m).log10_p or 0) < -20
    assert (aligned_units(m).log10_p or 0) < -20


def test_where_names_suffice_pairs_by_values_stay_out_of_the_p_value() -> None:
    a = decoder(0, layers=6)
    copy = child(a, 0.9)
    b = {n: x for n, x in copy.items() if "mlp" not in n} | hidden({n: x for n, x in copy.items() if "mlp" in n})
    m = models(a, b)
    assert m.log10_pairings > 5
    assert aligned_weights(m).log10_p == pytest.approx(-89.1 + np.log10(2), abs=0.2)


def test_no_common_width_and_constant_tensors_are_said() -> None:
    assert not aligned_weights(models(decoder(0), decoder(1, d=48))).applied
    zeros = {n: np.zeros_like(x) for n, x in decoder(0).items()}
    assert not aligned_weights(models(zeros, zeros)).applied
    assert not aligned_units(models(zeros, zeros)).applied


def test_the_same_seed_gives_the_same_numbers() -> None:
    a, b = decoder(0, vocabulary=2000), decoder(1, vocabulary=2000)
    first, again, other = (aligned_weights(models(a, b, seed=s)) for s in (0, 0, 1))
    assert first.told(AlignedWeights).cosines == again.told(AlignedWeights).cosines
    assert first.told(AlignedWeights).cosines != other.told(AlignedWeights).cosines


def test_quick_reads_less_and_still_finds_a_child() -> None:
    a = decoder(0, vocabulary=4000)
    evidence = aligned_weights(models(a, child(a, 0.8), effort="quick"))
    assert evidence.told(AlignedWeights).rows_per_tensor == 64
    assert (evidence.log10_p or 0) < -40


def moved(arrays: Arrays, order: list[int]) -> Arrays:
    """The model whose block i is block `order[i]` of `arrays`; -1: one of a stranger."""
    other = decoder(9, layers=1)
    out = {n: x for n, x in arrays.items() if ".layers." not in n}
    for i, j in enumerate(order):
        source, at = (arrays, f"layers.{j}.") if j >= 0 else (other, "layers.0.")
        out |= {n.replace(at, f"layers.{i}."): x for n, x in source.items() if at in n}
    return out


@pytest.mark.parametrize("order", [[3, 0, 2, 1], [0, -1, 1, 2, 3], [0, 1, 2, 1, 2, 3], [2]])
@pytest.mark.parametrize("effort", ["quick", "standard"])
def test_hidden_units_in_order_are_found_in_any_block(order: list[int], effort: str) -> None:
    a = decoder(0)
    evidence = aligned_units(models(a, moved(child(a, 0.9), order), effort=effort))
    assert (evidence.log10_p or 0) < -20
    assert [m.a[1] for m in evidence.matches if m.log10_p < -20] == [j for j in order if j >= 0]
    assert len(evidence.matches) == len(order)


def test_flipped_signs_of_units_do_not_hide_their_order() -> None:
    a = decoder(0)
    b = child(a, 0.9)
    for name in [n for n in b if "up_proj" in n or "down_proj" in n]:
        signs = np.random.default_rng(int(name.split(".")[2])).choice(np.float32([-1, 1]), 160)
        b[name] = b[name] * (signs[:, None] if "up_proj" in name else signs)
    assert (aligned_units(models(a, b)).log10_p or 0) < -200
