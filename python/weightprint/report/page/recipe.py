"""The page of a recipe: the sentence, the weights, layers and roles, and the configuration that would redo it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weightprint.report.page.page import Section, document, rendered, trusted
from weightprint.report.recipe import html, sentence

if TYPE_CHECKING:
    from weightprint.compare.recipe import Recipe

__all__ = ["page"]


def page(recipe: Recipe) -> str:
    """The whole page."""
    word = (recipe.method or "not explained").replace("_", " ").upper()
    lead = rendered("told.html", tone="related" if recipe.explained else "none", word=word, sentence=sentence(recipe))
    return document("recipe", recipe.child, lead, [Section("The mix", trusted(html(recipe)))])
