"""A process that launches products on the fake driver; run by algorithms_suite.py, which reads what it prints.

Its argument is JSON: `times` of cuBLASLt's algorithms in us, `steps` as {"plan": name, "sizes": [m, n, k]}, and maybe a
`directory` for choices, the `version` of cuBLASLt, an algorithm to `refuse`, a memory `limit`, us of the `host` that
measuring one launch takes, and more keyword arguments of `matmul_plan` (`plans`).
"""

import ctypes
import json
import sys

import numpy as np
from suite import FAKE, launch, matmul_plan, upload

from backend_cuda import _runtime

COUNTED = ("measured", "from_disk", "unmeasured")


def main(directory=None, times=(100,), steps=(), version=130000, refuse=-1, limit=None, host=0, plans=None):
    _runtime.initialize(None, directory)
    FAKE.fake_lt_times((ctypes.c_double * len(times))(*times), ctypes.c_long(len(times)))
    for name, value in (("version", version), ("refuse", refuse), ("host_us", host)):
        getattr(FAKE, f"fake_lt_{name}")(ctypes.c_long(value))
    FAKE.fake_lt_computes(0)
    made, chosen = {}, []
    for step in steps:
        plan = made.setdefault(step["plan"], matmul_plan(**(plans or {})))
        m, n, k = step["sizes"]
        leaves = [upload(np.ones(count, np.float32)) for count in (m * k, k * n, m * n)]
        if limit is not None:
            _runtime.set_memory_limit(_runtime.memory_info()["active"] + limit)
        launch(plan, [m, n, k, 1], [1.0, 1.0], leaves)
        chosen.append(FAKE.fake_lt_captured())
    counters = _runtime.counters()
    counts = {name: counters[f"matmul_{name}"] for name in COUNTED}
    counts |= {"microseconds": counters["matmul_measuring_us"], "launched": FAKE.fake_lt_launched()}
    print(json.dumps({"chosen": chosen, "counts": counts, "in_use": FAKE.fake_in_use(), **_runtime.memory_info()}))


main(**json.loads(sys.argv[1]))
