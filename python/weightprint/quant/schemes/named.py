"""Schemes that are recognised and not decoded: codebooks, trellises, and layouts that only their kernels know.

Each is told by the ends of the names that stand beside each other. All tensors of the module become one weight that
can't be read, so that no index or scale is taken for a value. A matrix called a weight whose elements are integers of
16 bits and more holds packed codes of something, whatever stands beside it.
"""

from __future__ import annotations

from weightprint.quant.base import Quantised, Scheme, UnclaimedTensors
from weightprint.util.escape import escape

#: End of a name → (scheme, ends that must stand beside it, what it is called); it is the codes' name, except of HIGGS.
_SIGNS: dict[str, tuple[str, tuple[str, ...], str]] = {
    ".codes": ("aqlm", ("codebooks", "scales"), "AQLM"),
    ".Qidxs": ("quip_sharp", ("SU", "SV"), "QuIP#"),
    ".indices": ("vptq", ("centroids.weight",), "VPTQ"),
    ".q_weight": ("exl2", ("q_scale", "q_groups"), "ExLlamaV2"),
    ".trellis": ("exl3", ("suh", "svh"), "ExLlamaV3"),
    ".dense_weights": ("spqr", ("first_order",), "SpQR"),
    ".tables": ("higgs", ("scales", "weight"), "HIGGS"),  # its codes are called as any weight is
}
_CODES = {".tables": ".weight"}


def _group(unclaimed: UnclaimedTensors, name: str, end: str) -> Quantised | None:
    prefix = name.removesuffix(end)
    codes = unclaimed.get(prefix + _CODES.get(end, end))
    scheme, ends, called = _SIGNS[end]
    if codes is None or name not in unclaimed or not all(f"{prefix}.{word}" in unclaimed for word in ends):
        return None
    others = (other for other in beside(unclaimed, prefix) if other != codes.name and other in unclaimed)
    problem = f"{escape(codes.name)} holds codes of {called}, which are not decoded"
    return unclaimed.unreadable(codes, scheme, (codes.name, *others), codes, problem, f"{prefix}.weight", "not_decoded")


def _words(unclaimed: UnclaimedTensors, name: str, end: str) -> Quantised | None:
    codes = unclaimed.get(name) if name.endswith(".weight") else None
    if codes is None or len(codes.shape) < 2 or 1 in codes.shape:
        return None
    shape = f"{codes.dtype} {list(codes.shape)}"
    problem = f"{escape(name)} is {shape}: packed codes that no known scheme explains"
    return unclaimed.unreadable(codes, "words", (name,), codes, problem, name)


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
WORDS = Scheme("packed codes of nobody knows what", (), _words, dtypes=("I16", "U16", "I32", "U32", "I64", "U64"))
