"""Measuring: medians of repeated calls, after a warm-up; of calls that wait, and of rows of calls that are queued."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any


def median_us(call: Callable[[], Any], repeats: int = 15, warmups: int = 2, settling_s: float = 0.0) -> float:
    """The median wall time of a call, in microseconds. The call waits for what it measures.

    Between warm-ups there are `settling_s` seconds: kernels may still be compiled behind the scenes after the first.
    """
    for k in range(warmups):
        if k:
            time.sleep(settling_s)
        call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def queued_us(calls: Sequence[Callable[[], Any]], wait: Callable[[], Any], aim_us: float = 15e3) -> float:
    """The time of one call of many that are queued in a row, in microseconds.

    It is the device's, where that is longer than the host takes to queue a call.

    Args:
        calls: each queues its work. They take turns, on inputs of their own, so that none finds them in a cache.
        wait: returns when all that is queued is done.
        aim_us: how long a row should take.

    Returns:
        The median of five rows, each of at least two calls.
    """

    def row(length: int) -> None:
        for i in range(length):
            calls[i % len(calls)]()
        wait()

    row(2 * len(calls))  # builds what is built at first, for each set of inputs
    once = median_us(lambda: row(len(calls)), repeats=1, warmups=0) / len(calls)
    length = max(2, len(calls), min(200, int(aim_us / once)))
    return median_us(lambda: row(length), repeats=5, warmups=1) / length


def in_turns_us(peers: Sequence[tuple[Callable[[], Any], Callable[[], Any]]], aim_us: float = 12e3) -> list[float]:
    """The time of one call of many that are queued in a row, in microseconds, for each of several peers.

    Rows of one peer follow rows of another, so that a clock that falls as the device grows warm falls for all.

    Args:
        peers: of each a call that queues its work, and a wait for all of it.
        aim_us: how long a row should take for the fastest peer.

    Returns:
        The medians of five rows, each of as many calls for every peer.
    """

    def row(peer: int, length: int) -> float:
        call, wait = peers[peer]
        start = time.perf_counter()
        for _ in range(length):
            call()
        wait()
        return 1e6 * (time.perf_counter() - start) / length

    everyone = range(len(peers))
    for k in everyone:
        row(k, 3)  # builds what is built at first
    length = max(2, min(200, int(aim_us / min(row(k, 3) for k in everyone))))
    times: list[list[float]] = [[] for _ in everyone]
    for turn in range(5):
        for k in everyone if turn % 2 == 0 else reversed(everyone):
            times[k].append(row(k, length))
    return [statistics.median(of_peer) for of_peer in times]
