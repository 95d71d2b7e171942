"""What the config says about quantisation, for the few things that names, dtypes and shapes leave open.

Those are: GPTQ's two conventions for zero points (``checkpoint_format``), the size of a block where a grid of scales
fits several, and the bits of a packed tensor so small that its width fits several. A config is context: what it says is
used only where the shapes agree with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from weightprint.checkpoint.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class Hints:
    """The config's words on quantisation; empty where it has none.

    Attributes:
        method: ``quant_method``, such as ``"gptq"``.
        checkpoint_format: GPTQ's ``"gptq"`` or ``"gptq_v2"``; else AutoRound's ``packing_format``.
        bits: bits per code that the config names, over all its groups.
        group_sizes: likewise; -1 (one group per row) is left out.
        blocks: (rows, columns) of a block of scales.
        act_order: columns were quantised in another order than they are stored in.
        symmetric: all zero points in the middle of the range.
        linear_class: BitNet's layers, which say what a scale does.
    """

    method: str | None = None
    checkpoint_format: str | None = None
    bits: tuple[int, ...] = ()
    group_sizes: tuple[int, ...] = ()
    blocks: tuple[tuple[int, int], ...] = ()
    act_order: bool | None = None
    symmetric: bool | None = None
    linear_class: str | None = None

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
    groups = found.get("config_groups")
    listed = groups.values() if isinstance(groups, Mapping) else ()
    inner = [group.get("weights") for group in listed if isinstance(group, Mapping)]
    places = [found, *(weights for weights in inner if isinstance(weights, Mapping))]
    return Hints(
        _text(found.get("quant_method")),
        _text(found.get("checkpoint_format")) or _text(found.get("packing_format")),
        tuple(dict.fromkeys(n for place in places for n in _numbers(place, "bits", "w_bit", "num_bits"))),
        tuple(dict.fromkeys(n for place in places for n in _numbers(place, "group_size", "q_group_size"))),
        tuple(dict.fromkeys(b for place in places for b in _blocks(place))),
        _flag(found.get("desc_act")),
        _agreed([_flag(place.get(key)) for place in places for key in ("sym", "symmetric")]),
        _text(found.get("linear_class")),
    )


def _numbers(place: Mapping[str, Any], *keys: str) -> list[int]:
    return [n for key in keys if _positive(n := place.get(key))]


def _blocks(place: Mapping[str, Any]) -> list[tuple[int, int]]:
    pairs = (place.get(key) for key in ("weight_block_size", "block_structure"))
    listed = [pair for pair in pairs if isinstance(pair, (list, tuple)) and len(pair) == 2]
    return [(pair[0], pair[1]) for pair in listed if all(_positive(n) for n in pair)]


def _positive(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _agreed(flags: list[bool | None]) -> bool | None:
    """What all that say anything say; None where nobody does or they differ."""
    said = {flag for flag in flags if flag is not None}
    return said.pop() if len(said) == 1 else None


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None
