"""Adapters: which tensor is which part of whose update, at which place that is, and with which scale.

Names are read by :mod:`weightprint.anatomy.adapters.dialects`. With W (out x in) a weight, s a scale, the updates are::

    LoRA  W + s·B·A, of an embedding W + s·(B·A)ᵀ     s = alpha / r; rsLoRA: alpha / √r   (2106.09685, 2312.03732)
    DoRA  m · W' / ‖W'‖ by output, W' as LoRA's                                           (2402.09353)
    LoHa  W + s·(w1a·w1b) ∘ (w2a·w2b)                 s = alpha / r                       (2108.06098)
    LoKr  W + s·(w1 ⊗ w2), either maybe a product     s = alpha / r, 1 if neither is one  (2212.10650)
    VeRA  W + diag(b)·B·diag(d)·A, B and A those of all modules, cut to its size          (2310.11454)
    OFT   W·Rᵀ                 R block-diagonal, (I - Q)(I + Q)⁻¹ of skew Q               (2306.07280)
    BOFT  diag(s)·W·Rᵀ         R a product of such, each between permutations             (2311.06243)
    HRA   W·H₁ ⋯ Hᵣ            Hᵢ = I - 2uuᵀ                                              (2405.17484)
    IA3   rows or columns of W times l (PEFT), times 1 + l (LyCORIS)                      (2205.05638)
    diff  W + D
    norms: trained gains and biases in place of the base's (LN_TUNING)                   (2312.11420)
    trained tokens: rows of W, those that ``token_indices`` or ``trainable_token_indices`` name, are the stored ones

Scales are where the dialect keeps them: adapter_config.json of PEFT (``alpha_pattern``, ``rank_pattern``: regular
expressions on the ends of module names) and of mlx (``lora_parameters.scale``), a tensor ``alpha`` beside the factors,
a GGUF file's ``adapter.lora.alpha``; where kohya's and diffusers' say nothing, s is 1. Plain tensors stand for the
base's own (``modules_to_save``, trained biases).

Read as a model in its own right, an adapter's tensors get the places of what they change: the table of families sees a
weight of the module's shape, and where it finds q, A is ``q.lora_a``, B ``q.lora_b``, m ``q.lora_magnitude``. Where it
cuts a fused weight, B's rows are cut likewise and A serves all. Of several adapters in one file each has its name
behind: ``q.lora_a.vision``.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from weightprint.anatomy.adapters.dialects import KINDS, Update, factors_of, inside_a_model, updates_of
from weightprint.anatomy.match import Matched, match
from weightprint.anatomy.place import Assignment, Place, View
from weightprint.checkpoint.checkpoint import Checkpoint, open
from weightprint.errors import FormatError, UnsupportedFormatError
from weightprint.quant.weights import Weights
from weightprint.util.escape import escape

#: What wrapping puts into the names of plain tensors.
_WRAPPING = re.compile(r"\.base_layer(?=\.)|\.modules_to_save(?:\.default)?(?=\.)")
#: Ways to start an adapter that change the base too; PEFT computes that change anew when it loads one.
_CHANGED_BASE = ("pissa", "olora", "corda", "loftq")
#: PEFT's name of a kind.
_PEFT_TYPES = {kind.upper(): kind for kind in KINDS} | {"TRAINABLE_TOKENS": "tokens", "LN_TUNING": "norms"}
_PEFT_TYPES |= dict.fromkeys(("PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING", "MULTITASK_PROMPT_TUNING", "CPT"), "prompt")
#: Kinds whose formula is read.
_READ = frozenset({"lora", "loha", "lokr", "ia3", "diff", "vera", "tokens", "oft", "boft", "hra", "norms"})
_MERGE = "merge it with the library that made it (PEFT's merge_and_unload), and name what that saves"
_PATTERN_LENGTH = 1000
_BECAUSE = "adapter: the table knows the adapted module by name"


@dataclass(frozen=True, slots=True)
class Adapter:
    """An open adapter.

    Attributes:
        checkpoint: its files; ``checkpoint.config`` is adapter_config.json.
        weights: its tensors.
        updates: module → update, in file order.
        scales: module → s.
        plain: name in the base → stored name, for tensors that stand for the base's.
        transposed: the adapted layers store (in x out), as GPT-2's do (``fan_in_fan_out``).
    """

    checkpoint: Checkpoint
    weights: Weights
    updates: Mapping[str, Update]
    scales: Mapping[str, float]
    plain: Mapping[str, str]
    transposed: bool


def is_adapter(names: Iterable[str]) -> bool:
    """Whether tensors of an adapter are among these names, in whatever dialect."""
    return bool(factors_of(names))


def is_adapter_alone(names: Sequence[str]) -> bool:
    """Whether these are the names of an adapter, and not of a model that has some inside."""
    factors = factors_of(names)
    return bool(factors) and not inside_a_model(names, factors)


def read_adapter(model: str | os.PathLike[str] | Checkpoint) -> Adapter:
    """Open an adapter: a folder, its file, or an open checkpoint of it.

    Raises:
        FormatError: no adapter, factors that don't fit together, or a config that doesn't say the scale.
        UnsupportedFormatError: an adapter without a plain formula, or one that changes the base.
    """
    checkpoint = open(model)
    weights = Weights(checkpoint)
    path = checkpoint.config_file.path or (checkpoint.files[0].path if checkpoint.files else None)
    updates, problems = updates_of(weights.shapes)
    updates = [_of_experts(u, checkpoint.config, path) for u in updates]
    names = {u.adapter for u in updates} | {f.adapter for f in factors_of(weights.shapes).values()}
    if not updates and not problems:
        raise FormatError(f"{escape(checkpoint.source)} holds no LoRA factors", path=path, code="no_adapter")
    if len(names) > 1:
        listed = ", ".join(escape(name or "default", 60) for name in sorted(names))
        message = f"one file holds several adapters: {listed}"
        raise FormatError(message, path=checkpoint.files[0].path, code="adapter_factors")
    if problems:
        name, problem = problems[0]
        raise FormatError(problem, path=checkpoint.files[0].path, tensor=name, code="adapter_factors")
    config = checkpoint.config
    _refuse_other_kinds(config, updates, path)
    by_module = {u.module: u for u in updates}
    scales = {module: _scale(u, weights, path) for module, u in by_module.items()}
    plain = _plain(weights.shapes)
    for update in updates:
        if update.kind == "norms":
            ends = {"norm": "weight", "norm_bias": "bias"}
            plain |= {f"{update.module}.{ends[part]}": name for part, name in update.parts.items() if part in ends}
    return Adapter(checkpoint, weights, by_module, scales, plain, config.get("fan_in_fan_out") is True)


# Places


def match_adapter(shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> Matched:
    """The places of an adapter's tensors, by the table of families.

    Args:
        shapes: its tensors' names → shapes, in file order.
        config: adapter_config.json, or the config.json of the model that the adapters are in; may be empty.

    Returns:
        What `match` says of the modules that are adapted, told of the tensors that adapt them. ``unmatched`` holds no
        factor of an update that was recognised: its module is known by name, if not by place.
    """
    updates, problems = updates_of(shapes)
    plain = _plain(shapes)
    inside = inside_a_model(list(shapes), factors_of(shapes))
    transposed = config.get("fan_in_fan_out") is True
    several = len({u.adapter for u in updates}) > 1
    whole = {name: shapes[stored] for name, stored in plain.items()}
    for u in updates:
        if u.kind == "lora" and len(u.shape) == 2:
            whole.setdefault(u.module + ".weight", u.shape[::-1] if transposed and not u.embedding else u.shape)
    matched = match(whole, config if inside else {})
    by_weight: dict[str, list[Assignment]] = defaultdict(list)
    for assignment in matched.assignments:
        if inside or not assignment.tied:  # the head that is an embedding is the base's, not the adapter's
            by_weight[assignment.view.weight].append(assignment if inside else replace(assignment, because=_BECAUSE))
    made: list[Assignment] = []
    for u in updates:
        if u.kind == "lora" and len(u.shape) == 2:
            for number, assignment in enumerate(a for a in by_weight[u.module + ".weight"] if not a.tied):
                made += _factors(u, assignment, shapes, first=number == 0, name=f".{u.adapter}" if several else "")
    for name, stored in plain.items():
        made += [replace(a, view=replace(a.view, weight=stored)) for a in by_weight[name]]
    order = {name: k for k, name in enumerate(shapes)}
    made.sort(key=lambda a: order[a.view.weight])
    placed = {a.view.weight for a in made} | {name for u in updates for name in u.names}
    notes = (*matched.notes, *(f"{escape(name)}: {problem}" for name, problem in problems))
    unmatched = tuple(name for name in shapes if name not in placed)
    # Many families call their projections alike, and an adapter holds too little to tell them apart: none is named.
    return Matched(tuple(made), matched.families if inside else {}, matched.geometry, unmatched, notes)


def _factors(
    update: Update, whole: Assignment, shapes: Mapping[str, tuple[int, ...]], *, first: bool, name: str
) -> Iterable[Assignment]:
    """The factors of what `whole` is in the adapted weight. A serves all that is cut from a fused weight."""

    def at(what: str, stored: str, view: View, tied: bool = False) -> Assignment:
        role = f"{whole.place.role}.lora_{what}{name}"
        place = Place(whole.place.stack, whole.place.block, role, whole.place.expert)
        return Assignment(place, view, whole.source, whole.confidence, _BECAUSE, tied)

    parts, rank, rows = update.parts, update.rank or 0, whole.view.rows
    out, inn = update.shape[::-1] if update.embedding else update.shape
    n = rows.n if rows is not None else out
    yield at("a", parts["a"], View(parts["a"], (rank, inn), transposed="a" in update.turned), tied=not first)
    yield at("b", parts["b"], View(parts["b"], (n, rank), transposed="b" in update.turned, rows=rows))
    for what, part in (("magnitude", "magnitude"), ("b_bias", "bias")):
        if (stored := parts.get(part)) is not None:
            yield at(what, stored, View(stored, (n,) if rows is not None else shapes[stored], rows=rows))


def _plain(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """Names in the base → stored names of tensors that are no factors."""
    factors = factors_of(shapes)
    return {_WRAPPING.sub("", n.removeprefix("base_model.model.")): n for n in shapes if n not in factors}


# The config


def _unwrapped(module: str) -> str:
    """The module whose parameters are adapted; each further one of it lies a ``base_layer`` deeper."""
    return re.sub(r"(?:\.base_layer)+$", "", module)


def _adapts_parameters(update: Update, config: Mapping[str, Any]) -> bool:
    """Whether ``target_parameters`` names one of this module's."""
    said = config.get("target_parameters")
    modules = [name.rpartition(".")[0] for name in said if isinstance(name, str)] if isinstance(said, list) else []
    return any(f".{_unwrapped(update.module)}".endswith(f".{module}") for module in modules)


def _of_experts(update: Update, config: Mapping[str, Any], path: str | None) -> Update:
    """An update of PEFT's ``target_parameters``, whose factors hold all experts' ranks, as (experts x out x in)."""
    if update.kind != "lora" or len(update.shape) != 2 or not _adapts_parameters(update, config):
        return update
    rank = _of_module(_unwrapped(update.module), config.get("rank_pattern"), config.get("r"), path)
    if not isinstance(rank, int) or rank < 1 or not update.rank or update.rank % rank or update.rank == rank:
        return update
    return replace(update, rank=rank, shape=(update.rank // rank, *update.shape))


def _refuse_other_kinds(config: Mapping[str, Any], updates: Sequence[Update], path: str | None) -> None:
    """Errors for what changes weights in a way that has no plain formula, or not as the config says."""
    kind, kinds = config.get("peft_type"), {u.kind for u in updates}
    without_shared = any(u.kind == "vera" and not {"vera_A", "vera_B"} <= set(u.parts) for u in updates)
    read = " and ".join(KINDS[k] for k in sorted(kinds))
    called = KINDS.get(_PEFT_TYPES.get(str(kind).upper(), ""))
    said = kind is None or not kinds or called in {KINDS[k] for k in kinds}
    others = sorted(KINDS[k] for k in kinds - _READ - {"turned", "prompt"})
    start = config.get("init_lora_weights")
    absent = [
        key
        for key, here in (
            ("target_parameters", any(_adapts_parameters(u, config) for u in updates)),
            ("trainable_token_indices", "tokens" in kinds),
        )
        if config.get(key) and not here
    ]
    problems = (
        (not said, f"an adapter of type {escape(str(kind), 60)}; {read} is read"),
        ("turned" in kinds, f"it turns the weights in a form of OFT that isn't read; {_MERGE}"),
        (bool(others), f"{' and '.join(others)} has a formula that isn't read; {_MERGE}"),
        (without_shared, "it holds neither vera_A nor vera_B, which PEFT draws anew (save_projection false)"),
        ("prompt" in kinds, "it puts virtual tokens before the input, and changes no weight"),
        (
            isinstance(start, str) and start.lower().startswith(_CHANGED_BASE),
            f"it starts from a base that {escape(str(start), 60)} changed: save it with "
            "path_initial_model_for_weight_conversion, which makes a plain LoRA of it",
        ),
        (bool(config.get("layer_replication")), "it repeats layers of the base (layer_replication)"),
        (bool(absent), f"its config names {' and '.join(absent)}, and no tensor is of them"),
        (bool(config.get("use_qalora")), "it pools its input (use_qalora)"),
        (config.get("arrow_config") is not None, "it routes between adapters (arrow_config)"),
    )
    for found, what in problems:
        if found:
            raise UnsupportedFormatError(f"this adapter can't be merged: {what}", path=path, code="adapter_kind")


def _scale(update: Update, weights: Weights, path: str | None) -> float:
    """s of one module; 1 where there is none."""
    if update.kind == "tokens":
        token_rows(update, weights)
    if update.kind in _READ - {"lora", "loha", "lokr"}:
        return 1.0
    config, rank = weights.checkpoint.config, update.rank
    alpha = alpha_of(update, weights, path)
    if update.dialect == "mlx":
        said = config.get("lora_parameters")
        said = said if isinstance(said, Mapping) else {}
        if not _is_number(said.get("scale")):
            raise _no_scale(update, "lora_parameters.scale", path)
        _held_against(said.get("rank", rank), update, path)
        return float(said["scale"])
    if update.dialect == "PEFT" and "alpha" not in update.parts:
        _held_against(_of_module(update.module, config.get("rank_pattern"), config.get("r"), path), update, path, alpha)
        rank = rank or config.get("r")
        if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
            raise _no_scale(update, "r", path)
        return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") is True else rank)
    if rank is None or not _is_number(alpha) or (update.dialect == "GGUF" and not alpha):
        return 1.0
    return float(alpha) / rank


def alpha_of(update: Update, weights: Weights, path: str | None) -> Any:
    """alpha of one module, from where its dialect keeps it; None where it is not said."""
    config, metadata = weights.checkpoint.config, weights.checkpoint.metadata
    if (stored := update.parts.get("alpha")) is not None:
        return float(weights.read(stored).reshape(-1)[0]) if math.prod(weights[stored].shape) == 1 else None
    if update.dialect == "GGUF":
        said = metadata.get("adapter.lora.alpha", "")
        return float(said) if re.fullmatch(r"[0-9.]{1,30}", said) and said.count(".") < 2 else None
    if update.dialect == "diffusers" and "lora_alpha" not in config:
        return _diffusers_alpha(update.module, metadata.get("lora_adapter_metadata"))
    if update.dialect in ("PEFT", "diffusers"):
        own = config.get(f"{update.adapter}_lora")  # of an adapter inside a model, as Phi-4 has them
        where = own if update.adapter and isinstance(own, Mapping) else config
        default = where.get("lora_alpha" if update.kind == "lora" else "alpha")
        return _of_module(update.module, config.get("alpha_pattern"), default, path)
    return None


def _diffusers_alpha(module: str, said: str | None) -> Any:
    """What diffusers keeps of every component's config in the metadata."""
    try:
        values = json.loads(said) if said and len(said) < 1_000_000 else {}
    except (ValueError, RecursionError):
        return None
    return values.get(module.split(".")[0] + ".lora_alpha") if isinstance(values, dict) else None


def _held_against(said: Any, update: Update, path: str | None, alpha: Any = 0) -> None:
    """FormatError where the config says no alpha, or another rank than the factors have."""
    if not _is_number(alpha):
        raise _no_scale(update, "lora_alpha", path)
    if update.rank is not None and said != update.rank:
        message = f"adapter_config.json says rank {escape(str(said), 40)}, but A has {update.rank} rows"
        raise FormatError(message, path=path, tensor=update.parts.get("a", update.first), code="adapter_config")


def _no_scale(update: Update, key: str, path: str | None) -> FormatError:
    message = f"adapter_config.json doesn't say {key} of {escape(update.module)}: the scale isn't known"
    return FormatError(message, path=path, tensor=update.first, code="adapter_config")


def token_rows(update: Update, weights: Weights) -> list[int]:
    """Which rows of an embedding the stored ones stand for; FormatError where the config doesn't say so of each."""
    config = weights.checkpoint.config
    said = config.get("token_indices", config.get("trainable_token_indices"))
    if isinstance(said, Mapping):
        said = next((rows for module, rows in said.items() if f".{update.module}".endswith(f".{module}")), None)
    n = weights[update.first].shape[0]
    whole = isinstance(said, list) and all(isinstance(row, int) and row >= 0 for row in said)
    if not isinstance(said, list) or not whole or len(said) != n:
        message = f"adapter_config.json doesn't say which {n} tokens of {escape(update.module)} were trained"
        raise FormatError(message, path=weights.checkpoint.config_file.path, tensor=update.first, code="adapter_config")
    return said


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


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
