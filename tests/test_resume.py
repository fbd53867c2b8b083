"""A run that is killed and resumed ends bit-identical to an undisturbed one; damage is detected."""

import json
import os
import shutil
import signal
import time

import pytest
import torch
from safetensors.torch import load_file

from openjepa.cli.pretrain import pretrain
from openjepa.core.errors import Interrupted, RunError, UserError
from openjepa.core.fileio import lock_folder
from openjepa.core.types import Signal
from openjepa.interop.pretrained import load_run
from openjepa.methods.jepa import JEPA
from openjepa.nn.cpu_kernels import HAS_ONEDNN_BF16
from openjepa.training import checkpoint
from openjepa.training import run as runs
from openjepa.training.checkpoint import list_checkpoints, load_newest
from openjepa.training.config import from_json, to_json
from openjepa.training.run_folder import initialize_from
from tests.conftest import METHODS, replace, slow
from tests.faults import load_outcome, same_outcome
from tests.ranks import settings_argument
from tests.ready import Ready


@pytest.fixture
def whole(tiny):
    """Return the outcome of the undisturbed run."""
    pretrain(replace(tiny, out=tiny.out.with_name("whole")))
    return load_outcome(tiny.out.with_name("whole"))


@pytest.mark.parametrize("stop", [1, pytest.param(5, marks=slow), 7, pytest.param(11, marks=slow)])
def test_a_run_stopped_by_a_signal_resumes_bit_exact(tiny, whole, stop, monkeypatch):
    from openjepa.training.signals import StopSignals

    monkeypatch.setattr(StopSignals, "check", lambda self, step, device: signal.SIGTERM if step + 1 == stop else 0)
    with pytest.raises(Interrupted, match="SIGTERM"):
        pretrain(tiny)
    monkeypatch.undo()
    pretrain(replace(tiny, resume="yes"))
    assert same_outcome(load_outcome(tiny.out), whole)


BF16 = pytest.param("bf16", marks=pytest.mark.skipif(not HAS_ONEDNN_BF16, reason="this CPU has no fast bf16 matmuls"))


@pytest.mark.parametrize("precision", ["fp32", BF16])
def test_a_killed_run_resumes_bit_exact(tiny, precision):
    """With SIGKILL after steps 3, 6 and 9 of a real process."""
    tiny = replace(tiny, precision=precision, save_every=2)
    pretrain(replace(tiny, out=tiny.out.with_name("whole")))
    for kill in (3, 6, 9):
        process = Ready(WORKER, settings_argument(replace(tiny, resume="if-any")), str(kill))
        assert process.wait(120) == -signal.SIGKILL
    pretrain(replace(tiny, resume="yes"))
    assert same_outcome(load_outcome(tiny.out), load_outcome(tiny.out.with_name("whole")))


WORKER = """
import json, os, signal, sys
from openjepa.cli.pretrain import pretrain
from openjepa.training.config import from_json
from openjepa.training.checkpoint import list_checkpoints
from openjepa.training.meters import Meters
from tests.small import small
small()
init, on_step = Meters.__init__, Meters.on_step
def init_and_note_start(self, settings, device, ceiling):
    init(self, settings, device, ceiling)
    taken = list_checkpoints(settings.out / "checkpoints")
    count_and_kill.steps = int(taken[0].name.removeprefix("step-")) if taken else 0
def count_and_kill(self, finite, masks):
    on_step(self, finite, masks)
    count_and_kill.steps += 1
    if count_and_kill.steps >= int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
Meters.__init__, Meters.on_step = init_and_note_start, count_and_kill
pretrain(from_json(json.loads(sys.argv[1])))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_saves_a_checkpoint_and_stops_the_run(tiny, number):
    tiny = replace(tiny, steps=100_000, save_every=100_000)
    process = Ready(RUN, settings_argument(tiny), capture_stderr=True)
    metrics = tiny.out / "metrics.jsonl"
    deadline = time.monotonic() + 90
    while not (metrics.exists() and len(metrics.read_text().splitlines()) > 2):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    try:
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + number and "resume with --resume" in stderr
    assert load_newest(tiny.out / "checkpoints").step > 0


RUN = """
import json, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # the parent may ignore it, and then a run would too
from openjepa.cli.main import run_guarded
from openjepa.cli.pretrain import pretrain
from openjepa.training.config import from_json
from tests.small import small
small()
raise SystemExit(run_guarded(lambda _: pretrain(from_json(json.loads(sys.argv[1]))), []))
"""


@pytest.mark.parametrize("damage", ["truncate", "flip", "manifest", "missing", "swap"])
def test_a_run_resumes_from_the_previous_checkpoint_if_the_newest_is_damaged(tiny, whole, damage, capsys):
    pretrain(tiny)
    newest, before = list_checkpoints(tiny.out / "checkpoints")
    shard = newest / "optimizer.safetensors"
    content = bytearray(shard.read_bytes())
    if damage == "truncate":
        shard.write_bytes(content[: len(content) // 2])
    if damage == "flip":
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
    if damage == "manifest":
        (newest / "state.json").write_text("{")
    if damage == "missing":
        shard.unlink()
    if damage == "swap":
        shard.write_bytes((before / "optimizer.safetensors").read_bytes())
    pretrain(replace(tiny, resume="yes"))
    assert f"{newest.name} is damaged" in capsys.readouterr().err
    assert same_outcome(load_outcome(tiny.out), whole)
    assert list((tiny.out / "checkpoints").glob("damaged-*"))


def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_afresh(tiny):
    pretrain(tiny)
    for path in list_checkpoints(tiny.out / "checkpoints"):
        (path / "state.json").unlink()
    for _ in range(2):
        with pytest.raises(UserError, match="every checkpoint in .* is damaged"):
            pretrain(replace(tiny, resume="yes"))


def test_a_finished_run_that_is_resumed_stays_the_same(tiny, whole):
    pretrain(tiny)
    pretrain(replace(tiny, resume="yes"))
    assert same_outcome(load_outcome(tiny.out), whole)


def test_a_run_killed_before_its_first_checkpoint_starts_again_and_ends_the_same(tiny, whole):
    process = Ready(WORKER, settings_argument(tiny), "3")
    assert process.wait(120) == -signal.SIGKILL
    pretrain(replace(tiny, resume="yes"))
    assert same_outcome(load_outcome(tiny.out), whole)


def test_the_number_of_workers_does_not_change_the_result(tiny, whole):
    pretrain(replace(tiny, workers=2))
    assert same_outcome(load_outcome(tiny.out), whole)


def test_resuming_with_other_data_is_refused_unless_allowed(tiny, photos, tmp_path, capsys):
    pretrain(replace(tiny, steps=5))
    other = tmp_path / "other"
    other.mkdir()
    for number, file in enumerate(sorted(photos.rglob("*.png"))[:40]):
        os.link(file, other / f"{number}.png")
    moved = replace(tiny, resume="yes", data=replace(tiny.data, root=(str(other),)))
    with pytest.raises(UserError, match="96 files then, 40 now"):
        pretrain(moved)
    pretrain(replace(moved, allow_data_change=True))
    assert "not exact" in capsys.readouterr().err


def test_resuming_with_other_settings_warns_that_the_run_is_not_exact(tiny, capsys):
    pretrain(tiny)
    pretrain(replace(tiny, resume="yes", steps=14, optim=replace(tiny.optim, lr=5e-4)))
    message = capsys.readouterr().err
    assert "optim.lr: 0.001 → 0.0005" in message and "steps: 12 → 14" in message


def test_an_existing_run_is_not_overwritten(tiny):
    pretrain(tiny)
    before = load_outcome(tiny.out)
    with pytest.raises(UserError, match="already holds a run.*--resume.*another --out"):
        pretrain(tiny)
    assert same_outcome(load_outcome(tiny.out), before)


def test_two_processes_cannot_train_in_the_same_folder(tiny):
    with lock_folder(tiny.out, "training"), pytest.raises(UserError, match="another process is training"):
        pretrain(tiny)


@pytest.mark.parametrize("last", [False, True])
def test_a_full_disk_loses_nothing(tiny, monkeypatch, capsys, last):
    """During a run it is a warning; at the end the run fails, with the previous checkpoint intact."""
    write, failing_step = checkpoint.write_durable, 12 if last else 5

    def fail(file, content):
        if int(file.parent.name.split("-")[1].split(".")[0]) == failing_step:
            raise OSError(28, "No space left on device")
        return write(file, content)

    monkeypatch.setattr(checkpoint, "write_durable", fail)
    if last:
        with pytest.raises(
            RunError, match=r"step 12 could not be saved .*No space left.*previous checkpoint step-00000010 is intact"
        ):
            pretrain(tiny)
    else:
        pretrain(tiny)
        assert "No space left on device" in capsys.readouterr().err
    assert next(path.name for path in list_checkpoints(tiny.out / "checkpoints")) == (
        "step-00000010" if last else "step-00000012"
    )
    assert not list((tiny.out / "checkpoints").glob(".*"))


def test_old_checkpoints_are_deleted_except_every_nth(tiny):
    pretrain(replace(tiny, save_every=1, keep_last=2, keep_every=4))
    names = [path.name for path in list_checkpoints(tiny.out / "checkpoints")]
    assert names == ["step-00000012", "step-00000011", "step-00000008", "step-00000004"]


def test_a_checkpoint_of_another_network_is_refused_with_the_first_difference(tiny):
    pretrain(tiny)
    shallow = replace(tiny.method, encoder=replace(tiny.method.encoder, depth=2), target_layers=(0, 1))
    with pytest.raises(UserError, match=r"another network: .*blocks\.\d.* in the file and .* in this model"):
        pretrain(replace(tiny, resume="yes", steps=14, method=shallow))


def test_a_run_can_start_from_the_weights_of_another(tiny, capsys):
    pretrain(tiny)
    pretrain(
        replace(
            tiny,
            out=tiny.out.with_name("second"),
            init_from=tiny.out,
            steps=1,
            optim=replace(tiny.optim, lr=1e-9, start_lr=1e-9, final_lr=1e-9),
        )
    )
    one, other = (load_outcome(out)[0]["model"] for out in (tiny.out, tiny.out.with_name("second")))
    torch.testing.assert_close(
        one["context_encoder.norm.weight"], other["context_encoder.norm.weight"], atol=1e-6, rtol=0
    )
    assert "started from" in capsys.readouterr().out


def test_non_finite_gradients_stop_the_run_with_advice(tiny, monkeypatch):
    from openjepa.training import step

    monkeypatch.setattr(step, "clip_gradients", lambda method, limit: torch.tensor(float("nan")))
    with pytest.raises(RunError, match="has not been finite for .* steps: try --optim.clip 1"):
        pretrain(tiny)


def test_stop_on_collapse_ends_the_run(tiny, monkeypatch):
    monkeypatch.setattr(JEPA, "signals", lambda _: (Signal("rankme", "more", 1e9, "a test"),))
    with pytest.raises(RunError, match="stopped at step 6 by --stop-on-collapse: the representation is collapsing"):
        pretrain(replace(tiny, stop_on_collapse=True))


def test_a_few_undecodable_files_are_listed_and_too_many_stop_the_run(tiny, photos, tmp_path):
    bad = tmp_path / "bad"
    bad.mkdir()
    for number in range(3):
        (bad / f"{number}.jpg").write_bytes(b"no picture")
    mixed = replace(tiny, data=replace(tiny.data, root=(str(photos), str(bad))))
    pretrain(mixed)
    listed = [json.loads(line) for line in (tiny.out / "skipped.jsonl").read_text().splitlines()]
    assert {row["path"] for row in listed} <= {str(path) for path in bad.iterdir()}
    assert listed and all(row["reason"] for row in listed)
    for number in range(3, 60):
        (bad / f"{number}.jpg").write_bytes(b"no picture")
    with pytest.raises(RunError, match="samples cannot be decoded, the last is .*jpg"):
        pretrain(replace(mixed, out=tiny.out.with_name("worse")))


def test_settings_survive_a_round_trip_through_json(tiny):
    assert from_json(json.loads(json.dumps(to_json(tiny)))) == tiny


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": 3}, "no setting 'epoch'"),
        ({"steps": "many"}, "steps cannot be 'many'"),
        ({"precision": "fp8"}, "precision cannot be 'fp8'"),
        ({"data": {"type": "hologram"}}, "unknown modality 'hologram': choose one of audio, image, image-pair"),
    ],
)
def test_an_unknown_key_or_invalid_value_in_a_config_is_refused(tiny, change, message):
    with pytest.raises(UserError, match=message):
        from_json({**to_json(tiny), **change})


def test_both_encoders_start_from_the_encoder_of_a_masked_autoencoder(tiny):
    wide = replace(METHODS["released"].encoder, dim=96)
    first = replace(tiny, method=replace(METHODS["mae"], encoder=wide), out=tiny.out.with_name("first"))
    pretrain(first)
    learned = load_run(first.out).encoder.state_dict()
    net = replace(METHODS["released"], encoder=wide).build(tiny.data)
    differences = initialize_from(net, first.out)
    for which in ("target", "context"):
        assert all(torch.equal(value, learned[name]) for name, value in net.encoder(which).state_dict().items())
    assert differences == [  # the source predicts pixels, this run features
        "predictor.proj.bias: shape 48 in the source, 96 here",
        "predictor.proj.weight: shape 48×24 in the source, 96×24 here",
    ]
    deeper = replace(METHODS["released"], encoder=replace(wide, depth=3)).build(tiny.data)
    added = "target_encoder.blocks.2.norm1.bias: new in this run, initialized at random"
    assert added in initialize_from(deeper, first.out)


def test_initial_weights_that_do_not_fit_or_are_damaged_are_refused(tiny):
    first = replace(tiny, steps=1, out=tiny.out.with_name("first"))
    pretrain(first)
    wide = replace(METHODS["released"], encoder=replace(METHODS["released"].encoder, dim=96))
    with pytest.raises(UserError, match="no weights of the encoder in .* fit this one"):
        initialize_from(wide.build(tiny.data), first.out)
    (list_checkpoints(first.out / "checkpoints")[0] / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="is damaged .*resume the run"):
        initialize_from(tiny.method.build(tiny.data), first.out)


def test_a_run_killed_before_its_first_checkpoint_starts_again_from_its_initial_weights(tiny, monkeypatch):
    first = replace(tiny, out=tiny.out.with_name("first"))
    pretrain(first)
    whole = replace(tiny, seed=1, init_from=first.out)
    pretrain(replace(whole, out=tiny.out.with_name("whole")))
    train = runs.train
    monkeypatch.setattr(runs, "train", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        pretrain(whole)
    monkeypatch.setattr(runs, "train", train)
    pretrain(replace(whole, resume="yes"))
    one, other = (
        load_file(list_checkpoints(out / "checkpoints")[0] / "model.safetensors")
        for out in (whole.out, tiny.out.with_name("whole"))
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_without_its_config_does_not_start_afresh(tiny):
    pretrain(tiny)
    (tiny.out / "config.json").unlink()
    for resume in ("no", "yes", "if-any"):
        with pytest.raises(UserError, match="has checkpoints but no config.json: restore it"):
            pretrain(replace(tiny, resume=resume))


def test_a_run_whose_checkpoints_are_missing_does_not_start_afresh(tiny):
    """Except if its log is too short for a checkpoint at its own save interval."""
    pretrain(tiny)
    shutil.rmtree(tiny.out / "checkpoints")
    with pytest.raises(UserError, match="has a log up to step 12 but no checkpoint"):
        pretrain(replace(tiny, resume="if-any"))
    early = replace(tiny, out=tiny.out.with_name("early"), save_every=100)
    pretrain(early)
    shutil.rmtree(early.out / "checkpoints")
    pretrain(replace(early, resume="if-any", save_every=1))


def test_a_checkpoint_that_cannot_be_read_is_not_treated_as_damaged(tiny, monkeypatch):
    pretrain(tiny)
    before = sorted(path.name for path in (tiny.out / "checkpoints").iterdir())

    def fail(file):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(checkpoint, "sha256_of_file", fail)
    with pytest.raises(
        UserError, match="cannot be read .Input/output error.: check its permissions and the disk; nothing was changed"
    ):
        pretrain(replace(tiny, resume="yes"))
    assert before == sorted(path.name for path in (tiny.out / "checkpoints").iterdir())


def test_a_run_beyond_the_requested_steps_says_that_nothing_is_left(tiny, capsys):
    pretrain(tiny)
    pretrain(replace(tiny, resume="yes", steps=5))
    assert (
        "nothing left to train: the checkpoint is at step 12 and --steps is 5; give more --steps"
        in capsys.readouterr().out
    )


def test_resuming_without_data_json_warns(tiny, capsys):
    pretrain(tiny)
    (tiny.out / "data.json").unlink()
    pretrain(replace(tiny, resume="yes"))
    assert "has no data.json: cannot check" in capsys.readouterr().err
