"""Waiting for launches, on the fake driver: what it asks of the driver, and when.

Run by tests/test_runtime_fake_driver.py.
"""

import gc
import threading
import time

import numpy as np
import pytest
from suite import API, BY_WORD, FAKE, add_plan, changed, fill_chain, launch, upload

from backend_cuda import _runtime


@pytest.fixture(autouse=True)
def settled():
    """What a process allocates once is there, and what earlier tests left is destroyed: calls of the driver, too."""
    gc.collect()
    for _ in range(2):
        launch(fill_chain(), [4], [1.0, 1.0])[0].numpy(count=1)
        _runtime.synchronize()
    gc.collect()
    launch(add_plan(), [2], leaves=[upload(np.ones(2, np.float32))] * 2)
    _runtime.synchronize()


def test_an_evaluation_that_is_waited_for_and_read_makes_three_driver_calls():
    plan = add_plan()
    a, b = upload(np.arange(5, dtype=np.float32)), upload(np.ones(5, np.float32))

    def step():
        (out,) = launch(plan, [5], leaves=[a, b])
        API.wait(out.ticket)
        return out

    step()
    gained, out = changed(step)
    assert gained["driver_calls"] == 2 + (not BY_WORD)  # the graph, its ticket, and a look at the event
    del out
    gained, _ = changed(lambda: step().numpy(count=1))
    assert gained["driver_calls"] == 3 + (not BY_WORD)


def released_after(seconds):
    """Waits for work that is done after so many seconds, or more: its driver calls, how long it took, the result."""
    FAKE.fake_hold(1)
    (out,) = launch(fill_chain(), [4], [1.0, 1.0])
    timer = threading.Timer(seconds, FAKE.fake_hold, (0,))
    start = time.perf_counter()
    timer.start()
    gained, _ = changed(lambda: API.wait(out.ticket))
    took = time.perf_counter() - start
    timer.join()
    return gained["driver_calls"], took, out


def test_waiting_asks_the_driver_once_a_millisecond_at_most():
    calls, took, out = released_after(0.05)
    assert 1 <= calls <= 1 + 1000 * took if BY_WORD else calls > 50  # 1: the mark
    gained, _ = changed(lambda: API.wait(out.ticket))
    assert gained == {}
    with pytest.raises(RuntimeError, match="no such ticket"):
        API.wait(out.ticket + 1000)


def test_other_threads_run_while_one_waits():
    FAKE.fake_hold(1)
    (out,) = launch(fill_chain(), [4], [1.0, 1.0])
    waiter = threading.Thread(target=API.wait, args=(out.ticket,))
    waiter.start()
    (other,) = launch(fill_chain(), [4], [1.0, 2.0])  # the tickets of both wait for the same word
    FAKE.fake_hold(0)
    waiter.join(10)
    assert not waiter.is_alive() and API.wait(other.ticket) == 0


def test_a_kernel_that_failed_is_an_error_where_it_is_waited_for():
    plan = fill_chain()
    FAKE.fake_break(1)
    try:
        (out,) = launch(plan, [4], [1.0, 1.0])
        for look in (lambda: API.wait(out.ticket), out.numpy):
            with pytest.raises(RuntimeError, match=r"for work launched earlier: CUDA_ERROR_ILLEGAL_ADDRESS"):
                look()
    finally:
        FAKE.fake_break(0)
    (out,) = launch(plan, [4], [1.0, 1.0])  # the fake driver recovers, a real one would not
    assert API.wait(out.ticket) == 0


def calls_of(function):
    gained, result = changed(function)
    return gained.get("driver_calls", 0), result


def test_launches_in_a_row_have_no_marks_between_them():
    plan = add_plan()
    a = upload(np.ones(2, np.float32))

    def ticket_of_launch():  # the memory of its result is the next one's: nothing is patched
        return launch(plan, [2], leaves=[a, a])[0].ticket

    for _ in range(100):  # launches are marked for a while after somebody has waited for one that was not the last
        ticket_of_launch()
    calls, tickets = zip(*[calls_of(ticket_of_launch) for _ in range(20)], strict=True)
    assert set(calls) == {1}
    # The mark, and where events tell a look at one.
    assert calls_of(lambda: API.wait(tickets[-1]))[0] == 1 + (not BY_WORD)
    assert calls_of(lambda: [API.wait(ticket) for ticket in tickets])[0] == 0
    np.testing.assert_array_equal(launch(plan, [2], leaves=[a, a])[0].numpy(), [2, 2])


def test_a_launch_that_is_awaited_is_marked_at_once():
    plan = add_plan()
    a = upload(np.ones(2, np.float32))
    API.wait(launch(plan, [2], leaves=[a, a], awaited=True)[0].ticket)
    calls, (out,) = calls_of(lambda: launch(plan, [2], leaves=[a, a], awaited=True))
    assert calls == 2
    assert calls_of(lambda: API.wait(out.ticket))[0] == (not BY_WORD)


def test_after_a_wait_for_an_earlier_launch_marks_are_made_at_once():
    plan = add_plan()
    a = upload(np.ones(2, np.float32))
    _runtime.synchronize()
    FAKE.fake_hold(1)
    (first,) = launch(plan, [2], leaves=[a, a])
    (second,) = launch(plan, [2], leaves=[a, a])
    timer = threading.Timer(0.02, FAKE.fake_hold, (0,))
    timer.start()
    API.wait(first.ticket)
    timer.join()
    assert calls_of(lambda: API.wait(second.ticket))[0] == (not BY_WORD)
    launch(plan, [2], leaves=[a, a])
    marked = [calls_of(lambda: launch(plan, [2], leaves=[a, a]))[0] for _ in range(100)]
    assert marked[0] == 2 and marked[-1] == 1 and marked == sorted(marked, reverse=True)


def test_old_tickets_outlive_their_events():
    plan = add_plan()
    a = upload(np.ones(2, np.float32))
    (first,) = launch(plan, [2], leaves=[a, a])
    outs = [launch(plan, [2], leaves=[a, a], awaited=i % 2 == 0)[0] for i in range(700)]
    for out in (first, outs[1], outs[500], outs[-1], outs[0]):
        assert API.wait(out.ticket) == 0
