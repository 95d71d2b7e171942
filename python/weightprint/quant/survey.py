"""Quantised storage: which stored tensors belong together, and what they decode to.

    for weight in survey(UnclaimedTensors(checkpoint))[0]:
        weight.name, weight.shape, weight.scheme, weight.parameters
        weight.read(checkpoint, slice(0, 128), slice(None))      # float32; only what the rectangle touches is read

A scheme is one file with a :class:`Scheme`; adding one is its file and its line in :data:`SCHEMES`. Schemes are told
by the names, dtypes and shapes of siblings; a config decides only what those can't (see :mod:`._hints`). Every stored
tensor is claimed at most once, by the first scheme that makes sense of it; what no scheme claims is plain.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

from weightprint.quant.base import Quantised, Scheme, UnclaimedTensors
from weightprint.quant.caches import with_caches
from weightprint.quant.schemes.awq import AWQ
from weightprint.quant.schemes.bitnet import BITNET
from weightprint.quant.schemes.bnb_4bit import BNB_4BIT
from weightprint.quant.schemes.bnb_int8 import BNB_INT8
from weightprint.quant.schemes.fp4 import FP4
from weightprint.quant.schemes.gguf import GGUF
from weightprint.quant.schemes.gptq import GPTQ
from weightprint.quant.schemes.hqq import HQQ
from weightprint.quant.schemes.low_rank import LOW_RANK
from weightprint.quant.schemes.mlx import MLX
from weightprint.quant.schemes.mxfp4_blocks import MXFP4_BLOCKS
from weightprint.quant.schemes.named import NAMED, WORDS
from weightprint.quant.schemes.packed import PACKED
from weightprint.quant.schemes.scaled import SCALED
from weightprint.quant.schemes.torchao import TORCHAO
from weightprint.results.finding import Finding
from weightprint.util.escape import escape

#: Every scheme: first what files say themselves; where several share an end of a name, the one that asks for more.
SCHEMES: tuple[Scheme, ...] = (
    GGUF, TORCHAO, BNB_4BIT, BNB_INT8, AWQ, GPTQ, HQQ, MLX, MXFP4_BLOCKS, FP4, PACKED, BITNET, SCALED, NAMED,
    LOW_RANK, WORDS,
)  # fmt: skip


def survey(unclaimed: UnclaimedTensors) -> tuple[list[Quantised], list[Finding]]:
    """The quantised weights among these tensors, scheme by scheme, in file order within each; claims what they are of.

    What looks like a scheme but does not hold together is among them as :class:`Unreadable`. Linear in the number of
    tensors. Reads no values but the few that hold shapes (``weight_shape``, bitsandbytes' quant_state). Beside them,
    what was noticed: scales without codes, components that contradict each other, assumptions.
    """
    found: list[Quantised] = []
    for scheme, named in zip(SCHEMES, _candidates(unclaimed), strict=True):
        stated = scheme.stated(unclaimed.checkpoint)
        for weight in chain(stated, (scheme.group(unclaimed, name, end) for name, end in named)):
            if weight is not None:
                unclaimed.claim(weight)
                found.append(weight)
    return _named_apart(unclaimed, with_caches(unclaimed, found)), unclaimed.findings()


_ANCHORS = tuple({end for scheme in SCHEMES for end in scheme.anchors})


def _candidates(unclaimed: UnclaimedTensors) -> list[list[tuple[str, str]]]:
    """For each scheme, the names that end as one of its anchors, with the longest such end, and those of its dtypes."""
    anchored = [name for name in unclaimed.names if name.endswith(_ANCHORS)]  # few, of most models
    candidates: list[list[tuple[str, str]]] = []
    for scheme in SCHEMES:
        longest_first = sorted(scheme.anchors, key=len, reverse=True)
        named = [name for name in anchored if name.endswith(scheme.anchors)]
        ends = [(name, next(end for end in longest_first if name.endswith(end))) for name in named]
        typed = [info.name for info in unclaimed.infos.values() if info.dtype in scheme.dtypes] if scheme.dtypes else []
        candidates.append(ends + [(name, "") for name in typed])
    return candidates


def _named_apart(unclaimed: UnclaimedTensors, found: list[Quantised]) -> list[Quantised]:
    """No two weights of one name: where a plain tensor or another weight has it, the codes' name is the weight's."""
    taken = {weight.name for weight in found if weight.name == weight.components[0]}  # these can have no other
    for k, weight in enumerate(found):
        if weight.name == weight.components[0]:
            continue
        if weight.name in taken or weight.name in unclaimed:
            codes = weight.components[0]
            unclaimed.notice(
                "stored_twice", weight.scheme, codes, f"{escape(weight.name)} is stored twice: also in {escape(codes)}"
            )
            found[k] = replace(weight, name=codes)
        taken.add(found[k].name)
    return found
