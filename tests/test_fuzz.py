"""Damaged and hostile files crash nothing, run no code and are not accepted; `benchmarks/fuzz.py` tries thousands."""

import json
import os
import struct
from pathlib import Path

import pytest
import torch

from benchmarks import fuzz, fuzz_video
from openjepa.cli.pretrain import pretrain
from openjepa.core.errors import UserError
from openjepa.core.fileio import sha256_of_file, write_durable
from openjepa.data import image_io
from openjepa.data.image_io import Undecodable, read_image_file
from openjepa.training import checkpoint
from openjepa.training.checkpoint import DAMAGE_ERRORS, list_checkpoints, load_newest, read_checkpoint
from tests.mutants import limit_memory, run_cases


@pytest.mark.parametrize(("kind", "cases"), [(fuzz.Images, 400), (fuzz.Checkpoints, 60), (fuzz.Archives, 200)])
def test_mutated_files_are_refused_or_read_as_before(kind, cases, tmp_path):
    torch.set_num_threads(1)
    outcomes = run_cases(cases, kind(tmp_path, seed=1), tmp_path / "notes")
    assert outcomes.keys() <= kind.accepted, outcomes
    assert len(outcomes) > 1 and sum(outcomes.values()) == cases


def test_mutated_videos_are_refused_or_decoded_and_the_doctor_agrees(tmp_path):
    pytest.importorskip("av", reason="video files need PyAV: pip install 'openjepa[video]'")
    outcomes = run_cases(40, fuzz_video.Videos(tmp_path, seed=2), tmp_path / "notes")
    assert outcomes.keys() == fuzz_video.Videos.accepted and sum(outcomes.values()) == 40, outcomes


def test_the_harness_detects_a_crash_a_slow_case_and_an_error(tmp_path, monkeypatch):
    from tests import mutants

    monkeypatch.setattr(mutants, "SECONDS", 1)

    def run_one(number: int) -> str:
        if number == 1:
            os.abort()
        if number == 2:
            raise KeyError("a defect")
        if number == 3:
            bytearray(2**33)
        while number == 4:
            pass
        return "fine"

    outcomes = run_cases(6, run_one, tmp_path / "notes")
    kinds = sorted(word.split(" ")[0] for word in outcomes)
    assert kinds == ["KeyError", "MemoryError", "crash", "fine", "slow"] and outcomes["fine"] == 2


@pytest.fixture
def saved(tiny):
    from tests.conftest import replace

    pretrain(replace(tiny, steps=1))
    return list_checkpoints(tiny.out / "checkpoints")[0]


HOSTILE_SHARDS = {
    "a header larger than the file": struct.pack("<Q", 2**63 - 1) + b"{}",
    "a header of a hundred thousand names": (lambda text: struct.pack("<Q", len(text)) + text)(
        json.dumps({f"n{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(100_000)}).encode()
    ),
    "a false shape": (lambda text: struct.pack("<Q", len(text)) + text + b"1234")(
        json.dumps({"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 4]}}).encode()
    ),
    "tensors that overlap": (lambda text: struct.pack("<Q", len(text)) + text + b"12345678")(
        json.dumps({name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for name in "ab"}).encode()
    ),
    "a pickle": b"cos\nsystem\n(S'touch {canary}'\ntR.",
}


@pytest.mark.parametrize("attack", HOSTILE_SHARDS)
def test_a_hostile_shard_with_a_valid_hash_is_refused_in_little_memory(saved, attack, tmp_path):
    canary = tmp_path / "canary"
    content = HOSTILE_SHARDS[attack].replace(b"{canary}", bytes(canary))
    (saved / "model.safetensors").write_bytes(content)
    state = json.loads((saved / "state.json").read_text())
    state["sha256"]["model.safetensors"] = sha256_of_file(saved / "model.safetensors")
    (saved / "state.json").write_text(json.dumps(state))
    child = os.fork()
    if child == 0:
        limit_memory()
        try:
            read_checkpoint(saved)
        except DAMAGE_ERRORS:
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0 and not canary.exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[" * 10**5, "nested too deeply"),
        ('{"format": 1, "step": ' + "9" * 5000 + "}", "digits"),
        ("[1]", "must contain a JSON object, got list"),
        ('{"format": 1, "step": 1.0, "save": "", "sha256": {}}', "another checkpoint"),
        ('{"format": 1, "step": 2, "save": "", "sha256": {}}', "another checkpoint"),
        ('{"format": 1, "step": 1, "save": "", "sha256": {"../../model.safetensors": ""}}', "lists no shards"),
        ('{"format": 2}', "format 2, this version reads 1"),
        (" " * (2**24 + 1), "larger than 16 MiB"),
    ],
)
def test_an_invalid_state_is_refused_with_a_reason(saved, content, reason):
    (saved / "state.json").write_text(content)
    with pytest.raises(ValueError, match=reason):
        read_checkpoint(saved)


def test_non_finite_weights_count_as_damage(tiny, saved):
    model = read_checkpoint(saved).model
    name = next(iter(model))
    model[name].view(-1)[0] = float("nan")
    (saved / "model.safetensors").unlink()
    state = json.loads((saved / "state.json").read_text())
    state["sha256"]["model.safetensors"] = write_durable(
        saved / "model.safetensors", checkpoint.serialize(model, {"save": state["save"]})
    )
    (saved / "state.json").write_text(json.dumps(state))
    with pytest.raises(UserError, match="every checkpoint .* is damaged"):
        load_newest(saved.parent)


def test_an_array_with_a_false_shape_and_a_huge_file_are_undecodable(tmp_path, monkeypatch):
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 1000000, 3), }"
    header += b" " * (117 - len(header)) + b"\n"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    monkeypatch.setattr(image_io, "MAX_BYTES", 1000)
    Path(tmp_path / "b.jpg").write_bytes(bytes(1001))
    for name, reason in (("a.npy", "not a plain numpy array"), ("b.jpg", "larger than")):
        with pytest.raises(Undecodable, match=reason):
            read_image_file(str(tmp_path / name), 3)
