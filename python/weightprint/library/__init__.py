"""Many models: who comes from whom. May import what stands below the report."""
