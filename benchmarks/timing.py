"""Measuring: medians of repeated calls, after a warm-up."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any


def median_us(call: Callable[[], Any], repeats: int = 15, warmups: int = 2) -> float:
    """The median wall time of a call, in microseconds. The call waits for what it measures."""
    for _ in range(warmups):
        call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6
