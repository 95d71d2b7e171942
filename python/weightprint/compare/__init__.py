"""The verbs on two models: from two checkpoints to a comparison. May import operations and below."""
