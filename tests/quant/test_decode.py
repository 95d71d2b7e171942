"""Every form of quantised storage comes out bit for bit as its formula says, whole and in part."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import weightprint
from opening import only, opened, same_bits
from stored import FORMS
from stored_layout import Stored
from weightprint import _core
from weightprint.quant.survey import SCHEMES

WHOLE = slice(None)


@pytest.fixture(params=list(FORMS))
def form(request: pytest.FixtureRequest) -> Stored:
    return FORMS[request.param](np.random.default_rng(7))


def test_whole(form: Stored, save: Callable[..., Path]) -> None:
    weight = only(checkpoint := opened(save("a.safetensors", form.tensors, form.metadata), form.config))
    assert (weight.name, weight.scheme, weight.dtype, weight.shape) == (form.name, form.scheme, form.dtype, form.shape)
    assert {key: weight.parameters.get(key) for key in form.parameters} == dict(form.parameters)
    same_bits(weight.read(checkpoint, WHOLE, WHOLE), form.values)


def test_rectangles_are_slices_of_the_whole(form: Stored, save: Callable[..., Path]) -> None:
    weight = only(checkpoint := opened(save("a.safetensors", form.tensors, form.metadata), form.config))
    rng = np.random.default_rng(3)
    height, width = form.shape[-2:]
    experts = range(form.shape[0]) if len(form.shape) == 3 else [None]
    for _ in range(40):
        top, bottom = sorted(rng.integers(0, height + 1, 2))
        left, right = sorted(rng.integers(0, width + 1, 2))
        for expert in experts:
            whole = form.values if expert is None else form.values[expert]
            got = weight.read(checkpoint, slice(top, bottom), slice(left, right), expert)
            same_bits(got, whole[top:bottom, left:right])


def test_levels_are_those_of_the_values(form: Stored, save: Callable[..., Path]) -> None:
    """In a run there are no more values than codes, and evenly spaced ones lie on multiples of one step."""
    weight = only(opened(save("a.safetensors", form.tensors, form.metadata), form.config))
    if weight.levels is None:
        has = weight.parameters
        across = form.shape[-1] % (has.get("group_size") or 1)  # groups that run on over the ends of rows
        assert has.get("act_order") or has.get("orientation") == "in, out" or across
        return
    run, even = weight.levels
    width = form.shape[-1]
    whole = width - width % min(run, width)
    rows = np.ascontiguousarray(form.values.reshape(-1, width)[:, :whole], np.float32)
    run = min(run, width)
    assert max(len(np.unique(group)) for group in rows.reshape(-1, run)) <= 2 ** weight.parameters["bits"]
    groups, fit, *_ = _core.cells(rows, rows, run, even=even, precision=0.0)
    assert groups > 0
    assert fit == groups


def test_corners(form: Stored, save: Callable[..., Path]) -> None:
    weight = only(checkpoint := opened(save("a.safetensors", form.tensors, form.metadata), form.config))
    expert = 1 if len(form.shape) == 3 else None
    whole = form.values if expert is None else form.values[expert]
    for rows in (slice(0, 1), slice(-1, None), WHOLE, slice(2, 1000)):
        for columns in (slice(0, 1), slice(-1, None), slice(1, 2), slice(31, 33)):
            same_bits(weight.read(checkpoint, rows, columns, expert), whole[rows, columns])


def test_each_tensor_is_claimed_once_and_no_other(form: Stored, save: Callable[..., Path]) -> None:
    weight = only(checkpoint := opened(save("a.safetensors", form.tensors, form.metadata), form.config))
    plain = {name for name in form.tensors if name.endswith("bias") or name == "m.v_proj.weight"}
    assert len(set(weight.components)) == len(weight.components)
    assert set(weight.components) == set(form.tensors) - plain
    assert set(weight.components) <= set(checkpoint.names())


def test_pickles(form: Stored, save: Callable[..., Path]) -> None:
    weight = only(checkpoint := opened(save("a.safetensors", form.tensors, form.metadata), form.config))
    again = pickle.loads(pickle.dumps(weight))
    assert again == weight
    same_bits(again.read(checkpoint, WHOLE, WHOLE), form.values)


def test_order_of_tensors_in_the_file_does_not_matter(form: Stored, save: Callable[..., Path]) -> None:
    back = dict(reversed(form.tensors.items()))
    weight = only(checkpoint := opened(save("a.safetensors", back, form.metadata), form.config))
    same_bits(weight.read(checkpoint, WHOLE, WHOLE), form.values)


def test_components_over_two_shards(form: Stored, save_sharded: Callable[..., Path], save: Callable[..., Path]) -> None:
    if form.metadata is not None:
        pytest.skip("metadata is per file; the writer of shards writes none")
    names = list(form.tensors)
    shards = [{name: form.tensors[name] for name in names[k::2]} for k in range(2)]
    folder = save_sharded("model", shards)
    weight = only(checkpoint := opened(folder / "model.safetensors.index.json", form.config))
    same_bits(weight.read(checkpoint, WHOLE, WHOLE), form.values)


def test_experts_are_read_in_runs(save: Callable[..., Path]) -> None:
    form = FORMS["fp8 experts"](np.random.default_rng(0))
    weight = only(checkpoint := opened(save("a.safetensors", form.tensors)))
    same_bits(weight.read(checkpoint, slice(1, 3), slice(0, 1)), form.values[1:3])
    assert weight.read(checkpoint, slice(0, 0), WHOLE).shape == (0, *form.shape[1:])


def test_an_index_must_exist(save: Callable[..., Path]) -> None:
    form = FORMS["fp8 per row"](np.random.default_rng(0))
    weight = only(checkpoint := opened(save("a.safetensors", form.tensors)))
    with pytest.raises(weightprint.UsageError):
        weight.read(checkpoint, WHOLE, WHOLE, 0)
    form = FORMS["fp8 experts"](np.random.default_rng(0))
    weight = only(checkpoint := opened(save("b.safetensors", form.tensors)))
    with pytest.raises(weightprint.UsageError):
        weight.read(checkpoint, WHOLE, WHOLE, 3)


def test_schemes_are_registered_in_one_list() -> None:
    assert len({scheme.name for scheme in SCHEMES}) == len(SCHEMES) >= 9
