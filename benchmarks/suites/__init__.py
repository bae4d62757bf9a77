"""Benchmark suites: `measure(peer) -> {case: Figure}`, or `measure_in_turns(peers) -> {peer: {case: Figure}}` where the
peers take turns in one process. Smaller is better unless the unit is a rate (`RATES`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

# (value, unit), or with what else there is to say of it: (value, unit, {"of copy": 0.93}).
Figure = tuple[float, str] | tuple[float, str, dict[str, float]]

# The key of the results under which a peer's refusals stand, by case; under ERROR stands why there are no results.
LEFT_OUT, ERROR = "left out", "error"

RESULT = "RESULT "  # begins a line of a suite's process that has its results as JSON


def tell(results: Mapping[str, Any]) -> None:
    """Print what was measured so far, which is what there will be if the process runs out of time."""
    print(RESULT + json.dumps(results), flush=True)
