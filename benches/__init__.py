"""Benchmarks of weightprint; none of this is installed.

lineage         who descends from whom: every method against known truth
scan            speed of a scan against plain reads and other tools
same_output     what the command line prints, before and after a refactoring
test_scan       the scan as pytest-benchmark sees it, before and after a change
instructions    instructions per element of a scan, by callgrind
"""
