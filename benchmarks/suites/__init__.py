"""Benchmark suites: `measure(peer) -> {case: (value, unit)}`. Smaller is better unless the unit is a rate."""
