"""Bit distance [ZipLLM 2505.06252]: how many of the 16 bits of bfloat16 differ, on average, between aligned weights.

    D = mean over weights of popcount(word_a xor word_b)

Two models of one family, stored in bf16, differ in few bits of sign, exponent and mantissa, and the authors cluster
below a threshold around 4 bits. Values that are stored in another type are rounded to bf16 first (nearest, ties to
even), so the distance reads the same for an fp32 export.

Independent normal weights of deviation .02 are 5.77 bits apart; relative noise of .01 / .1 / .3 / 1 gives 2.16 / 3.79 /
4.59 / 5.37 bits (measured); 4 bits is a cosine of about .99. So the scale is short: half of it is gone at 1 % noise.
Nor is 5.77 a constant: it is where the spread lies between powers of two that count, since a carry from exponent
01111111 to 10000000 flips eight bits. Strangers of deviation .01 / .05 / .5 / 1 / 2 are 5.97 / 5.40 / 5.31 / 5.62 /
7.62 bits apart (measured).

Known false positives: tensors near a constant (norm gains near one differ in the last mantissa bits only), and models
whose spread differs: the exponent bits then measure that. Known misses: everything beyond a light fine-tune,
permutations, rotations, other shapes; and scaling by anything but a power of two moves all mantissas.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt

from weightprint.evidence.evidence import Evidence, not_applied
from weightprint.evidence.pair import ModelPair
from weightprint.evidence.published.parts import named_pairs, sampled_pair
from weightprint.evidence.test import Test
from weightprint.util.arrays import F32

#: Bits between independent normal weights of standard deviation .02.
STRANGERS = 5.77

_BITS = np.unpackbits(np.arange(1 << 16, dtype=np.uint16).view(np.uint8)).reshape(-1, 16)
_POPCOUNT = _BITS.sum(axis=1, dtype=np.uint8)

_QUESTION = Evidence(
    test="bit_distance",
    asked="How many bits of bfloat16 differ between weights at the same place?",
    null="none: descriptive. Independent normal weights differ in 5.3 to 7.6 of 16 bits, depending on their spread "
    "(5.77 at .02)",
    assumes="nothing: it decides nothing",
    blind_to="everything beyond a light fine-tune, permuted, rotated or rescaled copies, other names or shapes",
    statistic_of="minus the mean number of differing bits",
    effect_of="mean number of differing bits",
)


def bf16_words(x: F32) -> npt.NDArray[np.uint16]:
    """float32 values as bfloat16 words, rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    words: npt.NDArray[np.uint16] = (rounded >> np.uint32(16)).astype(np.uint16)
    return words


def bits_apart(a: F32, b: F32) -> npt.NDArray[np.uint8]:
    """Per element how many of 16 bits differ."""
    counts: npt.NDArray[np.uint8] = _POPCOUNT[bf16_words(a) ^ bf16_words(b)]
    return counts


@partial(Test, published=True)
def bit_distance(models: ModelPair) -> Evidence:
    """Mean bit distance of all same-named tensors of one shape, weighted by their size."""
    pairs = named_pairs(models)
    total = weight = 0.0
    n = 0
    for pair in pairs:
        a, b = sampled_pair(models, pair)
        if a.size:
            total += pair.a.numel * float(bits_apart(a, b).mean())
            weight += pair.a.numel
            n += a.size
    if not weight:
        return not_applied(_QUESTION, "no two tensors of equal name and shape")
    bits = total / weight
    return replace(
        _QUESTION,
        says=f"{bits:.2f} of 16 bits differ on average (independent normal weights: {STRANGERS}; 4 bits go with a "
        "cosine of about .99)",
        statistic=-bits,
        effect=bits,
        n=n,
        details={"tensors": len(pairs), "values": n},
    )
