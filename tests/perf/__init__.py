"""Benchmarks: each prints a ratio. Run one with ``python -m tests.perf.NAME``; none asserts a time."""
