"""Does config.json's ``model_type`` name the family that the tensors are of?

Names are never proof of an origin, but a loader goes by them: a class that knows other names, or other biases, drops
what is here and draws the rest anew. The table of families says which names a type has. It is held against the
tensors only where they are another family's by a name in every block, and no row of the said type explains that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from weightprint.anatomy.adapters.adapters import is_adapter
from weightprint.anatomy.families.table import FAMILIES
from weightprint.anatomy.family import Family
from weightprint.anatomy.geometry import configs, model_types
from weightprint.anatomy.match import match
from weightprint.anatomy.names import compiled
from weightprint.check.context import CheckContext, listed
from weightprint.check.rules.quantised import is_packed
from weightprint.results.finding import Finding
from weightprint.util.escape import escape

#: Types that always have biases of q, k and v, and none of o.
_WITH_BIASES = frozenset({"qwen2", "qwen2_moe"})
#: Types that have none unless ``attention_bias`` says so, and then one of o, too.
_WITHOUT = frozenset({"llama", "mistral", "mixtral", "ministral", "gemma", "gemma2", "qwen3", "phi3"})
#: Types whose queries and keys always pass a norm.
_WITH_NORMS = frozenset({"qwen3", "gemma3", "gemma3_text", "olmo2", "olmo3"})
_TOWERS = frozenset({"vision", "audio", "deepstack"})


def family(context: CheckContext) -> Iterator[Finding]:
    """Tensors that are named as another family's than the config says."""
    anatomy, shapes = context.anatomy, context.anatomy.weights.shapes
    types = model_types(context.config)
    claimed = [row for row in FAMILIES if not types.isdisjoint(row.model_types)]
    found = anatomy.families.get(anatomy.main_stack)
    if not claimed or found is None or not found.model_types or found.name.startswith("gguf"):
        return
    if is_adapter(context.checkpoint.names()) or any(row in claimed for row in anatomy.families.values()):
        return
    stack = anatomy.main_stack.split(":")[0]
    if any(_has_towers(row) and stack not in {s.name for s in row.stacks} for row in claimed):
        return  # a composite's type says little of its other parts
    n_blocks = len({a.place.block for a in anatomy.assignments if a.place.stack == anatomy.main_stack} - {None})
    inside = (a for a in anatomy.assignments if a.place.stack == anatomy.main_stack and a.place.block is not None)
    placed = {a.view.weight for a in inside}
    strange = [name for name in match(shapes, context.config, claimed).unmatched if name in placed]
    if n_blocks and len(strange) >= n_blocks:
        message = (
            f"config.json says {' and '.join(escape(t, 40) for t in sorted(types))}, and the tensors are named as "
            f"{found.name}'s: {listed(strange)}"
        )
        yield Finding("config_family", "warning", message, context.checkpoint.config_file.path, strange[0])


def unfitting(context: CheckContext) -> Iterator[Finding]:
    """Tensors under the names of the family that the config says, in shapes that can't be its: one rank's rows, parts
    joined along the wrong axis."""
    anatomy = context.anatomy
    types = model_types(context.config)
    claimed = [row for row in FAMILIES if not types.isdisjoint(row.model_types) and not row.name.startswith("gguf")]
    found = anatomy.families.get(anatomy.main_stack)
    if not claimed or is_adapter(context.checkpoint.names()) or (found is not None and found not in claimed):
        return
    weights = anatomy.weights
    if any(not weight.readable or is_packed(weight) for weight in weights.values()):
        return
    left = match(weights.shapes, context.config, claimed).unmatched
    known = [name for name in left if weights[name].numel and any(_knows(row, name) for row in claimed)]
    matrices = [name for name in known if len(weights[name].shape) > 1]
    if matrices:
        first = "×".join(map(str, weights[matrices[0]].shape))
        message = (
            f"config.json says {' and '.join(escape(t, 40) for t in sorted(types))}, and {len(known):,} tensors have "
            f"its names and shapes that don't fit together ({first} the first): {listed(matrices)}"
        )
        yield Finding("config_unfit", "error", message, context.checkpoint.config_file.path, matrices[0])


def _knows(row: Family, name: str) -> bool:
    """Whether a parameter inside blocks is called so in this family."""
    for stack in row.stacks:
        front, _, back = stack.block.partition("{b}")
        found = (
            re.search(rf"(?:^|\.){re.escape(front)}[0-9]+{re.escape(back.removesuffix('.'))}\.(.+)$", name)
            if stack.block
            else None
        )
        if found and found[1] in compiled(stack.inside):
            return True
    return False


def _has_towers(row: Family) -> bool:
    return any(stack.name in _TOWERS for stack in row.stacks)


def attention_parts(context: CheckContext) -> Iterator[Finding]:
    """Biases of q, k and v alone tell Qwen2 from Llama and its kin, norms of q and k Qwen3; no other name does."""
    stack = context.anatomy.main_stack
    said, row = next(iter(configs(context.config, stack)), {}), context.anatomy.families.get(stack)
    kind = said.get("model_type")
    if row is None or not isinstance(kind, str) or is_adapter(context.checkpoint.names()):
        return
    here = {a.place.role: a.view.weight for a in context.anatomy.assignments if a.place.stack == stack}
    biases = [here[role] for role in ("q_bias", "k_bias", "v_bias") if role in here]
    lacks = "q" in here and {
        "biases of q, k and v": kind in _WITH_BIASES and said.get("qkv_bias", True) is not False and not biases,
        "norms of q and k": kind in _WITH_NORMS and "q_norm" not in here,
    }
    for what, absent in (lacks or {}).items():
        if absent:
            yield _attention(context, f"{kind}, which has {what}, and none is here: loaders draw them anew", here["q"])
    may = (
        kind in _WITHOUT and "attention_bias" not in said and not row.name.startswith("gguf")
    )  # whose reader takes any
    if may and len(biases) == 3 and "o_bias" not in here:
        text = f"{kind}, which has no biases, and those of q, k and v are here, as Qwen2 has them: loaders drop them"
        yield _attention(context, text, biases[0])


def _attention(context: CheckContext, text: str, tensor: str) -> Finding:
    message = f"config.json says {escape(text)}: {escape(tensor)}"
    return Finding("config_family", "warning", message, context.checkpoint.config_file.path, tensor)
