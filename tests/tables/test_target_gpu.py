"""What a target must do on a GPU; skipped where there is none."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from onecycle.tables.target import Target

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_restoring_a_batch_does_not_wait_for_the_device():
    target = Target.fit(pa.table({"a": np.arange(9) / 7, "b": np.arange(9) / 3}), ["a", "b"])
    values = torch.randn(50, 2)
    there = values.cuda()
    target.inverse_transform(there)  # the first one takes mean and deviation there
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = target.inverse_transform(there)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert found.device == there.device
    torch.testing.assert_close(found.cpu(), target.inverse_transform(values), rtol=1e-6, atol=0)
