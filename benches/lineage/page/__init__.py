"""docs/lineage.md and its drawings, made from the scores."""
