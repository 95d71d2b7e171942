"""Operations on values come back with their parameters: noise, low rank, zeros, grids, training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from changed_models import matrices, named, parent
from synthetic import Arrays, child


def adapted(a: Arrays, rank: int, roles: tuple[str, ...], size: float, seed: int = 3) -> Arrays:
    """A LoRA update of this rank in these roles, its norm a share of the matrix's."""
    rng = np.random.default_rng(seed)
    out = dict(a)
    for name in matrices(a):
        if name.split(".")[-2].removesuffix("_proj") in roles:
            x = a[name]
            update = rng.standard_normal((len(x), rank)) @ rng.standard_normal((rank, x.shape[1]))
            out[name] = (x + size * np.linalg.norm(x) / np.linalg.norm(update) * update).astype(np.float32)
    return out


def noised(a: Arrays, sd: float | None = None, relative: float = 0.0, seed: int = 4) -> Arrays:
    rng = np.random.default_rng(seed)
    return {
        name: (x + (relative * x.std() if sd is None else sd) * rng.standard_normal(x.shape)).astype(np.float32)
        for name, x in a.items()
    }


def tuned(a: Arrays, size: float, seed: int = 5, only: str = "") -> Arrays:
    """What training leaves: directions of falling strength, rows of unequal size, in every matrix."""
    rng = np.random.default_rng(seed)
    out = dict(a)
    for name, x in a.items():
        if x.ndim != 2 or only not in name:
            continue
        strength = 1 / np.arange(1, 1 + min(x.shape)) ** 0.7
        change = (rng.standard_normal((len(x), len(strength))) * strength) @ rng.standard_normal(
            (len(strength), x.shape[1])
        )
        change *= rng.lognormal(0, 0.5, (len(x), 1))
        out[name] = (x + size * np.linalg.norm(x) / np.linalg.norm(change) * change).astype(np.float32)
    return out


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
@pytest.mark.parametrize(("rank", "roles", "size"), [(2, ("q", "v"), 0.1), (8, ("q", "k", "v", "o", "up"), 0.3)])
def test_the_rank_of_a_merged_adapter_is_exact(dtype: str, rank: int, roles: tuple[str, ...], size: float) -> None:
    a = parent()
    found = named(a, adapted(a, rank, roles, size), dtype)
    assert found.keys() == {"lora_merge"}
    assert found["lora_merge"].parameters["rank"] == rank
    assert found["lora_merge"].parameters["roles"] == list(roles)
    assert found["lora_merge"].parameters["matrices"] == 4 * len(roles)
    assert found["lora_merge"].parameters["gap"] > 2


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
@pytest.mark.parametrize("sd", [1 / 708, 0.01])
def test_the_sd_of_noise_is_within_one_percent(dtype: str, sd: float) -> None:
    a = parent()
    found = named(a, noised(a, sd), dtype)
    assert found.keys() == {"gaussian_noise"}
    assert found["gaussian_noise"].parameters["sd"] == pytest.approx(sd, rel=0.01)


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_noise_in_proportion_to_each_tensor(dtype: str) -> None:
    a = parent()
    found = named(a, noised(a, relative=0.1), dtype)
    assert found.keys() == {"gaussian_noise"}
    assert found["gaussian_noise"].parameters["relative"] == pytest.approx(0.1, rel=0.01)


@pytest.mark.parametrize("fraction", [0.3, 0.5, 0.8])
def test_the_fraction_of_zeros(fraction: float) -> None:
    a = parent()
    b = dict(a)
    for name in matrices(a):
        b[name] = np.where(np.abs(a[name]) < np.quantile(np.abs(a[name]), fraction), 0, a[name]).astype(np.float32)
    found = named(a, b)
    assert found.keys() == {"unstructured_pruning"}
    assert found["unstructured_pruning"].parameters["fraction"] == pytest.approx(fraction, rel=0.01)


@pytest.mark.parametrize(("kept", "of"), [(2, 4), (4, 8), (1, 4)])
def test_the_pattern_of_zeros(kept: int, of: int) -> None:
    a = parent()
    b = dict(a)
    for name in matrices(a):
        groups = a[name].reshape(-1, of)
        order = np.argsort(np.argsort(-np.abs(groups), axis=1), axis=1)
        b[name] = np.where(order < kept, groups, 0).reshape(a[name].shape).astype(np.float32)
    found = named(a, b)
    assert found.keys() == {"semi_structured_pruning"}
    assert found["semi_structured_pruning"].parameters == {"kept": kept, "of": of}


@pytest.mark.parametrize(("bits", "group", "dtype"), [(4, 32, "BF16"), (8, None, "F32"), (4, None, "F32")])
def test_the_grid_of_quantised_values(bits: int, group: int | None, dtype: str) -> None:
    a = parent()
    b = dict(a)
    for name in matrices(a):
        x = a[name].astype(np.float64)
        groups = x if group is None else x.reshape(-1, group)
        low = groups.min(axis=1, keepdims=True)
        step = (groups.max(axis=1, keepdims=True) - low) / (2**bits - 1)
        b[name] = (np.rint((groups - low) / step) * step + low).reshape(x.shape).astype(np.float32)
    found = named(a, b, dtype)
    assert found.keys() == {"quantise"}
    parameters = found["quantise"].parameters
    assert (parameters["bits"], parameters.get("group"), parameters["grid"]) == (bits, group, "minmax")
    size = np.sqrt(sum(np.sum(a[n].astype(np.float64) ** 2) for n in matrices(a)))
    error = np.sqrt(sum(np.sum((b[n] - a[n]).astype(np.float64) ** 2) for n in matrices(a)))
    assert parameters["error"] == pytest.approx(error / size, rel=0.1)


@pytest.mark.parametrize(
    ("size", "name"), [(0.1, "fine_tune"), (0.2, "fine_tune"), (0.5, "continued_pretraining"), (1.0, None)]
)
@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_training_is_named_by_how_far_it_went(size: float, name: str | None, dtype: str) -> None:
    a = parent()
    found = named(a, tuned(a, size), dtype)
    assert found.keys() == {name or "continued_pretraining"}
    parameters: dict[str, Any] = next(iter(found.values())).parameters
    assert parameters["relative_change"] == pytest.approx(size, rel=0.05)
    assert parameters["cosine"] == pytest.approx(1 / np.sqrt(1 + size**2), abs=0.02)
    assert [layer for layer, _ in parameters["layers"]] == [0, 1, 2, 3]
    assert next(iter(found.values())).confidence < 1


def test_layers_left_as_they_were_are_frozen() -> None:
    a = parent()
    b = dict(tuned(a, 0.1, only=".layers.2."))
    found = named(a, b)["fine_tune"].parameters
    assert {layer: change for layer, change in found["layers"] if change == 0}.keys() == {0, 1, 3}
    assert set(found["frozen"]) == {n for n in a if ".layers.2." not in n or a[n].ndim == 1}


def test_strangers_and_siblings_get_no_name_that_needs_a_parent() -> None:
    a = parent()
    special = {"lora_merge", "gaussian_noise", "quantise", "unstructured_pruning", "semi_structured_pruning"}
    assert not named(a, parent(1)).keys()
    assert not named(tuned(a, 0.1), tuned(a, 0.1, seed=6)).keys() & special
    assert not named(child(a, 0.9), child(a, 0.9, seed=2)).keys() & special


def test_a_tiny_change_that_rounding_hides_is_not_of_low_rank() -> None:
    a = parent()
    assert "lora_merge" not in named(a, tuned(a, 0.004), "BF16")


def test_the_way_back_from_zeros_and_from_a_grid_has_no_name() -> None:
    a = parent()
    b, grid = dict(a), dict(a)
    for name in matrices(a):
        x = a[name]
        b[name] = np.where(np.abs(x) < np.quantile(np.abs(x), 0.5), 0, x).astype(np.float32)
        step = np.abs(x).max(axis=1, keepdims=True) / 7
        grid[name] = (np.rint(x / step) * step).astype(np.float32)
    assert not named(b, a)
    assert not named(grid, a)


def test_factors_moved_from_one_tensor_to_the_next_are_not_training() -> None:
    a = parent()
    b = dict(a)
    rng = np.random.default_rng(8)
    for name in matrices(a):
        b[name] = (a[name] * rng.lognormal(0, 0.3, (len(a[name]), 1))).astype(np.float32)
    assert not named(a, b)


def test_moved_blocks_are_not_renamed() -> None:
    a = parent()
    at = {f"model.layers.{i}.": f"model.layers.{j}." for i, j in enumerate((3, 1, 0, 2))}
    b = {next((n.replace(x, y, 1) for x, y in at.items() if n.startswith(x)), n): v for n, v in a.items()}
    assert "rename" not in named(a, b)
    assert named(a, {f"language_model.{n}": x for n, x in a.items()}).keys() <= {"rename"}


def test_arithmetic_in_another_order_is_no_training() -> None:
    a = parent()
    again = {n: np.nextafter(x, np.float32(9)) if x.ndim == 2 else x for n, x in a.items()}  # one ulp up
    assert "fine_tune" not in named(a, again)
    assert named(a, tuned(a, 2e-5))["fine_tune"].parameters["relative_change"] > 0
