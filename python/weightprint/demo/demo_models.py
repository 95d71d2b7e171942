"""Four tiny language models inside the package, whose family tree is known, so that the main job needs no download.

They are really trained (Llama form, 5 blocks, bytes as tokens, on the text of Python's own standard library) by
``python -m benches.lineage demo-models``. Each is an ordinary checkpoint: ``model.safetensors`` and ``config.json``.

`write` puts them into a folder and treads carefully there. A new folder appears whole or not at all. In a folder that
exists, it only replaces files of its own making, one whole file at a time; nothing is ever deleted.
"""

from __future__ import annotations

import os
import secrets
import shutil
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from weightprint.errors import UsageError
from weightprint.results.saving import write_atomically

__all__ = ["MODELS", "SIGN", "DemoModel", "write"]

#: The file that says a folder is a demo folder, and tells its reader what lies there.
SIGN = "WEIGHTPRINT-DEMO.txt"


@dataclass(frozen=True, slots=True)
class DemoModel:
    """One of the four: its folder's name and how it was made."""

    name: str
    made: str


MODELS: tuple[DemoModel, ...] = (
    DemoModel("parent", "trained from a random start"),
    DemoModel("finetune", "parent, trained on with other text"),
    DemoModel("moe", "parent, FFNs made 4 experts, trained on"),
    DemoModel("stranger", "same recipe and text, another seed"),
)


def write(folder: str | os.PathLike[str], *, force: bool = False) -> Path:
    """Write the four models to `folder`, one sub-folder each, and return it.

    Raises UsageError (code ``not_a_demo_folder``) if `folder` is a file, or a folder that has something in it and was
    not made by this function; `force` allows the latter, and then files of the same names are replaced.
    """
    target = Path(folder)
    _refuse_foreign(target, force)
    contents = _contents()
    if target.exists():
        _fill(target, contents)
        return target
    # Filled beside its place and renamed into it: whoever sees the folder sees all of it.
    target.absolute().parent.mkdir(parents=True, exist_ok=True)
    filling = target.absolute().with_name(f".{target.name}-{secrets.token_hex(4)}.tmp")
    filling.mkdir()
    try:
        _fill(filling, contents)
        filling.rename(target)
    except BaseException:
        shutil.rmtree(filling, ignore_errors=True)
        raise
    return target


def _fill(folder: Path, contents: dict[str, bytes]) -> None:
    for name, data in contents.items():
        file = folder / name
        # A link that someone put in a model's place is replaced; following it would overwrite what it points to.
        for place in (file.parent, file) if file.parent != folder else (file,):
            if place.is_symlink():
                place.unlink()
        file.parent.mkdir(exist_ok=True)
        write_atomically(file, data)


def _refuse_foreign(target: Path, force: bool) -> None:
    def refuse(what: str) -> UsageError:
        return UsageError(what, path=str(target), code="not_a_demo_folder")

    if os.path.lexists(target) and not target.is_dir():
        raise refuse("the demo needs a folder, and there is a file of that name: choose another with --output")
    if not target.is_dir() or force or (target / SIGN).is_file():
        return
    if any(target.iterdir()):
        raise refuse("the folder holds something else: choose another with --output, or add to it with --force")


def _contents() -> dict[str, bytes]:
    """Path within the demo folder → bytes. The sign comes first, so that a cut-short refill is still known as ours."""
    packed = files("weightprint.demo") / "models"
    contents = {SIGN: _sign_text().encode()}
    for model in MODELS:
        for file in ("model.safetensors", "config.json"):
            contents[f"{model.name}/{file}"] = (packed / model.name / file).read_bytes()
    return contents


def _sign_text() -> str:
    width = max(len(model.name) for model in MODELS)
    lines = [f"  {model.name:<{width}}  {model.made}" for model in MODELS]
    return "\n".join(
        [
            "This folder was written by `weightprint demo`. It may be deleted; the next run writes it again.",
            "",
            "Four tiny language models, trained on the text of Python's standard library, Apache-2.0:",
            "",
            *lines,
            "",
        ]
    )
