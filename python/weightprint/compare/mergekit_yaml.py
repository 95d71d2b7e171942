"""A mergekit configuration (YAML 1.2) that would make the child again, written by hand: no parser is needed to write.

Names are double-quoted JSON strings, which YAML reads alike. Weights of layers are lists, one value per layer, which
mergekit takes as a gradient. Random masks can't be had again: a line says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["mergekit_yaml"]


_DTYPES = {"BF16": "bfloat16", "F16": "float16"}


def mergekit_yaml(recipe: Any) -> str | None:
    """The text for a :class:`weightprint.compare.recipe.Recipe`; None where no method was named."""
    write = _WRITERS.get(recipe.method)
    return None if write is None else "\n".join([*write(recipe), f"dtype: {_DTYPES.get(recipe.dtype, 'float32')}", ""])


def _text(name: str) -> str:
    return json.dumps(name)


def _number(value: float) -> str:
    return f"{round(value, 4):g}"


def _list(values: Sequence[float]) -> str:
    return f"[{', '.join(map(_number, values))}]"


def _passthrough(recipe: Any) -> list[str]:
    """Runs of layers that follow each other in one parent."""
    lines = ["merge_method: passthrough", "slices:"]
    runs: list[tuple[str, int, int]] = []
    for mix in recipe.layers:
        if mix.source is None:
            continue
        name, number = mix.source[0], int(mix.source[1].rpartition(".")[2])
        if runs and runs[-1][0] == name and runs[-1][2] == number:
            runs[-1] = (name, runs[-1][1], number + 1)
        else:
            runs.append((name, number, number + 1))
    for name, start, stop in runs:
        lines += ["  - sources:", f"      - model: {_text(name)}", f"        layer_range: [{start}, {stop}]"]
    return lines


def _linear(recipe: Any) -> list[str]:
    lines = ["merge_method: linear", "models:"]
    by_layer = recipe.parameters.get("by_layer")
    for number, weight in enumerate(recipe.weights):
        values = [mix.weights[number] or 0.0 for mix in recipe.layers]
        text = _list(values) if by_layer else _number(weight.value)
        lines += [f"  - model: {_text(weight.parent)}", "    parameters:", f"      weight: {text}"]
    return [*lines, "parameters:", "  normalize: false"]


def _slerp(recipe: Any) -> list[str]:
    first, second = recipe.parameters["of"]
    layers, t = len(recipe.layers), recipe.parameters["t"]
    lines = ["merge_method: slerp", f"base_model: {_text(first)}", "slices:", "  - sources:"]
    for name in (first, second):
        lines += [f"      - model: {_text(name)}", f"        layer_range: [0, {layers}]"]
    lines += ["parameters:", "  t:"]
    outside = recipe.parameters["t_outside"]
    if outside is not None and t is None:
        for name in ("embed_tokens", "lm_head"):
            lines += [f"    - filter: {name}", f"      value: {_number(outside)}"]
    values = [row[2] for row in recipe.parameters["t_by_layer"]]
    return [*lines, f"    - value: {_list(values) if t is None else _number(t)}"]


def _over_base(method: str) -> Callable[[Any], list[str]]:
    def write(recipe: Any) -> list[str]:
        density, drawn = recipe.parameters.get("density", {}), method.startswith("dare")
        lines = ["# entries were dropped at random: it is another draw"] if drawn else []
        lines += [f"merge_method: {method}", f"base_model: {_text(recipe.base or '')}", "models:"]
        scales = recipe.parameters["scales"]
        normalize = bool(recipe.parameters.get("normalize"))
        mean = sum(scales.values()) / len(scales)
        for name, scale in scales.items():
            weight = 1.0 if normalize else scale
            lines += [f"  - model: {_text(name)}", "    parameters:", f"      weight: {_number(weight)}"]
            if name in density:
                lines.append(f"      density: {_number(density[name])}")
        lines += ["parameters:", f"  normalize: {'true' if normalize else 'false'}"]
        return [*lines, f"  lambda: {_number(mean)}"] if normalize else lines

    return write


_WRITERS: dict[str | None, Callable[[Any], list[str]]] = {
    "copy": _passthrough,
    "passthrough": _passthrough,
    "linear": _linear,
    "slerp": _slerp,
    **{name: _over_base(name) for name in ("task_arithmetic", "ties", "dare_linear", "dare_ties")},
}
