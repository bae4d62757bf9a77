"""Benchmark suites: `measure(peer) -> {case: Figure}`, or `measure_in_turns(peers) -> {peer: {case: Figure}}` where the
peers take turns in one process. Smaller is better unless the unit is a rate (`RATES`)."""

from __future__ import annotations

# (value, unit), or with what else there is to say of it: (value, unit, {"of copy": 0.93}).
Figure = tuple[float, str] | tuple[float, str, dict[str, float]]

# The key of the results under which a peer's refusals stand, by case; under ERROR stands why there are no results.
LEFT_OUT, ERROR = "left out", "error"
