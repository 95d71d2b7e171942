"""What the config says about quantisation, for the few things that names, dtypes and shapes leave open.

Those are: GPTQ's two conventions for zero points (``checkpoint_format``), the size of a block where a grid of scales
fits several, and the bits of a packed tensor so small that its width fits several. A config is context: what it says is
used only where the shapes agree with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from weightprint.checkpoint import Checkpoint

__all__ = ["Hints"]


@dataclass(frozen=True, slots=True)
class Hints:
    """The config's words on quantisation; empty where it has none.

    Attributes:
        method: ``quant_method``, such as ``"gptq"``.
        checkpoint_format: GPTQ's ``"gptq"`` or ``"gptq_v2"``.
        bits: bits per code that the config names, over all its groups.
        group_sizes: likewise; -1 (one group per row) is left out.
        blocks: (rows, columns) of a block of scales.
        act_order: columns were quantised in another order than they are stored in.
        symmetric: all zero points in the middle of the range.
    """

    method: str | None = None
    checkpoint_format: str | None = None
    bits: tuple[int, ...] = ()
    group_sizes: tuple[int, ...] = ()
    blocks: tuple[tuple[int, int], ...] = ()
    act_order: bool | None = None
    symmetric: bool | None = None

    @staticmethod
    def of(checkpoint: Checkpoint) -> Hints:
        """Read ``quantization_config`` (or the older ``compression_config``), also inside ``text_config``."""
        config: Mapping[str, Any] = getattr(checkpoint, "config", {})
        text = config.get("text_config")
        for place in (config, text if isinstance(text, Mapping) else {}):
            for key in ("quantization_config", "compression_config"):
                found = place.get(key)
                if isinstance(found, Mapping):
                    return _parse(found)
        return Hints()


def _parse(found: Mapping[str, Any]) -> Hints:
    bits, sizes, blocks = _numbers(found)
    groups = found.get("config_groups")
    for group in groups.values() if isinstance(groups, Mapping) else ():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        if isinstance(weights, Mapping):
            for mine, theirs in zip((bits, sizes, blocks), _numbers(weights), strict=True):
                mine += [value for value in theirs if value not in mine]
    return Hints(
        _text(found.get("quant_method")),
        _text(found.get("checkpoint_format")),
        tuple(bits),
        tuple(sizes),
        tuple(blocks),
        _flag(found.get("desc_act")),
        _flag(found.get("sym")),
    )


def _numbers(found: Mapping[str, Any]) -> tuple[list[int], list[int], list[tuple[int, int]]]:
    bits = [n for key in ("bits", "w_bit", "num_bits") if _positive(n := found.get(key))]
    sizes = [n for key in ("group_size", "q_group_size") if _positive(n := found.get(key))]
    blocks = []
    for key in ("weight_block_size", "block_structure"):
        pair = found.get(key)
        if isinstance(pair, (list, tuple)) and len(pair) == 2 and all(_positive(n) for n in pair):
            blocks.append((int(pair[0]), int(pair[1])))
    return bits, sizes, blocks


def _positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None
