"""Choose the device and the precision."""

import pytest

from openjepa.core.errors import UserError
from openjepa.training import device
from openjepa.training.device import choose_device


def test_bf16_is_refused_on_a_cpu_without_fast_bf16_matmuls(monkeypatch):
    monkeypatch.setattr(device, "HAS_ONEDNN_BF16", True)
    assert choose_device("cpu", "bf16").bf16
    monkeypatch.setattr(device, "HAS_ONEDNN_BF16", False)
    with pytest.raises(UserError, match="this CPU has no fast bf16 matmuls: try --precision fp32"):
        choose_device("cpu", "bf16")
    assert not choose_device("cpu", "fp32").bf16
