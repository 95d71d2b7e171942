"""config.json against the tensors. The tensors count; a config that says otherwise belongs to another save."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from weightprint.anatomy.adapters.adapters import is_adapter
from weightprint.anatomy.geometry import CONFIG_KEYS, configs
from weightprint.anatomy.place import Geometry
from weightprint.check.context import CheckContext
from weightprint.check.rules.quantised import is_packed
from weightprint.quant.hints import Hints
from weightprint.results.finding import Finding, Severity
from weightprint.util.escape import escape

_VOCABULARY = ("vocab_size", "padded_vocab_size")
_EXTRA_BLOCKS = ("num_nextn_predict_layers", "num_mtp_layers", "mtp_num_hidden_layers")
#: Its intermediate_size counts gate and up together.
_GATE_AND_UP = "qwen"
#: quant_method → what the names of its schemes start with; other methods store several.
_SCHEMES: dict[str, tuple[str, ...]] = {
    "gptq": ("gptq",),
    "awq": ("awq",),
    "bitsandbytes": ("bnb",),
    "fp8": ("fp8", "mxfp8"),
    "mxfp4": ("mxfp4",),
    "bitnet": ("bitnet",),
    "hqq": ("hqq",),
}
#: field of Geometry → what a person reads; only what shapes alone tell.
_COMPARED = {"hidden": "hidden size", "experts": "experts", "ffn": "FFN size"}


def sizes(context: CheckContext) -> Iterator[Finding]:
    """Blocks, widths, experts, heads and vocabulary of the main stack."""
    anatomy = context.anatomy
    stack, path = anatomy.main_stack, context.checkpoint.config_file.path
    geometry = anatomy.geometry.get(stack)
    ranks = any(finding.code == "tensor_parallel_ranks" for finding in context.checkpoint.findings)
    if geometry is None or not context.config or is_adapter(context.checkpoint.names()) or ranks:
        return
    if any(not weight.readable or is_packed(weight) for weight in anatomy.weights.values()):
        return  # what isn't decoded has no shape to speak of
    said = _said(context.config, stack, geometry)
    found: list[tuple[str, Severity, str]] = []
    blocks = {a.place.block for a in anatomy.assignments if a.place.stack == stack and a.place.block is not None}
    told, here = _blocks(said), len(blocks)
    extra = sum(n for key in _EXTRA_BLOCKS if isinstance(n := said.get(key), int))
    if told and here and not told <= here <= told + extra and stack in anatomy.families:
        severity: Severity = "error" if here < told else "warning"
        if not (here < told and (context.location.missing or _is_part(context))):
            found.append(("config_blocks", severity, f"{told:,} blocks, and {here:,} are here"))
    kinds = said.get("layer_types")
    if isinstance(kinds, list) and told and len(kinds) != told and here == told:
        found.append(("config_blocks", "warning", f"layer_types of {len(kinds):,} blocks, and {here:,} are here"))
    for field, words in _COMPARED.items():
        told, here = _number(said, field), getattr(geometry, field)
        if field == "ffn" and said.get("model_type") == _GATE_AND_UP and told:
            told //= 2
        if told and here and told != here and _from_shapes(context, stack, field, said):
            found.append((f"config_{field}", "warning", f"{words} {told:,}, and the tensors say {here:,}"))
    experts = _number(said, "experts")
    roles = {a.place.role for a in anatomy.assignments if a.place.stack == stack}
    if experts and experts > 1 and not geometry.experts and "up" in roles and "router" not in roles:
        found.append(("config_experts", "warning", f"experts {experts:,}, and the tensors have none"))
    found += _heads(context, stack, said)
    rows = geometry.vocabulary
    told = next((n for key in _VOCABULARY if isinstance(n := said.get(key), int) and n > 0), None)
    if rows and told and rows < told:
        text = f"a vocabulary of {told:,}, and the embedding has {rows:,} rows"
        found.append(("config_vocabulary", "error", text))
    for code, severity, text in found:
        yield Finding(code, severity, f"{_file(context)} says {text}", path)


#: Stacks beside the main one → key of the nested config, and key of the number of blocks in the main one.
_TOWERS = {
    "vision": ("vision_config", ""),
    "audio": ("audio_config", "encoder_layers"),
    "encoder": ("encoder", "encoder_layers"),
    "text": ("text_config", ""),
}


def towers(context: CheckContext) -> Iterator[Finding]:
    """Blocks of the stacks beside the main one, where the config speaks of them apart."""
    anatomy, config = context.anatomy, context.config
    if not config or is_adapter(context.checkpoint.names()) or context.location.missing:
        return
    for stack, (nested, key) in _TOWERS.items():
        inner = config.get(nested)
        told = _blocks(inner) if isinstance(inner, Mapping) else config.get(key)
        here = {a.place.block for a in anatomy.assignments if a.place.stack == stack and a.place.block is not None}
        if stack == anatomy.main_stack or stack not in anatomy.families or not isinstance(told, int):
            continue
        if here and told and told != len(here):
            severity: Severity = "error" if len(here) < told else "warning"
            message = f"{_file(context)} says {told:,} blocks of {stack}, and {len(here):,} are here"
            yield Finding("config_blocks", severity, message, context.checkpoint.config_file.path)


def _file(context: CheckContext) -> str:
    return "the file's metadata" if context.checkpoint.ggml_types or context.checkpoint._ggufs else "config.json"


def _said(config: Mapping[str, Any], stack: str, geometry: Geometry) -> Mapping[str, Any]:
    """The config of the stack: the nested one with its hidden size, else the first that names one."""
    candidates = [c for c in configs(config, stack) if _number(c, "hidden")]
    fitting = [c for c in candidates if _number(c, "hidden") == geometry.hidden]
    return next(iter(fitting or candidates), {})


def _number(config: Mapping[str, Any], field: str) -> int | None:
    """The number under the first of the field's spellings that the config has; None where it is a list or no number."""
    for key in CONFIG_KEYS[field]:
        if key in config:
            value = config[key]
            return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
    return None


def _is_part(context: CheckContext) -> bool:
    """Whether one file of a set was named: the rest lies in others."""
    return any(finding.code == "part_of_set" for finding in context.location.findings)


def _blocks(config: Mapping[str, Any]) -> int | None:
    """How many blocks are stored: ALBERT's run several times."""
    if isinstance(of_stack := config.get("layers"), int) and not isinstance(of_stack, bool):
        return of_stack  # decoder_layers: `configs` leaves the stack's name out
    groups = config.get("num_hidden_groups", 1 if config.get("model_type") == "albert" else None)
    if groups is None:
        return _number(config, "blocks")
    inner = config.get("inner_group_num", 1)
    return groups * inner if isinstance(groups, int) and isinstance(inner, int) else None


def _from_shapes(context: CheckContext, stack: str, field: str, said: Mapping[str, Any]) -> bool:
    """Whether the geometry's number is the tensors' own, and the same in every block."""
    here = [a for a in context.anatomy.assignments if a.place.stack == stack and a.place.block is not None]
    if stack not in context.anatomy.families:
        return False
    if field == "experts":
        return any(isinstance(a.place.expert, int) for a in here)
    if field == "ffn":
        # Experts have a size of their own, under other keys; blocks of several sizes are told by lists.
        rows = {a.view.shape[0] for a in here if a.place.role == "up"}
        return len(rows) == 1 and all(a.place.expert is None for a in here if a.place.role == "up")
    return True


def _heads(context: CheckContext, stack: str, said: Mapping[str, Any]) -> Iterator[tuple[str, Severity, str]]:
    """Rows of q and k against heads × head size, in plain attention."""
    heads, size, kv = (_number(said, field) for field in ("heads", "head_dim", "kv_heads"))
    if stack not in context.anatomy.families or not heads:
        return
    rows: dict[str, set[int]] = {"q": set(), "k": set()}
    for a in context.anatomy.assignments:
        if a.place.stack == stack and a.place.role in rows and len(a.view.shape) == 2:
            rows[a.place.role].add(a.view.shape[0])
    if len(rows["q"]) != 1 or len(rows["k"]) != 1:
        return
    (q,), (k,) = rows["q"], rows["k"]
    if size is None:
        if q % heads:
            yield "config_heads", "warning", f"{heads:,} heads, and q has {q:,} rows"
            return
        size = q // heads
    elif q != heads * size:
        yield "config_heads", "warning", f"{heads:,} heads of {size:,}, and q has {q:,} rows"
        return
    if _is_multi_query(said):
        kv = 1
    if kv and k != kv * size:
        yield "config_heads", "warning", f"{kv:,} key-value heads of {size:,}, and k has {k:,} rows"


def _is_multi_query(config: Mapping[str, Any]) -> bool:
    """Whether one head of keys serves all, whatever number stands beside it, as in Falcon-7B's config."""
    return config.get("multi_query") is True and config.get("new_decoder_architecture") is not True


def ties(context: CheckContext) -> Iterator[Finding]:
    """A config that ties head and embedding beside a stored head that is another matrix."""
    if context.config.get("tie_word_embeddings") is not True:
        return
    stack = context.anatomy.main_stack
    stored = {
        a.place.role: a.view.weight
        for a in context.anatomy.assignments
        if a.place.stack == stack and a.place.block is None and a.place.role in ("head", "embedding") and not a.tied
    }
    rows = {role: context.row_of.get(name) for role, name in stored.items()}
    if len(stored) < 2 or None in rows.values():
        return
    weights = context.anatomy.weights
    head, embedding = stored["head"], stored["embedding"]
    if weights[head].scheme or weights[embedding].scheme or weights[head].dtype != weights[embedding].dtype:
        return
    digest = context.column("digest")
    if digest[rows["head"]] != digest[rows["embedding"]]:
        message = f"{_file(context)} says that the head is the embedding, and {escape(head)} holds other values: "
        message += "a loader that ties them drops it"
        yield Finding("config_ties", "warning", message, context.checkpoint.config_file.path, head)


def quantisation(context: CheckContext) -> Iterator[Finding]:
    """A quantisation that the config names and no tensor shows, and other bits than it says."""
    hints = Hints.of(context.checkpoint)
    weights = context.anatomy.weights.values()
    path = context.checkpoint.config_file.path
    # What is quantised while loading (bitsandbytes, torchao) may be stored plainly.
    at_load = {"bitsandbytes", "torchao", "quanto", "hqq", "eetq", "fbgemm_fp8"}
    packed = any(weight.scheme is not None for weight in weights)
    small = any(weight.dtype[0] in "IU" or weight.dtype.startswith(("F8", "F4", "F6")) for weight in weights)
    if hints.method and hints.method not in at_load and not packed and not small:
        message = f"config.json says {escape(hints.method, 40)}, and no tensor is quantised"
        yield Finding("config_quantisation", "warning", message, path)
    schemes = {weight.scheme for weight in weights if weight.scheme is not None and weight.readable}
    wanted = _SCHEMES.get(hints.method or "")
    if wanted and schemes and not any(scheme.startswith(wanted) for scheme in schemes):
        message = f"config.json says {escape(str(hints.method), 40)}, and the tensors are {', '.join(sorted(schemes))}"
        yield Finding("config_quantisation", "warning", message, path)
    sizes_here = {n for weight in weights if isinstance(n := weight.parameters.get("group_size"), int)}
    if len(hints.group_sizes) == 1 and sizes_here and hints.group_sizes[0] not in sizes_here:
        here = ", ".join(map(str, sorted(sizes_here)))
        message = f"config.json says groups of {hints.group_sizes[0]}, and the scales are of groups of {here}"
        yield Finding("config_quantisation", "warning", message, path)
    bits = [b for weight in weights if isinstance(b := weight.parameters.get("bits"), int)]
    if len(hints.bits) == 1 and bits and not np.isin(hints.bits[0], bits):
        message = f"config.json says {hints.bits[0]} bits, and the codes have {', '.join(map(str, sorted(set(bits))))}"
        yield Finding("config_quantisation", "warning", message, path)
