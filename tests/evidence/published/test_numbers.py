"""docs/methods.md section 6, items 1 to 5: the numbers that an implementation is held to."""

from __future__ import annotations

import ml_dtypes  # noqa: F401  (registers bfloat16 with numpy)
import numpy as np
import pytest
from synthetic import models
from weightprint.compare.compare import judge
from weightprint.evidence.norm_gains import norm_gains
from weightprint.evidence.published.bit_distance import STRANGERS, bf16_words, bit_distance, bits_apart
from weightprint.evidence.published.crs import composed, crs, similarity
from weightprint.evidence.published.pcs import pcs
from weightprint.evidence.published.ucka import ucka, unbiased_cka, without_leading
from weightprint.evidence.tests import AS_STORED

Array = np.ndarray


def normal(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape, dtype=np.float32)


def mixed(x: Array, rho: float, rng: np.random.Generator) -> Array:
    """rho * x + sqrt(1 - rho^2) * noise of the same spread."""
    return (rho * x + np.sqrt(1 - rho**2) * x.std() * normal(rng, *x.shape)).astype(np.float32)


def gaussian_decoder(seed: int, *, d: int, h: int, layers: int, vocabulary: int = 1024) -> dict[str, Array]:
    """Independent normal weights under a decoder's names: nothing here is shared but the architecture."""
    rng = np.random.default_rng([seed, 5])
    out = {"model.embed_tokens.weight": normal(rng, vocabulary, d)}
    for i in range(layers):
        at = f"model.layers.{i}."
        for part in "qkvo":
            out[f"{at}self_attn.{part}_proj.weight"] = normal(rng, d, d)
        out[f"{at}mlp.gate_proj.weight"], out[f"{at}mlp.up_proj.weight"] = normal(rng, h, d), normal(rng, h, d)
        out[f"{at}mlp.down_proj.weight"] = normal(rng, d, h)
    return {name: np.float32(0.02) * x for name, x in out.items()}


def child(parent: dict[str, Array], rho: float, seed: int) -> dict[str, Array]:
    rng = np.random.default_rng([seed, 6])
    return {name: mixed(x, rho, rng) for name, x in parent.items()}


# 1. Norm gains


def gains(seed: int, layers: int = 8, d: int = 4096) -> dict[str, Array]:
    rng = np.random.default_rng([seed, 7])
    out = {}
    for i in range(layers):
        for norm in ("input_layernorm", "post_attention_layernorm"):
            out[f"model.layers.{i}.{norm}.weight"] = (1 + 0.1 * normal(rng, d)).astype(np.float32)
    return out


def test_gains_of_strangers_have_a_cosine_of_99_and_no_correlation() -> None:
    rng = np.random.default_rng(11)
    x, y = (1 + 0.1 * normal(rng, 300, 4096) for _ in range(2))
    cosines = np.einsum("ij,ij->i", x, y) / (np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1))
    assert cosines.mean() == pytest.approx(0.9901, abs=0.0001)
    assert cosines.std() == pytest.approx(0.0002, abs=0.0001)
    pearson = [float(np.corrcoef(a, b)[0, 1]) for a, b in zip(x, y, strict=True)]
    assert np.mean(pearson) == pytest.approx(0, abs=3 * 0.0157 / np.sqrt(300))
    assert np.std(pearson) == pytest.approx(0.0157, abs=0.002)


def test_a_verdict_on_such_gains_alone_is_never_shared() -> None:
    pair = models(gains(0), gains(1))
    published = pcs(pair)
    assert (published.statistic or 0) > 0.98  # what the published measure makes of it
    assert abs(published.effect or 0) < 0.02
    ours = norm_gains(pair)
    assert ours.details["raw_cosine_not_evidence"] == pytest.approx(0.9901, abs=0.0005)
    assert abs(ours.details["pearson_matched"]) < 3 * 0.0157 / 4
    assert abs(ours.statistic or 0) < 0.02
    verdict = judge(pair, [test(pair) for test in AS_STORED]).verdict
    assert verdict.name == "inconclusive" or "no" in verdict.name
    assert "shared" not in verdict.name


# 2. Children that are rho * parent + noise


@pytest.mark.slow_but_first
@pytest.mark.parametrize("rho", [0.9, 0.5, 0.2])
def test_a_child_of_rho_scores_rho_aligned_and_rho_squared_in_ucka_and_crs(rho: float) -> None:
    d, h, layers = 512, 1024, 4
    parent = gaussian_decoder(0, d=d, h=h, layers=layers)
    pair = models(parent, child(parent, rho, 1))
    aligned = pcs(pair)
    assert aligned.effect == pytest.approx(rho, abs=4 / np.sqrt(aligned.n))
    # The child's own noise adds to the null's width at rho > 0: the product terms vary as rho does.
    assert crs(pair).statistic == pytest.approx(rho**2, abs=5 / (d * np.sqrt(3 * layers)) + 0.01 * rho)
    assert ucka(pair).statistic == pytest.approx(rho**2, abs=5 * 1.3 / (d * np.sqrt(2 * layers)) + 0.02 * rho)


@pytest.mark.slow
def test_strangers_lie_within_the_null_widths() -> None:
    d, layers = 256, 4
    found = []
    for seed in range(8):
        a, b = (gaussian_decoder(2 * seed + k, d=d, h=2 * d, layers=layers) for k in (0, 1))
        pair = models(a, b)
        found.append((crs(pair).statistic or 0, pcs(pair).effect or 0, ucka(pair).statistic or 0))
    scores = np.array(found)
    # Three branches are averaged; the assignment of 4 layers adds about one deviation of a single inner product.
    assert np.abs(scores[:, 0]).max() < 2.5 / d
    assert np.abs(scores[:, 1]).max() < 5 / np.sqrt(1e6)
    assert np.abs(scores[:, 2]).max() < 4 * 1.3 / (d * np.sqrt(2 * layers))


def test_the_null_width_of_crs_at_given_matches() -> None:
    rng = np.random.default_rng(12)
    d, layers = 64, 6
    scores = []
    for _ in range(200):
        phi = [[composed(normal(rng, d, 2 * d) @ normal(rng, 2 * d, d)) for _ in range(layers)] for _ in range(2)]
        scores.append(np.mean([x @ y for x, y in zip(*phi, strict=True)]))
    assert np.mean(scores) == pytest.approx(0, abs=4 / (d * np.sqrt(layers * 200)))
    assert np.std(scores) == pytest.approx(1 / (d * np.sqrt(layers)), rel=0.2)


def test_a_multiple_of_the_identity_does_not_count() -> None:
    rng = np.random.default_rng(13)
    a, b = (normal(rng, 64, 64) + 20 * np.eye(64, dtype=np.float32) for _ in range(2))
    assert float(np.vdot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b))) > 0.8
    assert abs(float(composed(a) @ composed(b))) < 5 / 64


def test_shuffled_layers_are_matched() -> None:
    rng = np.random.default_rng(14)
    a = [composed(normal(rng, 32, 32)) for _ in range(7)]
    order = rng.permutation(7)
    score, kept = similarity(a, [a[i] for i in order])
    assert score == pytest.approx(1, abs=1e-5)
    assert all(order[j] == i for i, j in kept)


# 4. UCKA


def kernels(w: Array) -> Array:
    return w.T @ w


def test_unbiased_cka_of_strangers_is_0_with_the_stated_width_and_biased_is_a_half() -> None:
    rng = np.random.default_rng(15)
    n = 256
    unbiased, biased = [], []
    h = np.eye(n) - 1 / n
    for _ in range(60):
        k, m = kernels(normal(rng, n, n)), kernels(normal(rng, n, n))
        unbiased.append(unbiased_cka(k, m))
        x, y = h @ k @ h, h @ m @ h
        biased.append(float(np.vdot(x, y) / (np.linalg.norm(x) * np.linalg.norm(y))))
    assert np.mean(unbiased) == pytest.approx(0, abs=4 * 1.3 / (n * np.sqrt(60)))
    assert np.std(unbiased) == pytest.approx(1.3 / n, rel=0.25)
    assert np.mean(biased) == pytest.approx(0.50, abs=0.01)


def slow_unbiased_cka(k: Array, m: Array) -> float:
    """Song et al.'s estimator written out with ones vectors, as an oracle."""
    n = k.shape[0]
    x, y = k * (1 - np.eye(n)), m * (1 - np.eye(n))
    one = np.ones(n)

    def hsic(p: Array, q: Array) -> float:
        return float(
            (
                np.trace(p @ q)
                + (one @ p @ one) * (one @ q @ one) / ((n - 1) * (n - 2))
                - 2 / (n - 2) * (one @ p @ q @ one)
            )
            / (n * (n - 3))
        )

    return hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y))


def test_unbiased_cka_is_the_estimator_of_the_paper() -> None:
    rng = np.random.default_rng(16)
    x = rng.standard_normal((30, 12)) + 0.4
    k, m = kernels(x), kernels(0.6 * x + rng.standard_normal((30, 12)))
    assert unbiased_cka(k, m) == pytest.approx(slow_unbiased_cka(k, m), rel=1e-9)


@pytest.mark.parametrize(("size", "lifted"), [(0.1, 0.05), (0.3, 0.78), (1.0, 0.99)])
def test_one_shared_direction_lifts_strangers_unless_it_is_removed(size: float, lifted: float) -> None:
    n = 512
    seen, bare = [], []
    for seed in range(4):
        rng = np.random.default_rng([17, seed])
        direction = normal(rng, n)  # over the channels, shared by both
        pair = []
        for _ in range(2):
            # Relative size: the rank-1 part's root mean square against that of the rest.
            pair.append(normal(rng, n, n) + size * np.outer(normal(rng, n), direction).astype(np.float32))
        seen.append(unbiased_cka(*(kernels(w) for w in pair)))
        bare.append(unbiased_cka(*(kernels(without_leading(w)) for w in pair)))
    assert np.mean(seen) == pytest.approx(lifted, abs=0.03)
    assert abs(np.mean(bare)) < 0.02


# 5. Bit distance


def test_bf16_words_round_as_bfloat16_does() -> None:
    rng = np.random.default_rng(18)
    x = np.concatenate([normal(rng, 20000) * 10.0 ** rng.integers(-20, 20, 20000), [0, -0.0, 1, -2.5]])
    x = x.astype(np.float32)
    assert (bf16_words(x) == x.astype("bfloat16").view(np.uint16)).all()


@pytest.mark.parametrize(("noise", "bits"), [(None, STRANGERS), (0.01, 2.16), (0.1, 3.79), (0.3, 4.59), (1.0, 5.37)])
def test_bits_apart(noise: float | None, bits: float) -> None:
    rng = np.random.default_rng(19)
    x, z = normal(rng, 400_000) * 0.02, normal(rng, 400_000) * 0.02
    y = z if noise is None else x + noise * z
    assert bits_apart(x, y).mean() == pytest.approx(bits, abs=0.02)


def test_bit_distance_of_models() -> None:
    parent = gaussian_decoder(0, d=64, h=128, layers=3)
    same, near, far = (
        bit_distance(models(parent, b))
        for b in (parent, child(parent, 0.995, 1), gaussian_decoder(1, d=64, h=128, layers=3))
    )
    assert same.effect == 0
    assert 3.5 < (near.effect or 0) < 4.1  # 4 bits go with a cosine of about .99
    assert far.effect == pytest.approx(STRANGERS, abs=0.05)
    assert (same.statistic or 0) > (near.statistic or 0) > (far.statistic or 0)
