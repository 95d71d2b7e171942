"""The commands of `python -m benches.lineage` that use more than one of the folders beside this one."""
