"""A tree of origin shown: the page, its drawings, and Markdown."""
