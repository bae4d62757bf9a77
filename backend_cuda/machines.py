"""What GPUs can do at most, from their makers' data sheets: dense products, without sparsity."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from mlxlite.observe.description import Machine


class Peak(NamedTuple):
    """Bytes a second, and operations a second for 16-bit floats, TF32, float32 and float64."""

    bandwidth: float
    half: float
    tf32: float
    single: float
    double: float


PEAKS = {
    "NVIDIA H100 80GB HBM3": Peak(3.35e12, 989e12, 494e12, 67e12, 67e12),
    "NVIDIA H100 PCIe": Peak(2.04e12, 756e12, 378e12, 51e12, 51e12),
    "NVIDIA H100 NVL": Peak(3.9e12, 835e12, 417e12, 60e12, 60e12),
    "NVIDIA H200": Peak(4.8e12, 989e12, 494e12, 67e12, 67e12),
    "NVIDIA B200": Peak(8.0e12, 2250e12, 1125e12, 75e12, 37e12),
    "NVIDIA A100-SXM4-80GB": Peak(2.04e12, 312e12, 156e12, 19.5e12, 19.5e12),
    "NVIDIA A100-SXM4-40GB": Peak(1.555e12, 312e12, 156e12, 19.5e12, 19.5e12),
    "NVIDIA A100 80GB PCIe": Peak(1.935e12, 312e12, 156e12, 19.5e12, 19.5e12),
    "NVIDIA L4": Peak(0.3e12, 121e12, 60e12, 30.3e12, 0.47e12),
    "NVIDIA L40S": Peak(0.864e12, 362e12, 183e12, 91.6e12, 1.43e12),
    "NVIDIA GeForce RTX 4090": Peak(1.008e12, 165e12, 82.6e12, 82.6e12, 1.29e12),
}
ASSUMED = "NVIDIA H100 80GB HBM3"


def machine(info: dict[str, Any] | None) -> Machine:
    """The machine of the runtime's device_info; for None, one that is assumed because there is none here."""
    name = ASSUMED if info is None else info["name"]
    peak = PEAKS.get(name)
    if peak is None:
        bandwidth = (info or {}).get("memory_bandwidth") or None
        return Machine(name, bandwidth)
    single = peak.tf32 if os.environ.get("MLX_ENABLE_TF32", "1") != "0" else peak.single
    operations = {
        "float16": peak.half,
        "bfloat16": peak.half,
        "float32": single,
        "complex64": single,
        "float64": peak.double,
    }
    return Machine(name, peak.bandwidth, operations, assumed=info is None)
