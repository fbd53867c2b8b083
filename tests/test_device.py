"""The precision that a processor is given."""

import pytest

from openjepa.core.errors import UserError
from openjepa.training import device
from openjepa.training.device import choose_device


def test_bf16_is_refused_where_a_processor_has_no_products_in_it(monkeypatch):
    monkeypatch.setattr(device, "HAS_ONEDNN_BF16", True)
    assert choose_device("cpu", "bf16").bf16
    monkeypatch.setattr(device, "HAS_ONEDNN_BF16", False)
    with pytest.raises(UserError, match="no fast products in bf16: try --precision fp32"):
        choose_device("cpu", "bf16")
    assert not choose_device("cpu", "fp32").bf16
