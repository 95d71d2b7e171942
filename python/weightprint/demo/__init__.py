"""Four tiny models of known lineage, and the screen that shows them. May import report and below."""
