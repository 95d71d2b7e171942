"""Schemes that are recognised and not decoded: codebooks, trellises, and layouts that only their kernels know.

Each is told by the ends of the names that stand beside each other. All tensors of the module become one weight that
can't be read, so that no index or scale is taken for a value. A matrix called a weight whose elements are integers of
16 bits and more holds packed codes of something, whatever stands beside it.
"""

from __future__ import annotations

from weightprint.quant.base import Quantised, Scheme, UnclaimedTensors
from weightprint.util.escape import escape

__all__ = ["NAMED", "beside"]

#: End of the codes' name → (scheme, ends that must stand beside it, what it is called).
_SIGNS: dict[str, tuple[tuple[str, tuple[str, ...], str], ...]] = {
    ".codes": (("aqlm", ("codebooks", "scales"), "AQLM"),),
    ".Qidxs": (("quip_sharp", ("SU", "SV"), "QuIP#"),),
    ".indices": (("vptq", ("centroids.weight",), "VPTQ"),),
    ".q_weight": (("exl2", ("q_scale", "q_groups"), "ExLlamaV2"),),
    ".trellis": (("exl3", ("suh", "svh"), "ExLlamaV3"),),
    ".dense_weights": (("spqr", ("first_order",), "SpQR"),),
    ".weight": (("higgs", ("scales", "tables"), "HIGGS"),),
}
_WORDS = ("I16", "U16", "I32", "U32", "I64", "U64")


def _group(unclaimed: UnclaimedTensors, name: str, end: str) -> Quantised | None:
    codes, prefix = unclaimed.get(name), name.removesuffix(end)
    for scheme, ends, called in _SIGNS[end] if codes is not None else ():
        if codes is not None and all(f"{prefix}.{word}" in unclaimed for word in ends):
            components = (
                name,
                *(other for other in beside(unclaimed, prefix) if other != name and other in unclaimed),
            )
            problem = f"{escape(name)} holds codes of {called}, which are not decoded"
            return unclaimed.unreadable(codes, scheme, components, codes, problem, f"{prefix}.weight", "not_decoded")
    matrix = end == ".weight" and codes is not None and len(codes.shape) > 1 and 1 not in codes.shape
    if codes is not None and matrix and codes.dtype in _WORDS:
        shape = f"{codes.dtype} {list(codes.shape)}"
        problem = f"{escape(name)} is {shape}: packed codes that no known scheme explains"
        return unclaimed.unreadable(codes, "words", (name,), codes, problem, name)
    return None


def beside(unclaimed: UnclaimedTensors, prefix: str) -> list[str]:
    """All tensors of a module but its bias, which is a parameter of its own."""
    if "modules" not in unclaimed.memo:
        modules: dict[str, list[str]] = {}
        for name in unclaimed.names:
            words = name.split(".")
            for k in (1, 2):
                if len(words) > k and words[-1] != "bias":
                    modules.setdefault(".".join(words[:-k]), []).append(name)
        unclaimed.memo["modules"] = modules
    found: list[str] = unclaimed.memo["modules"].get(prefix, [])
    return found


NAMED = Scheme("codes that are recognised and not decoded", tuple(_SIGNS), _group)
