"""Every format that was ever written can still be read; `tests/formats` holds a run of each."""

import json
from pathlib import Path

import pytest
import torch

from openjepa.core.fileio import MAX_JSON_BYTES
from openjepa.interop.pretrained import load_run
from openjepa.training.checkpoint import load_newest, optimizer_state, restore_checkpoint
from openjepa.training.config import load_config
from openjepa.training.migrations import FORMAT
from openjepa.training.optim import build_optimizer

FORMATS = sorted(Path(__file__).parent.glob("formats/*"))


@pytest.mark.parametrize("folder", FORMATS, ids=lambda folder: folder.name)
def test_a_run_of_every_format_gives_the_same_features(folder):
    expected = torch.tensor(json.loads((folder / "features.json").read_text()))
    trained = load_run(folder)
    view = trained.config.data.synthetic(2, 3).read(torch.arange(2), None).views[0]
    (tokens,) = trained.encoder(trained.config.data.tokens(view))
    torch.testing.assert_close(tokens.x.mean(1), expected, atol=1e-4, rtol=0)
    assert trained.step == 3


@pytest.mark.parametrize("folder", FORMATS, ids=lambda folder: folder.name)
def test_a_checkpoint_of_every_format_can_be_resumed(folder):
    checkpoint, settings = load_newest(folder / "checkpoints"), load_config(folder)
    method = settings.method.build(settings.data)
    optimizer = build_optimizer(method, settings.optim)
    restore_checkpoint(checkpoint, method, optimizer)
    assert all(torch.equal(value, checkpoint.model[name]) for name, value in method.state_dict().items())
    assert optimizer_state(method, optimizer).keys() == checkpoint.optimizer.keys()


def test_there_is_a_run_of_every_older_format():
    """Every other test writes the current format."""
    assert {folder.name for folder in FORMATS} == {str(number) for number in range(1, FORMAT)}


def test_written_json_files_are_smaller_than_the_limit_for_reading():
    assert max(file.stat().st_size for folder in FORMATS for file in folder.rglob("*.json")) < MAX_JSON_BYTES
