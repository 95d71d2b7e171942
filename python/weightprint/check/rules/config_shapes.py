"""What config.json says of single tensors: rows of tables, widths of kernels and latents, biases, layers of diffusers.

A table of (role, axis, keys): the tensors that have the role must have the size on that axis that the first key in the
config of their stack names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from weightprint.anatomy.adapters.adapters import is_adapter
from weightprint.anatomy.geometry import configs
from weightprint.anatomy.place import Assignment
from weightprint.check.context import CheckContext
from weightprint.results.finding import Finding
from weightprint.util.escape import escape


class _Size(NamedTuple):
    """One row: `fits(told, here)` says whether both agree; ``dims`` restricts to tensors of so many axes."""

    role: str
    axis: int
    keys: tuple[str, ...]
    words: str
    fits: Callable[[int, int], bool] = int.__eq__
    dims: tuple[int, ...] = (1, 2, 3, 4, 5)
    stacks: tuple[str, ...] = ()


def _positions(told: int, here: int) -> bool:
    """Some families keep a few positions in front (OPT's two), and none has fewer than it says."""
    return told <= here <= told + 4


_SIZES = (
    _Size("position", -2, ("max_target_positions", "n_positions", "max_position_embeddings"), "positions", _positions,
          (2,), ("decoder", "encoder", "text")),
    _Size("position", -2, ("max_source_positions",), "positions", _positions, (2,), ("audio",)),
    _Size("token_type", 0, ("type_vocab_size",), "token types", dims=(2,)),
    _Size("conv1", 1, ("num_mel_bins",), "mel bins", dims=(3,), stacks=("audio",)),
    _Size("patch", -1, ("patch_size",), "patch size", dims=(4,), stacks=("vision",)),
    _Size("ssm_conv", -1, ("conv_kernel", "d_conv", "mamba_d_conv"), "width of the mixer's convolution", dims=(3,)),
    _Size("ssm_a", 1, ("state_size", "d_state", "mamba_d_state"), "size of the mixer's state", dims=(2,)),
    _Size("ssm_dt", 1, ("time_step_rank", "dt_rank", "mamba_dt_rank"), "rank of the mixer's steps", dims=(2,)),
    _Size("classifier", 0, ("num_labels", "id2label"), "labels", dims=(2,)),
    _Size("q_a", 0, ("q_lora_rank",), "query latent", dims=(2,)),
    _Size("kv_a_norm", 0, ("kv_lora_rank",), "key-value latent", dims=(1,)),
)  # fmt: skip


def shapes(context: CheckContext) -> Iterator[Finding]:
    """Sizes of single tensors against the config of their stack, each kind told once per stack."""
    if not _asks(context):
        return
    rows = {size.role: [row for row in _SIZES if row.role == size.role] for size in _SIZES}
    told: set[tuple[str, str]] = set()
    for a in context.anatomy.assignments:
        stack = a.place.stack.split(":")[0]
        for row in rows.get(a.place.role, ()):
            shape = context.anatomy.weights[a.view.weight].shape
            if (row.stacks and stack not in row.stacks) or len(shape) not in row.dims or (stack, row.role) in told:
                continue
            said, here = _said(context.config, a.place.stack, row.keys), shape[row.axis]
            if said is not None and not row.fits(said, here):
                told.add((stack, row.role))
                yield _finding(context, "config_shape", f"{row.words} {said:,}, and {here:,} are here", a.view.weight)
    yield from _images(context)


def _asks(context: CheckContext) -> bool:
    return bool(context.config) and not is_adapter(context.checkpoint.names())


def _finding(context: CheckContext, code: str, text: str, tensor: str) -> Finding:
    message = f"config.json says {text}: {escape(tensor)}"
    return Finding(code, "warning", message, context.checkpoint.config_file.path, tensor)


def _said(config: Mapping[str, Any], stack: str, keys: tuple[str, ...]) -> int | None:
    """The number under the first key in the configs of a stack; of a mapping or list, how many entries."""
    for found in configs(config, stack):
        for key in keys:
            value = found.get(key)
            value = len(value) if isinstance(value, Mapping | list) else value
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value
    return None


def _images(context: CheckContext) -> Iterator[Finding]:
    """A vision tower's positions: one per patch, and some for tokens of their own."""
    for a in context.anatomy.assignments:
        if a.place.role != "position" or a.place.stack.split(":")[0] != "vision":
            continue
        shape = context.anatomy.weights[a.view.weight].shape
        image, patch = (_said(context.config, a.place.stack, (key,)) for key in ("image_size", "patch_size"))
        if len(shape) < 2 or not image or not patch or isinstance(context.config.get("image_size"), list):
            continue
        told, here = (image // patch) ** 2, shape[-2]
        if not told <= here <= told + 8:
            text = f"images of {image:,} in patches of {patch:,}, which are {told:,} positions, and {here:,} are here"
            yield _finding(context, "config_shape", text, a.view.weight)
            return


#: Key → roles whose biases it speaks of.
_BIASES = {"attention_bias": ("q", "k", "v"), "mlp_bias": ("up", "down")}


def biases(context: CheckContext) -> Iterator[Finding]:
    """Biases that the config speaks of and no tensor is, and the other way round."""
    if not _asks(context):
        return
    stack = context.anatomy.main_stack
    here = [a for a in context.anatomy.assignments if a.place.stack == stack and a.place.block is not None]
    found = next(iter(configs(context.config, stack)), {})
    for key, roles in _BIASES.items():
        said = found.get(key)
        matrices = [a for a in here if a.place.role in roles]
        stored = [a for a in here if a.place.role.removesuffix("_bias") in roles and a.place.role.endswith("_bias")]
        if not isinstance(said, bool) or not matrices or said is bool(stored):
            continue
        what = "biases, and none is here" if said else "no biases, and they are here: loaders drop them"
        yield _finding(context, "config_bias", f"{key} {str(said).lower()}: {what}", _first(stored or matrices))


def _first(assignments: list[Assignment]) -> str:
    return assignments[0].view.weight


#: diffusers' key → what it counts: modules of a list, or an axis of one tensor.
_LISTS = {"num_layers": "transformer_blocks", "num_single_layers": "single_transformer_blocks"}
_TENSORS = {
    "in_channels": (r"conv_in\.weight", 1),
    "out_channels": (r"conv_out\.weight", 0),
    "joint_attention_dim": (r"context_embedder\.weight", 1),
    "cross_attention_dim": (r"(?:down|up)_blocks\.\d+\.attentions\.\d+\.transformer_blocks\.0\.attn2\.to_k\.weight", 1),
}


def components(context: CheckContext) -> Iterator[Finding]:
    """A diffusers model against its config: layers of each kind, channels, widths of what it attends to, heads."""
    config = context.config
    if "_class_name" not in config or not _asks(context):
        return
    names = context.checkpoint.names()
    for key, module in _LISTS.items():
        numbers = {int(m[1]) for m in (re.match(rf"{module}\.(\d{{1,9}})\.", name) for name in names) if m}
        said = _said(config, "", (key,))
        if said and numbers and said != len(numbers) and not isinstance(config.get(key), list):
            text = f"{key} {said:,}, and {module} has {len(numbers):,}"
            yield _finding(context, "config_blocks", text, next(name for name in names if name.startswith(module)))
    heads, size = (config.get(key) for key in ("num_attention_heads", "attention_head_dim"))
    tensors = dict(_TENSORS) | {"": (r"transformer_blocks\.0\.(?:attn|attn1)\.to_q\.weight", 0)}
    wanted = {key: config.get(key) for key in _TENSORS}
    if isinstance(heads, int) and isinstance(size, int):
        wanted[""] = heads * size
    for key, said in wanted.items():
        pattern, axis = tensors[key]
        name = next((name for name in names if re.fullmatch(pattern, name)), None)
        shape = () if name is None else context.anatomy.weights[context.anatomy.weights.owner(name)].shape
        if name is None or not isinstance(said, int) or len(shape) < 2 or shape[axis] == said:
            continue
        text = f"{key} {said:,}" if key else f"{heads:,} heads of {size:,}"
        yield _finding(
            context, "config_shape" if key else "config_heads", f"{text}, and {shape[axis]:,} are here", name
        )
