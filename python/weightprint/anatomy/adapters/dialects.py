"""How adapters spell their tensors: names of every dialect → module, part and adapter; parts → one update per module.

A row of the table is a regular expression whose groups are the module, the part, the adapter's name where a file may
hold several, and ``weight`` or ``bias`` behind it. Part words are common to all: what they mean is one table.

    PEFT        base_model.model.M.lora_A[.NAME].weight, hada_w1_a, lokr_w1, ia3_l       (github.com/huggingface/peft)
    diffusers   transformer.M.lora_A.weight, M.lora.down.weight, M_lora.up.weight
    kohya       lora_unet_M.lora_down.weight, .lora_up.weight, .alpha; LyCORIS' hada_w1_a, lokr_w1, on_input, diff
    mlx         M.lora_a (in x r), M.lora_b (r x out), M.m
    GGUF        M.weight.lora_a, .lora_b (of an embedding A is stored (vocabulary x r))

kohya writes M with underscores for dots. Which formula an update has follows from its parts (`KINDS`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from math import prod

from weightprint.util.escape import escape

Shape = tuple[int, ...]

#: PEFT's kinds whose parts are called after them; all but HRA are named and not merged.
_OTHERS = {
    "hra": "HRA",
    "fourierft": "FourierFT",
    "vblora": "VB-LoRA",
    "xlora": "X-LoRA",
    "road": "RoAd",
    "c3a": "C3A",
    "randlora": "RandLoRA",
    "bone": "Bone",
    "miss": "MiSS",
    "shira": "SHiRA",
    "delora": "DeLoRA",
    "waveft": "WaveFT",
}
#: Kind of update → what it is called.
KINDS = {
    "lora": "LoRA",
    "loha": "LoHa",
    "lokr": "LoKr",
    "ia3": "IA3",
    "diff": "full difference",
    "oft": "OFT",
    "boft": "BOFT",
    "turned": "OFT",
    "norms": "norm weights",
    **_OTHERS,
    "vera": "VeRA",
    "prompt": "virtual tokens",
    "tokens": "trained tokens",
}
_WORDS = r"hada_[wt][12](?:_[ab])?|lokr_w[12](?:_[ab])?|lokr_t2|oft_\w+|boft_\w+"
_WORDS += r"|vera_lambda_[bd]|trainable_tokens_delta"
_WORDS += rf"|(?:{'|'.join(_OTHERS)})_\w+|ln_tuning_layers"
_BESIDE = r"alpha|dora_scale|diff|diff_b"
_FLAT = r"(?:lora|lycoris)_[^.]+"
_COMPONENT = r"(?:unet|transformer(?:_\d)?|text_encoder(?:_\d)?|diffusion_model|model\.diffusion_model|dit|prior)"
_A, _B = r"lora_A|lora_B|lora_embedding_A|lora_embedding_B", r"lora_magnitude_vector|ia3_l"
_TAIL = r"(?:\.(?P<adapter>(?!weight$|bias$)[^.]+))?(?:\.(?P<end>weight|bias))?"

#: Dialect → how it spells a factor. The first that fits counts.
_DIALECTS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (name, re.compile(pattern))
    for name, pattern in (
        ("PEFT", r"(?P<module>)(?:base_model\.)?(?P<part>vera_[AB]|prompt_embeddings|vblora_vector_bank)" + _TAIL),
        ("PEFT", r"(?P<module>)(?:base_model\.)?(?:internal_)?(?P<part>xlora_classifier)\..+"),
        ("kohya", rf"(?P<module>{_FLAT})\.(?P<part>{_WORDS}|{_BESIDE}|w_norm|b_norm|on_input|weight)"),
        ("kohya", r"(?P<module>.+)\.(?P<part>lora_(?:down|mid|up))\.(?P<end>weight|bias)"),
        ("GGUF", r"(?P<module>.+)\.weight\.(?P<part>lora_[ab])"),
        ("mlx", r"(?P<module>.+)\.(?P<part>lora_[ab]|m)"),
        ("diffusers", r"(?P<module>.+?)(?:_lora|\.lora|\.lora_linear_layer)\.(?P<part>down|up)\.(?P<end>weight|bias)"),
        ("diffusers", rf"(?P<module>{_COMPONENT}\..+)\.(?P<part>{_A}|{_B}){_TAIL}"),
        ("kohya", rf"(?P<module>(?!base_model\.).+)\.(?P<part>{_BESIDE})"),
        ("PEFT", rf"(?:base_model\.model\.)?(?P<module>.+)\.(?P<part>{_A}|{_B}|{_WORDS}){_TAIL}"),
    )
)
#: Part as spelled → what it is; others are called as they are spelled.
_PARTS = {
    **dict.fromkeys(("lora_A", "lora_down", "lora_a", "down"), "a"),
    **dict.fromkeys(("lora_B", "lora_up", "lora_b", "up"), "b"),
    **dict.fromkeys(("lora_magnitude_vector", "dora_scale", "m"), "magnitude"),
    "lora_embedding_A": "embedding_a",
    "lora_embedding_B": "embedding_b",
    "lora_mid": "mid",
    "ln_tuning_layers": "norm",
    "w_norm": "diff",
    "b_norm": "diff_b",
}
#: Parts that make an update only beside others: any tensor of a model may be called so.
_WEAK = frozenset({"alpha", "magnitude", "weight", "diff", "diff_b"})
#: VeRA's two matrices that all modules share.
_SHARED = frozenset({"vera_A", "vera_B"})
#: One of these is in the name of every part that makes an update.
_HINTS = (
    "lora", "lokr_", "hada_", "ia3_l", "oft_", ".diff", "lycoris_", "vera_", "prompt_emb", "trainable_tok", "ln_tuning",
    *(f"{kind}_" for kind in _OTHERS),
)  # fmt: skip
_RUN = 4096  # names that are looked through in one go
_HINT = re.compile(
    r"lora|lokr_|hada_|ia3_l|oft_|lycoris_|vera_|prompt_emb|trainable_tok|\.diff|\.alpha$|\.dora_scale$|\.m$"
    rf"|ln_tuning|(?:^|\.)(?:{'|'.join(_OTHERS)})_"
)
#: PEFT's file of trained norms alone may hold them under their own names.
_NORM_OF_PEFT = re.compile(
    r"base_model\.model\..*(?:norm|(?:^|[._])ln(?!_tuning))[^.]*(?:\.\d+)?\.(?:weight|bias)", re.IGNORECASE
)
_EMBEDDING = re.compile(r"(?:^|[._])(?:embed_tokens|token_embd|wte|tok_embeddings|word_embeddings|embed_in)$")

#: What a pipeline's component is called in front of a module → short.
_FRONTS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), short)
    for pattern, short in (
        (r"^base_model\.model\.", ""),
        (r"^(?:lora_unet_|lora_transformer_|lycoris_|(?:model\.)?diffusion_model\.|unet\.|transformer\.|dit\.)", ""),
        (r"^(?:lora_te1?_|text_encoder\.)", "te_"),
        (r"^(?:lora_te2_|text_encoder_2\.)", "te2_"),
        (r"^(?:lora_te3_|text_encoder_3\.)", "te3_"),
    )
)
#: FLUX's modules as its makers call them, with underscores for dots → as diffusers does. Of a fused q, k and v (and,
#: in single blocks, the FFN's first matrix) A is the one of q; B has the rows of all and pairs with none.
_FLUX: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^double_blocks_(\d+)_img_attn_qkv$", r"transformer_blocks_\1_attn_to_q"),
        (r"^double_blocks_(\d+)_txt_attn_qkv$", r"transformer_blocks_\1_attn_add_q_proj"),
        (r"^double_blocks_(\d+)_img_attn_proj$", r"transformer_blocks_\1_attn_to_out_0"),
        (r"^double_blocks_(\d+)_txt_attn_proj$", r"transformer_blocks_\1_attn_to_add_out"),
        (r"^double_blocks_(\d+)_img_mlp_0$", r"transformer_blocks_\1_ff_net_0_proj"),
        (r"^double_blocks_(\d+)_img_mlp_2$", r"transformer_blocks_\1_ff_net_2"),
        (r"^double_blocks_(\d+)_txt_mlp_0$", r"transformer_blocks_\1_ff_context_net_0_proj"),
        (r"^double_blocks_(\d+)_txt_mlp_2$", r"transformer_blocks_\1_ff_context_net_2"),
        (r"^double_blocks_(\d+)_img_mod_lin$", r"transformer_blocks_\1_norm1_linear"),
        (r"^double_blocks_(\d+)_txt_mod_lin$", r"transformer_blocks_\1_norm1_context_linear"),
        (r"^single_blocks_(\d+)_linear1$", r"single_transformer_blocks_\1_attn_to_q"),
        (r"^single_blocks_(\d+)_linear2$", r"single_transformer_blocks_\1_proj_out"),
        (r"^single_blocks_(\d+)_modulation_lin$", r"single_transformer_blocks_\1_norm_linear"),
        (r"^img_in$", "x_embedder"),
        (r"^txt_in$", "context_embedder"),
        (r"^time_in_in_layer$", "time_text_embed_timestep_embedder_linear_1"),
        (r"^time_in_out_layer$", "time_text_embed_timestep_embedder_linear_2"),
        (r"^guidance_in_in_layer$", "time_text_embed_guidance_embedder_linear_1"),
        (r"^guidance_in_out_layer$", "time_text_embed_guidance_embedder_linear_2"),
        (r"^vector_in_in_layer$", "time_text_embed_text_embedder_linear_1"),
        (r"^vector_in_out_layer$", "time_text_embed_text_embedder_linear_2"),
        (r"^final_layer_linear$", "proj_out"),
    )
)
_FUSED = re.compile(r"^(?:double_blocks_\d+_(?:img|txt)_attn_qkv|single_blocks_\d+_linear1)$")


@dataclass(frozen=True, slots=True)
class Factor:
    """One tensor of an adapter: the module that it adapts, which part of the update it is, the adapter's name where
    one is said, and the dialect it is spelled in."""

    module: str
    part: str
    adapter: str
    dialect: str


@dataclass(frozen=True, slots=True)
class Update:
    """The update of one module.

    Attributes:
        module: its path in the base model, without ``.weight``; of kohya's with underscores for dots.
        kind: a key of `KINDS`.
        parts: ``"a"``, ``"b"``, ``"w1_a"`` …, ``"magnitude"``, ``"bias"``, ``"alpha"`` → stored name.
        rank: r; None where the update has none.
        shape: of the update, (out, in) or that of a convolution; of an embedding (vocabulary, hidden); () if the
            factors don't say it.
        embedding: the update is (B·A)ᵀ.
        adapter: its name where a file holds several, else empty.
        dialect: how it is spelled.
        turned: the parts that are stored transposed, as mlx stores A (in x r).
    """

    module: str
    kind: str
    parts: Mapping[str, str]
    rank: int | None
    shape: Shape
    embedding: bool
    adapter: str
    dialect: str
    turned: frozenset[str] = frozenset()

    @property
    def names(self) -> tuple[str, ...]:
        """All stored tensors."""
        return tuple(self.parts.values())

    @property
    def first(self) -> str:
        """The stored tensor that messages name: B, or whatever comes first."""
        return self.parts.get("b") or next(iter(self.parts.values()))


def factors_of(names: Iterable[str]) -> dict[str, Factor]:
    """The tensors among `names` that are factors of an adapter; empty for a model's own names."""
    names, found = list(names), {}
    n = len(names)
    if names and names[0].startswith("base_model.model.") and all(map(_NORM_OF_PEFT.fullmatch, names)):
        return {name: _norm(name.removeprefix("base_model.model.")) for name in names}
    runs = ("\n".join(names[k : k + _RUN]) for k in range(0, n, _RUN))
    if not any(hint in run for run in runs for hint in _HINTS):
        return {}  # as of nearly every model
    for name in names:
        if _HINT.search(name) and (factor := _factor(name)) is not None:
            found[name] = factor
    strong = {factor.module for factor in found.values() if factor.part not in _WEAK}
    ia3 = {factor.module for factor in found.values() if factor.part == "on_input"}
    differences = [name for name, factor in found.items() if factor.part in ("diff", "diff_b")]
    whole = bool(strong) or 2 * len(differences) > n

    def holds(factor: Factor) -> bool:
        if factor.part in ("diff", "diff_b"):
            return whole
        return factor.part not in _WEAK or factor.module in (ia3 if factor.part == "weight" else strong)

    return {name: factor for name, factor in found.items() if holds(factor)}


def module_key(factor: Factor) -> tuple[str, str, str]:
    """(module, part, adapter) without the dialect's spelling: equal for one update written in two of them."""
    module = factor.module
    for pattern, short in _FRONTS:
        module = pattern.sub(short, module, count=1)
    module = re.sub(r"\.processor(?=\.|$)|\.", lambda m: "_" * (m[0] == "."), module)
    if factor.part == "a" or not _FUSED.match(module):
        for pattern, name in _FLUX:
            module = pattern.sub(name, module, count=1)
    return module, factor.part, factor.adapter


def updates_of(shapes: Mapping[str, Shape]) -> tuple[list[Update], list[tuple[str, str]]]:
    """Updates in file order, and (name, what is wrong) of the factors that make none."""
    groups: dict[tuple[str, str], dict[str, str]] = {}
    dialects: dict[tuple[str, str], str] = {}
    problems: list[tuple[str, str]] = []
    for name, factor in factors_of(shapes).items():
        key = (factor.module, factor.adapter)
        mine = groups.setdefault(key, {})
        if factor.part in mine:
            problems.append((name, f"{escape(mine[factor.part])} is the same factor: one file holds several adapters"))
        mine.setdefault(factor.part, name)
        if factor.part not in _WEAK or key not in dialects:
            dialects[key] = factor.dialect
    updates = []
    shared = {part: groups[key].pop(part) for key in list(groups) for part in _SHARED & set(groups[key])}
    for (module, adapter), parts in groups.items():
        if not parts:
            continue
        if "vera_lambda_b" in parts:
            parts |= shared
        made = _update(module, adapter, dialects[module, adapter], parts, shapes)
        if isinstance(made, Update):
            updates.append(made)
        else:
            problems.append((next(iter(parts.values())), made))
    return updates, problems


# Inside


def _norm(name: str) -> Factor:
    module, _, end = name.rpartition(".")
    return Factor(module, "norm" if end == "weight" else "norm_bias", "", "PEFT")


def _factor(name: str) -> Factor | None:
    for dialect, pattern in _DIALECTS:
        if (found := pattern.fullmatch(name)) is not None:
            groups = found.groupdict()
            part = _PARTS.get(groups["part"], groups["part"].removeprefix("hada_").removeprefix("lokr_"))
            if groups["part"].startswith("lokr_"):
                part = "k" + part
            if groups.get("end") == "bias":
                part = {"b": "bias"}.get(part, part + "_bias")
            adapter = groups.get("adapter") or ""
            module = groups["module"].removesuffix(".token_adapter") or "input"
            return Factor(module, part, "" if adapter == "default" else adapter, dialect)
    return None


def _update(
    module: str, adapter: str, dialect: str, parts: dict[str, str], shapes: Mapping[str, Shape]
) -> Update | str:
    """The update of one module, or why its parts make none."""
    embedding = "embedding_a" in parts or "embedding_b" in parts
    if embedding:
        parts = {part.removeprefix("embedding_"): name for part, name in parts.items()}
    turned: set[str] = set()
    if dialect == "mlx":
        turned = {part for part in ("a", "b") if part in parts and len(shapes[parts[part]]) == 2}  # not of experts
        embedding = _EMBEDDING.search(module) is not None
    elif dialect == "GGUF" and _EMBEDDING.search(module):
        turned, embedding = {"a"}, True
    of = {part: shapes[name][::-1] if part in turned else shapes[name] for part, name in parts.items()}
    found = _shaped(module, of, embedding)
    if isinstance(found, str):
        return found
    kind, rank, shape = found
    for part in ("magnitude", "bias"):
        out = shape[-1] if embedding else shape[0] if shape else 0
        if part in of and kind == "lora" and on_inputs(dialect, of[part], shape):
            continue
        if part in of and kind == "lora" and prod(of[part]) != out:
            return f"{escape(parts[part])} has shape {list(of[part])}, expected [{out}]"
    return Update(module, kind, parts, rank, shape, embedding, adapter, dialect, frozenset(turned))


def on_inputs(dialect: str, magnitude: Shape, shape: Shape) -> bool:
    """Whether DoRA's magnitudes are of inputs, (1 x in …), as LyCORIS may have them; PEFT's of a convolution are
    (1 x out x 1 x 1)."""
    fits = len(magnitude) > 1 and magnitude[0] == 1 and len(shape) in (2, 4, 5) and magnitude[1] == shape[1]
    return fits and shape[0] != 1 and dialect == "kohya"


_Shaped = tuple[str, int | None, Shape]


def _shaped(module: str, of: Mapping[str, Shape], embedding: bool) -> _Shaped | str:
    """(kind, rank, shape), or what is wrong."""
    words = set(of)
    if words & {"a", "b"}:
        return _lora(module, of, embedding)
    if any(word.startswith("kw") for word in words):
        return _lokr(module, of)
    if words & {"w1_a", "w1_b", "w2_a", "w2_b"}:
        return _loha(module, of)
    if words & {"ia3_l", "on_input"}:
        return "ia3", None, ()
    if words & {"diff", "diff_b"}:
        return "diff", None, of.get("diff", ())
    if words & {"norm", "norm_bias"}:
        return "norms", None, ()
    for word, kind, axes in (("oft_R", "oft", 2), ("boft_R", "boft", 4), ("oft_r", "oft", 3)):
        if word in words and (word != "oft_r" or "oft_s" in words):  # an older one without turns outputs
            fits = len(of[word]) == axes and (axes == 2 or of[word][-1] == of[word][-2])
            return (kind, None, ()) if fits else f"{escape(module)}.{word} has shape {list(of[word])}"
    if any("oft_" in word for word in words):
        return "turned", None, ()
    if {"vera_lambda_b", "vera_lambda_d"} <= words:
        return "vera", prod(of["vera_lambda_d"]), ()
    for word, kind in (("prompt_embeddings", "prompt"), ("trainable_tokens_delta", "tokens")):
        if word in words:
            return kind, None, ()
    for kind in _OTHERS:
        if any(word.startswith(f"{kind}_") for word in words):
            return kind, None, ()
    return f"{escape(module)} has parts that make no update: {', '.join(sorted(words))}"


def _lora(module: str, of: Mapping[str, Shape], embedding: bool) -> _Shaped | str:
    a, b = of.get("a"), of.get("b")
    if a is None or b is None:
        return f"{escape(module)} has only one of the two factors A and B"
    middle = "mid" in of
    fits = len(a) == len(b) and len(a) in (2, 3, 4, 5)
    if not fits or (len(a) == 2 and a[0] != b[1]) or (len(a) > 3 and a[0] != b[1] and not middle):
        return f"factors of shapes {list(a)} and {list(b)}: A must be (r x in) and B (out x r)"
    if len(a) == 3:  # a stack of experts
        return ("lora", a[1], (a[0], b[1], a[2])) if a[1] == b[2] else ("lora", min(a[1:] + b[1:]), ())
    kernel = of["mid"][2:] if middle else a[2:]
    return "lora", a[0], (a[1], b[0]) if embedding else (b[0], a[1], *kernel)


def _loha(module: str, of: Mapping[str, Shape]) -> _Shaped | str:
    factors = [of.get(word) for word in ("w1_a", "w1_b", "w2_a", "w2_b")]
    if any(x is None or len(x) != 2 for x in factors):
        return f"{escape(module)} has not all four factors of LoHa"
    w1a, w1b, w2a, w2b = (x for x in factors if x is not None)
    if "t1" in of or "t2" in of:  # core tensors of a convolution
        core = of.get("t1", ())
        if core != of.get("t2") or core[:2] != (w1a[0], w1b[0]) or (w1a[1], w1b[1]) != (w2a[1], w2b[1]):
            return f"core tensors of {escape(module)} don't fit: {list(core)}, {list(of.get('t2', ()))}"
        return "loha", w1b[0], (w1a[1], w1b[1], *core[2:])
    if w1a[1] != w1b[0] or w2a[1] != w2b[0] or (w1a[0], w1b[1]) != (w2a[0], w2b[1]):
        return f"factors of {escape(module)} don't fit: " + ", ".join(str(list(x)) for x in (w1a, w1b, w2a, w2b))
    return "loha", w1b[0], (w1a[0], w1b[1])


def _lokr(module: str, of: Mapping[str, Shape]) -> _Shaped | str:
    made: list[Shape] = []
    ranks: list[int] = []
    for word in ("kw1", "kw2"):
        if word in of:
            made.append(of[word])
            continue
        a, b = of.get(word + "_a"), of.get(word + "_b")
        if a is None or b is None:
            return f"{escape(module)} lacks {word[1:]} of LoKr, or a factor of it"
        if (word == "kw1" or "kt2" not in of) and (len(a) != 2 or len(b) < 2 or a[1] != b[0]):
            return f"factors of {escape(module)} don't fit: {list(a)}, {list(b)}"
        ranks.append(b[0])
        core = of.get("kt2") if word == "kw2" else None
        made.append((a[0], *b[1:]) if core is None else (a[-1], b[-1], *core[2:]))
    first, second = made
    rank = ranks[-1] if ranks else None
    if len(first) != 2 or len(second) < 2:
        return "lokr", rank, ()
    return "lokr", rank, (first[0] * second[0], first[1] * second[1], *second[2:])


def inside_a_model(names: Collection[str], factors: Mapping[str, Factor]) -> bool:
    """Whether the factors stand in a whole model: the layers that they adapt, or more tensors than they are."""
    modules = {factor.module for factor in factors.values()}
    plain = [name.removeprefix("base_model.model.") for name in names if name not in factors]
    return bool(factors) and (
        len(plain) > len(factors) or any(name.removesuffix(".base_layer.weight") in modules for name in plain)
    )
