"""LoRA adapters as PEFT stores them: which tensor is which factor of whose update, and at which place that is.

A folder with ``adapter_config.json`` and ``adapter_model.safetensors`` holds, for every adapted module M of the base::

    base_model.model.M.lora_A[.default].weight       A (r x in)
    base_model.model.M.lora_B[.default].weight       B (out x r), sometimes with a .bias
    base_model.model.M.lora_magnitude_vector         m (out), with DoRA
    base_model.model.M.lora_embedding_A, …_B         A (r x vocabulary), B (hidden x r)

and plain tensors that stand for the base's own (``modules_to_save``, trained biases). The update of a linear layer is
s·B·A, of an embedding s·(B·A)ᵀ, with s = alpha / r, or alpha / √r with rsLoRA (arXiv 2106.09685, 2312.03732); alpha
and r may differ by module (``alpha_pattern``, ``rank_pattern``: regular expressions on the ends of module names). The
names and formulas are PEFT's (``peft/tuners/lora``).

Read as a model in its own right, an adapter's tensors get the places of what they change: the table of families sees a
weight of the module's shape, and where it finds q, A is ``q.lora_a``, B ``q.lora_b``, m ``q.lora_magnitude``. Where it
cuts a fused weight, B's rows are cut likewise and A serves all.
"""

from __future__ import annotations

import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from weightprint.anatomy.match import Matched, match
from weightprint.anatomy.place import Assignment, Place, View
from weightprint.checkpoint.checkpoint import Checkpoint, open
from weightprint.errors import FormatError, UnsupportedFormatError
from weightprint.quant.weights import Weights
from weightprint.util.escape import escape

__all__ = ["Adapter", "Lora", "is_adapter", "match_adapter", "read_adapter"]

_FACTOR = re.compile(
    r"(?:base_model\.model\.)?(?P<module>.+)\."
    r"(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)"
    r"(?:\.(?!weight$|bias$)[^.]+)?(?:\.(?P<kind>weight|bias))?"
)
#: What wrapping puts into the names of plain tensors.
_WRAPPING = re.compile(r"\.base_layer(?=\.)|\.modules_to_save(?:\.default)?(?=\.)")
_PARTS = {
    "lora_A": "a",
    "lora_B": "b",
    "lora_embedding_A": "embedding_a",
    "lora_embedding_B": "embedding_b",
    "lora_magnitude_vector": "magnitude",
}
#: Ways to start an adapter that change the base too; PEFT computes that change anew when it loads one.
_CHANGED_BASE = ("pissa", "olora", "corda", "loftq")
_PATTERN_LENGTH = 1000
_BECAUSE = "adapter: the table knows the adapted module by name"


@dataclass(frozen=True, slots=True)
class Lora:
    """The update of one module.

    Attributes:
        module: its path in the base model, without ``.weight``.
        a: stored name of A (r x in).
        b: stored name of B (out x r).
        rank: r.
        shape: (out, in) of the update; of an embedding (vocabulary, hidden).
        embedding: the update is (B·A)ᵀ.
        magnitude: stored name of DoRA's vector, or None.
        bias: stored name of B's bias, or None.
    """

    module: str
    a: str
    b: str
    rank: int
    shape: tuple[int, int]
    embedding: bool
    magnitude: str | None
    bias: str | None

    @property
    def names(self) -> tuple[str, ...]:
        """All stored tensors."""
        return tuple(name for name in (self.a, self.b, self.magnitude, self.bias) if name is not None)


@dataclass(frozen=True, slots=True)
class Adapter:
    """An open LoRA adapter.

    Attributes:
        checkpoint: its files; ``checkpoint.config`` is adapter_config.json.
        weights: its tensors.
        loras: module → update, in file order.
        scales: module → s.
        plain: name in the base → stored name, for tensors that stand for the base's.
        transposed: the adapted layers store (in x out), as GPT-2's do (``fan_in_fan_out``).
    """

    checkpoint: Checkpoint
    weights: Weights
    loras: Mapping[str, Lora]
    scales: Mapping[str, float]
    plain: Mapping[str, str]
    transposed: bool


def is_adapter(names: Iterable[str]) -> bool:
    """Whether these are the names of an adapter's tensors."""
    return any("lora_" in name and _FACTOR.fullmatch(name) for name in names)


def read_adapter(model: str | os.PathLike[str] | Checkpoint) -> Adapter:
    """Open a LoRA adapter: a folder, its ``adapter_model.safetensors``, or an open checkpoint of it.

    Raises:
        FormatError: no adapter, factors that don't fit together, or a config that doesn't say the scale.
        UnsupportedFormatError: another kind of adapter than LoRA (and DoRA, rsLoRA), or one that changes the base.
    """
    checkpoint = open(model)
    weights = Weights(checkpoint)
    path = checkpoint.config_file.path or (checkpoint.files[0].path if checkpoint.files else None)
    loras, plain, problems = _sorted_out(weights.shapes)
    if not loras and not problems:
        raise FormatError(f"{escape(checkpoint.source)} holds no LoRA factors", path=path, code="no_adapter")
    if problems:
        name, problem = problems[0]
        raise FormatError(problem, path=checkpoint.files[0].path, tensor=name, code="adapter_factors")
    config = checkpoint.config
    _refuse_other_kinds(config, path)
    scales = {module: _scale(lora, config, path) for module, lora in loras.items()}
    return Adapter(checkpoint, weights, loras, scales, plain, config.get("fan_in_fan_out") is True)


# Places


def match_adapter(shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> Matched:
    """The places of an adapter's tensors, by the table of families.

    Args:
        shapes: its tensors' names → shapes, in file order.
        config: adapter_config.json; may be empty.

    Returns:
        What `match` says of the modules that are adapted, told of the tensors that adapt them.
    """
    loras, plain, problems = _sorted_out(shapes)
    transposed = config.get("fan_in_fan_out") is True
    whole: dict[str, tuple[int, ...]] = {}
    for module, lora in loras.items():
        whole[module + ".weight"] = lora.shape[::-1] if transposed and not lora.embedding else lora.shape
    for name, stored in plain.items():
        whole.setdefault(name, shapes[stored])
    matched = match(whole, {})
    by_weight: dict[str, list[Assignment]] = defaultdict(list)
    for assignment in matched.assignments:
        if not assignment.tied:  # the head that is an embedding is the base's, not the adapter's
            by_weight[assignment.view.weight].append(replace(assignment, because=_BECAUSE))
    made: list[Assignment] = []
    for module, lora in loras.items():
        for number, assignment in enumerate(by_weight[module + ".weight"]):
            made += _factors(lora, assignment, shapes, first=number == 0)
    for name, stored in plain.items():
        made += [replace(a, view=replace(a.view, weight=stored)) for a in by_weight[name]]
    order = {name: k for k, name in enumerate(shapes)}
    made.sort(key=lambda a: order[a.view.weight])
    placed = {a.view.weight for a in made}
    notes = (*matched.notes, *(f"{escape(name)}: {problem}" for name, problem in problems))
    unmatched = tuple(name for name in shapes if name not in placed)
    # Many families call their projections alike, and an adapter holds too little to tell them apart: none is named.
    return Matched(tuple(made), {}, matched.geometry, unmatched, notes)


def _factors(
    lora: Lora, whole: Assignment, shapes: Mapping[str, tuple[int, ...]], *, first: bool
) -> Iterable[Assignment]:
    """The factors of what `whole` is in the adapted weight. A serves all that is cut from a fused weight."""

    def at(what: str, name: str, view: View, tied: bool = False) -> Assignment:
        role = f"{whole.place.role}.lora_{what}"
        place = Place(whole.place.stack, whole.place.block, role, whole.place.expert)
        return Assignment(place, view, whole.source, whole.confidence, whole.because, tied)

    rows = whole.view.rows
    n = rows.n if rows is not None else shapes[lora.b][0]
    yield at("a", lora.a, View(lora.a, shapes[lora.a]), tied=not first)
    yield at("b", lora.b, View(lora.b, (n, lora.rank), rows=rows))
    for what, name in (("magnitude", lora.magnitude), ("b_bias", lora.bias)):
        if name is not None:
            yield at(what, name, View(name, (n,) if rows is not None else shapes[name], rows=rows))


# Names and shapes


def _sorted_out(shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, Lora], dict[str, str], list[tuple[str, str]]]:
    """Updates by module, plain tensors by their name in the base, and (name, what is wrong) of the rest."""
    parts: dict[str, dict[str, str]] = {}
    plain: dict[str, str] = {}
    problems: list[tuple[str, str]] = []
    for name in shapes:
        found = _FACTOR.fullmatch(name) if "lora_" in name else None
        if found is None:
            plain[_WRAPPING.sub("", name.removeprefix("base_model.model."))] = name
            continue
        part = _PARTS[found["part"]] + ("_bias" if found["kind"] == "bias" else "")
        mine = parts.setdefault(found["module"], {})
        if part in mine:
            problems.append((name, f"{escape(mine[part])} is the same factor: one file holds several adapters"))
        mine.setdefault(part, name)
    loras: dict[str, Lora] = {}
    for module, mine in parts.items():
        made = _lora(module, mine, shapes)
        if isinstance(made, Lora):
            loras[module] = made
        else:
            problems.append((next(iter(mine.values())), made))
    return loras, plain, problems


def _lora(module: str, parts: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]) -> Lora | str:
    """The update of one module, or why its parts make none."""
    embedding = "embedding_a" in parts or "embedding_b" in parts
    a, b = (parts.get(("embedding_" if embedding else "") + part) for part in "ab")
    if a is None or b is None:
        return f"{escape(module)} has only one of the two factors A and B"
    (sa, sb) = shapes[a], shapes[b]
    if len(sa) != 2 or len(sb) != 2 or sa[0] != sb[1]:
        return f"factors of shapes {list(sa)} and {list(sb)}: A must be (r x in) and B (out x r)"
    shape = (sa[1], sb[0]) if embedding else (sb[0], sa[1])
    magnitude, bias = parts.get("magnitude"), parts.get("b_bias")
    for name in (magnitude, bias):
        if name is not None and shapes[name] != (sb[0],):
            return f"{escape(name)} has shape {list(shapes[name])}, expected [{sb[0]}]"
    return Lora(module, a, b, sa[0], shape, embedding, magnitude, bias)


# The config


def _refuse_other_kinds(config: Mapping[str, Any], path: str | None) -> None:
    """Errors for what changes weights in another way than W + s·B·A."""
    kind = config.get("peft_type", "LORA")
    start = config.get("init_lora_weights")
    problems = (
        (str(kind).upper() != "LORA", f"an adapter of type {escape(str(kind), 60)}; LoRA is read"),
        (
            isinstance(start, str) and start.lower().startswith(_CHANGED_BASE),
            f"it starts from a base that {escape(str(start), 60)} changed: save it with "
            "path_initial_model_for_weight_conversion, which makes a plain LoRA of it",
        ),
        (bool(config.get("layer_replication")), "it repeats layers of the base (layer_replication)"),
        (bool(config.get("target_parameters")), "it adapts parameters that are no layers (target_parameters)"),
        (bool(config.get("trainable_token_indices")), "it trains single tokens (trainable_token_indices)"),
        (bool(config.get("use_qalora")), "it pools its input (use_qalora)"),
        (config.get("arrow_config") is not None, "it routes between adapters (arrow_config)"),
    )
    for found, what in problems:
        if found:
            raise UnsupportedFormatError(f"this adapter can't be merged: {what}", path=path, code="adapter_kind")


def _scale(lora: Lora, config: Mapping[str, Any], path: str | None) -> float:
    """alpha / r, or alpha / √r, of one module."""
    alpha = _of_module(lora.module, config.get("alpha_pattern"), config.get("lora_alpha"), path)
    rank = _of_module(lora.module, config.get("rank_pattern"), config.get("r"), path)
    if not isinstance(alpha, int | float) or isinstance(alpha, bool):
        message = f"adapter_config.json doesn't say lora_alpha of {escape(lora.module)}: the scale isn't known"
        raise FormatError(message, path=path, tensor=lora.b, code="adapter_config")
    if rank != lora.rank:
        message = f"adapter_config.json says rank {escape(str(rank), 40)}, but A has {lora.rank} rows"
        raise FormatError(message, path=path, tensor=lora.a, code="adapter_config")
    return float(alpha) / (math.sqrt(lora.rank) if config.get("use_rslora") is True else lora.rank)


def _of_module(module: str, patterns: Any, default: Any, path: str | None) -> Any:
    """The value of the first pattern that the module's name ends with, as PEFT looks it up; else the default."""
    if not patterns:
        return default
    if not isinstance(patterns, Mapping):
        raise FormatError("rank_pattern and alpha_pattern map names to numbers", path=path, code="adapter_config")
    for pattern, value in patterns.items():
        if _safe(pattern, path).match(module):
            return value
    return default


def _safe(pattern: str, path: str | None) -> re.Pattern[str]:
    """A pattern of strangers, compiled; refused where matching it could take for ever."""
    # Backtracking grows with the power of unbounded repetitions, and without bound where one contains another.
    repeats = len(re.findall(r"(?<!\\)(?:\\\\)*[*+{]", pattern))
    if len(pattern) > _PATTERN_LENGTH or repeats > 3 or re.search(r"\)\s*[*+{]", pattern):
        message = f"the pattern {escape(pattern, 80)} repeats too much to be matched safely"
        raise FormatError(message, path=path, code="adapter_pattern")
    try:
        return re.compile(rf"(.*\.)?({pattern})$")
    except (re.error, OverflowError, RecursionError) as error:
        message = f"{escape(pattern, 80)} is no regular expression: {error}"
        raise FormatError(message, path=path, code="adapter_pattern") from error


def names_of(loras: Iterable[Lora], limit: int = 5) -> str:
    """Module names for a message."""
    modules: Sequence[str] = [lora.module for lora in loras]
    shown = ", ".join(escape(module, 120) for module in modules[:limit])
    return shown + (f" and {len(modules) - limit} more" if len(modules) > limit else "")
