"""The feed-forward blocks and experts of a model, as its headers list them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from weightprint.anatomy.place import Expert
from weightprint.fingerprint.model import ModelView, Tensor


@dataclass(frozen=True, slots=True)
class Ffn:
    """The units of one FFN or one expert. ``gate`` is None for a plain FFN, ``down`` where it was not found."""

    stack: str
    block: int
    expert: Expert
    up: Tensor
    gate: Tensor | None
    down: Tensor | None

    @property
    def name(self) -> str:
        """Where it is, in a word: see `ffn_name`."""
        return ffn_name(self.key)

    @property
    def key(self) -> tuple[str, int, Expert]:
        """Where it is: stack, block, expert."""
        return self.stack, self.block, self.expert

    @property
    def units(self) -> int:
        """Hidden units."""
        return self.up.shape[0]

    @property
    def width(self) -> int:
        """Residual channels."""
        return self.up.shape[1]

    @property
    def matrices(self) -> dict[str, Tensor]:
        """Role → tensor, of those that are there."""
        parts = {"up": self.up, "gate": self.gate, "down": self.down}
        return {role: tensor for role, tensor in parts.items() if tensor is not None}

    @property
    def numel(self) -> int:
        """Parameters of its matrices."""
        return sum(t.numel for t in self.matrices.values())


def ffn_name(key: tuple[str, int, Expert]) -> str:
    """``"decoder.7"``, or ``"decoder.7.expert.3"``, of stack, block and expert."""
    stack, block, expert = key
    return f"{stack}.{block}" + ("" if expert is None else f".expert.{expert}")


def ffns(side: ModelView, smallest: int = 16) -> list[Ffn]:
    """Every FFN of a model in depth order, experts one by one; those with fewer than `smallest` units are left out.

    Reads headers only. A gate or down-projection whose shape does not go with the up-projection is left out of its
    `Ffn`; constant tensors (where statistics are known) are too.
    """
    if "ffns" not in side.memo:
        side.memo["ffns"] = _all_ffns(side)
    return [ffn for ffn in side.memo["ffns"] if ffn.units >= smallest]


def _all_ffns(side: ModelView) -> list[Ffn]:
    found: dict[tuple[str, int, Expert], dict[str, Tensor]] = defaultdict(dict)
    for tensor in side.tensors.values():
        place = tensor.place
        if place is not None and place.block is not None and place.role in ("up", "gate", "down") and tensor.rank2:
            found[place.stack, place.block, place.expert].setdefault(place.role, tensor)
    out = []
    for (stack, block, expert), parts in found.items():
        up, gate, down = (parts.get(role) for role in ("up", "gate", "down"))
        if up is None or up.constant:
            continue
        h, d = up.shape
        gate = gate if gate is not None and gate.shape == (h, d) and not gate.constant else None
        down = down if down is not None and down.shape == (d, h) and not down.constant else None
        out.append(Ffn(stack, block, expert, up, gate, down))
    return sorted(out, key=lambda f: (f.stack, f.block, str(f.expert).zfill(8)))
