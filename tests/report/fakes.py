"""A stand-in for an Anatomy, made tensor by tensor, so that drawings don't depend on how names are matched."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from types import SimpleNamespace
from typing import Any

from weightprint.anatomy.family import Family
from weightprint.anatomy.place import Assignment, Expert, Geometry, Place, Rows, View


class FakeWeights(dict[str, Any]):
    """The attributes of `Weights` that reports read."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: weight.shape for name, weight in self.items()}

    def stored_as(self, name: str) -> tuple[str, int]:
        weight = self[name]
        return weight.dtype if weight.scheme is None else f"{weight.dtype} {weight.scheme}", weight.nbytes


class Fake:
    """The attributes of an Anatomy that reports read."""

    def __init__(self, family: str | None = "llama", config: Mapping[str, Any] | None = None, **stacks: Geometry):
        self.assignments: list[Assignment] = []
        self.weights = FakeWeights()
        self.unmapped: list[str] = []
        self.adapter_factors: frozenset[str] = frozenset()
        self.geometry = stacks
        self.families = {stack: Family(family, ()) for stack in stacks} if family else {}
        self.findings: tuple[Any, ...] = ()
        self.checkpoint = SimpleNamespace(config=config or {})

    def of(self, weight: str) -> list[Assignment]:
        return [a for a in self.assignments if a.view.weight == weight]

    @property
    def stacks(self) -> dict[str, list[Assignment]]:
        found: dict[str, list[Assignment]] = {}
        for a in self.assignments:
            found.setdefault(a.place.stack, []).append(a)
        return found

    def weight(self, name: str, shape: tuple[int, ...], dtype: str = "BF16", scheme: str | None = None, bits: int = 16):
        n = prod(shape)
        self.weights[name] = SimpleNamespace(
            name=name, shape=shape, dtype=dtype, scheme=scheme, numel=n, nbytes=n * bits // 8, components=(name,)
        )

    def put(
        self,
        role: str,
        name: str,
        *shape: int,
        block: int | None = None,
        expert: Expert = None,
        stack: str = "decoder",
        index: int | None = None,
        turned: bool = False,
        rows: Rows | None = None,
        inferred: float | None = None,
        tied: bool = False,
        stored: tuple[int, ...] | None = None,
        **weight: Any,
    ) -> None:
        """A canonical tensor, cut from a weight that is made if it isn't there."""
        if name not in self.weights:
            self.weight(name, stored or shape, **weight)
        self.assignments.append(
            Assignment(
                Place(stack, block, role, expert),
                View(name, shape, index, turned, rows),
                "table" if inferred is None else "inferred",
                1.0 if inferred is None else inferred,
                "a reason",
                tied,
            )
        )


def llama(n: int = 4, skip: tuple[tuple[int, str], ...] = (), **weight: Any) -> Fake:
    """A Llama of `n` blocks without the (block, role) pairs of `skip`."""
    fake = Fake(decoder=Geometry(n, hidden=64, heads=4, kv_heads=2, head_dim=16, ffn=96, vocabulary=1000))
    fake.put("embedding", "model.embed_tokens.weight", 1000, 64)
    for b in range(n):
        for role, module, *shape in (
            ("attn_norm", "input_layernorm", 64),
            ("q", "self_attn.q_proj", 64, 64),
            ("k", "self_attn.k_proj", 32, 64),
            ("v", "self_attn.v_proj", 32, 64),
            ("o", "self_attn.o_proj", 64, 64),
            ("ffn_norm", "post_attention_layernorm", 64),
            ("gate", "mlp.gate_proj", 96, 64),
            ("up", "mlp.up_proj", 96, 64),
            ("down", "mlp.down_proj", 64, 96),
        ):
            if (b, role) not in skip:
                fake.put(role, f"model.layers.{b}.{module}.weight", *shape, block=b, **weight)
    fake.put("final_norm", "model.norm.weight", 64)
    fake.put("head", "lm_head.weight", 1000, 64)
    return fake
