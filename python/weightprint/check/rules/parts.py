"""Is anything missing that the rest of the model shows should be there?"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from weightprint.anatomy.folding import fold
from weightprint.check.context import CheckContext, listed, pattern_of
from weightprint.results.finding import Finding
from weightprint.util.escape import escape
from weightprint.util.natural_order import natural_key
from weightprint.util.ranges import spans

_WITH_HEAD = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "ForMaskedLM")
_FEW = 3  # modules of one pattern that make a custom


def no_tensors(context: CheckContext) -> Iterator[Finding]:
    """Files that hold nothing: of all files an error, since then there is no model."""
    files = context.checkpoint.files
    empty = [info for info in files if not info.n_tensors]
    if empty and len(empty) == len(files):
        message = f"no tensor in {'the file' if len(files) == 1 else 'any file'}: nothing was saved"
        yield Finding("no_tensors", "error", message + _promised(context.config), empty[0].path)
    else:
        for info in empty:
            yield Finding("no_tensors", "warning", f"{escape(info.name)} holds no tensor", info.path)


def _promised(config: Mapping[str, Any]) -> str:
    """What the config says that there should be."""
    kind, targets, model = config.get("peft_type"), config.get("target_modules"), config.get("model_type")
    if isinstance(kind, str):
        names = [escape(name, 60) for name in targets[:8] if isinstance(name, str)] if isinstance(targets, list) else []
        on = f" on {', '.join(names)}" if names else ""
        return f"; adapter_config.json says {escape(kind, 40)}{on}"
    return f"; config.json says {escape(model, 60)}" if isinstance(model, str) else ""


def lacking(context: CheckContext) -> Iterator[Finding]:
    """Blocks that hold part of what most blocks hold, and nothing beside it."""
    for sheet in fold(context.anatomy):
        for run in sheet.runs:
            if run.lacks:
                blocks = f"block{'s' * (len(run.blocks) > 1)} {spans(run.blocks)}"
                have = "lack" if len(run.blocks) > 1 else "lacks"
                message = f"{escape(sheet.stack)}: {blocks} {have} {', '.join(run.lacks)}, which most blocks have"
                yield Finding("block_lacks", "warning", message)


def head(context: CheckContext) -> Iterator[Finding]:
    """An output head that is neither stored nor, by the config, the embedding; what the metadata say stands for it."""
    aliases = _aliases(context)
    roles = {a.place.role for a in context.anatomy.assignments if a.place.block is None}
    said = [context.config.get("tie_word_embeddings")]
    said += [c.get("tie_word_embeddings") for c in context.config.values() if isinstance(c, Mapping)]
    architectures = context.config.get("architectures")
    names = [name for name in architectures if isinstance(name, str)] if isinstance(architectures, list) else []
    wants = any(name.endswith(_WITH_HEAD) for name in names)
    untied = False in said and True not in said
    if wants and untied and "embedding" in roles and "head" not in roles and not context.location.missing:
        alias = next(((k, v) for k, v in aliases if "head" in k or k.startswith("output")), None)
        what = f"; the file's metadata say that {escape(alias[1])} stands for {escape(alias[0])}" if alias else ""
        message = f"no output head is stored, and config.json says that it is not the embedding{what}"
        way_out = "set tie_word_embeddings if it is the embedding, else save the model again"
        yield Finding("head_missing", "error", f"{message}: {way_out}", tensor=alias[0] if alias else None)
    lost = [name for name, _ in context.location.weight_map if name not in context.checkpoint]
    if lost and all("head" in name for name in lost) and True in said and False not in said:
        message = f"config.json ties the head to the embedding, so the model is whole without {listed(lost)}"
        yield Finding("head_not_needed", "note", message, tensor=lost[0])
    for name, target in aliases:
        if target not in context.checkpoint:
            message = f"the metadata say that {escape(target)} stands for {escape(name)}, and neither is here"
            yield Finding("alias_dangling", "error", message, tensor=name)


def _aliases(context: CheckContext) -> list[tuple[str, str]]:
    """(name, what stands for it): tensors that were left out when saving since others share their memory."""
    ends = (".weight", ".bias")
    found = [(k, v) for k, v in context.checkpoint.metadata.items() if k.endswith(ends) and v.endswith(ends)]
    return [(name, target) for name, target in found if name not in context.checkpoint]


def siblings(context: CheckContext) -> Iterator[Finding]:
    """Modules that lack a tensor which most modules of their kind have: a scale, a bias.

    A kind is a pattern of names with the type of its weight, so that layers left unquantised are no siblings of
    quantised ones.
    """
    dtypes: dict[str, str] = {}
    leaves: dict[str, set[str]] = defaultdict(set)
    for info in context.checkpoint.tensors:
        module, _, leaf = info.name.rpartition(".")
        leaves[module].add(leaf)
        if leaf in ("weight", "qweight", "weight_packed"):
            dtypes[module] = info.dtype
    kinds: dict[tuple[str, str], list[str]] = defaultdict(list)
    for module, dtype in dtypes.items():
        kinds[pattern_of(module), dtype].append(module)
    absent: dict[str, list[str]] = defaultdict(list)
    total: Counter[str] = Counter()
    for modules in kinds.values():
        have = Counter(leaf for module in modules for leaf in leaves[module])
        for leaf, n in have.items():
            if n < len(modules) and n >= _FEW and 2 * n > len(modules):
                absent[leaf] += [module for module in modules if leaf not in leaves[module]]
                total[leaf] += len(modules)
    for leaf, modules in absent.items():
        modules.sort(key=natural_key)
        n = len(modules)
        message = f"{n:,} of {total[leaf]:,} modules have no {escape(leaf)}, which the others like them have: "
        yield Finding("sibling_missing", "warning", message + listed(modules), tensor=f"{modules[0]}.{leaf}")


def repeated(context: CheckContext) -> Iterator[Finding]:
    """Every block of a stack, or every expert of a block, the same: a loop that saved one of them each time. Layers
    that a merge repeats, and one expert beside others, are left to the note on equal bytes."""
    digests = {name: context.column("digest")[k] for name, k in context.row_of.items()}
    blocks: dict[str, dict[object, list[tuple[str, str, str]]]] = defaultdict(lambda: defaultdict(list))
    for a in context.anatomy.assignments:
        stored, place = a.view.weight, a.place
        if place.block is None or stored not in digests or len(context.anatomy.weights[stored].shape) < 2:
            continue
        if place.expert is not None:
            where = f"{place.stack}: all experts of block {place.block}"
            blocks[where][place.expert].append((place.role, "", digests[stored]))
        blocks[f"{place.stack}: all blocks"][place.block].append((place.role, str(place.expert), digests[stored]))
    alike = [
        where
        for where, parts in blocks.items()
        if len(parts) > 2 and len({tuple(sorted(p)) for p in parts.values()}) == 1
    ]
    whole = [where for where in alike if where.endswith("all blocks")]
    experts = [where for where in alike if where not in whole]
    for where in whole:
        message = f"{escape(where)} ({len(blocks[where]):,}) hold the same matrices: one was saved in place of each"
        yield Finding("repeated_blocks", "warning", message)
    if experts:
        more = f", and so in {len(experts) - 1:,} more blocks" if len(experts) > 1 else ""
        message = (
            f"{escape(experts[0])} ({len(blocks[experts[0]]):,}) hold the same matrices{more}: copies not trained yet"
        )
        yield Finding("repeated_blocks", "note", message)
