"""Writes and runs the notebook beside it: ``python docs/notebook/make.py``; needs nbclient, ipykernel, matplotlib."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

CELLS = (
    "# weightprint in a notebook\n\nWhose weights are these? The models are those that `weightprint demo` writes.",
    "%matplotlib inline\nimport weightprint\nfrom weightprint.demo.demo_models import write\n\n"
    'models = write("models")\nsorted(path.name for path in models.iterdir())',
    "## Two models\n\nA result draws itself: the verdict, where the layers of B come from, the evidence, the curves.",
    'moe = weightprint.compare(models / "parent", models / "moe")\nmoe',
    "The same as numbers and objects.",
    'moe.verdict, moe.log10_p, moe.result.share, [operation.name for operation in moe.operations]',
    "moe.to_pandas().dropna(subset=\"log10_p\")[[\"test\", \"log10_p\", \"effect\"]]",
    "Plots to work on, with matplotlib (`pip install 'weightprint[plots]'`).",
    "moe.plot_map();",
    "moe.plot_curves();",
    "## A stranger",
    'weightprint.compare(models / "parent", models / "stranger")',
    "## Several at once: who was made from whom",
    'weightprint.lineage([models / name for name in ("parent", "finetune", "moe", "stranger")])',
    "## Tensor by tensor",
    'weightprint.diff(models / "parent", models / "finetune")',
    "## Every tensor measured",
    'scan = weightprint.scan(weightprint.anatomy(models / "parent"))\nscan.plot("std");',
    "Tables are read by anything that reads Arrow.",
    'scan.by("role").to_pandas()[["role", "numel", "mean", "std", "kurtosis"]].head()',
)  # fmt: skip


def main() -> None:
    """Text where a cell begins with a heading or a sentence, code else."""
    made = nbformat.v4.new_notebook()
    for i, cell in enumerate(CELLS):
        text = cell[0] == "#" or cell.endswith((".", "`)."))
        new = nbformat.v4.new_markdown_cell if text else nbformat.v4.new_code_cell
        made.cells.append(new(cell, id=f"cell-{i}"))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PYTHONWARNINGS"] = "ignore"
        place = {"metadata": {"path": folder}}
        NotebookClient(made, resources=place, kernel_name="python3", startup_timeout=900).execute()
    for cell in made.cells:
        cell.metadata.pop("execution", None)
    made.metadata.pop("language_info", None)
    nbformat.write(made, Path(__file__).parent / "weightprint.ipynb")


if __name__ == "__main__":
    main()
