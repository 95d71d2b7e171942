"""WEIGH: from evidence to a verdict, its maps, its direction and its words. May import evidence and below."""
