"""Whether this machine has a GPU that works; where it has none, this is the one test skipped for it."""

from __future__ import annotations

import numpy as np


def test_a_gpu_is_present_and_returns_what_it_is_given(gpu):
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    on_device = gpu.to_device(x)
    assert gpu.device == "cuda"
    assert gpu.owns(on_device)
    gpu.synchronize()
    np.testing.assert_array_equal(gpu.to_host(on_device), x)
