"""A run that was killed and resumed ends where one that never was ends, bit for bit; damage is noticed."""

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
from openjepa.interop.pretrained import load_run
from openjepa.nn.cpu_kernels import HAS_ONEDNN_BF16
from openjepa.training import checkpoint
from openjepa.training import run as runs
from openjepa.training.checkpoint import list_checkpoints, load_newest
from openjepa.training.collapse import Threshold
from openjepa.training.config import from_json, to_json
from openjepa.training.run_folder import initialize_from
from tests.conftest import METHODS, replace
from tests.faults import outcome, same
from tests.ranks import dump
from tests.ready import Ready


@pytest.fixture
def whole(tiny):
    """What the run comes to when nothing happens to it."""
    pretrain(replace(tiny, out=tiny.out.with_name("whole")))
    return outcome(tiny.out.with_name("whole"))


@pytest.mark.parametrize("stop", [1, 5, 7, 11])
def test_twenty_steps_are_seven_and_a_stop_and_thirteen(tiny, whole, stop, monkeypatch):
    from openjepa.training.signals import StopSignals

    monkeypatch.setattr(StopSignals, "stop", lambda self, step, device: signal.SIGTERM if step + 1 == stop else 0)
    with pytest.raises(Interrupted, match="SIGTERM"):
        pretrain(tiny)
    monkeypatch.undo()
    pretrain(replace(tiny, resume="yes"))
    assert same(outcome(tiny.out), whole)


HALF = pytest.param(
    "bf16", marks=pytest.mark.skipif(not HAS_ONEDNN_BF16, reason="this processor has no fast products in bf16")
)


@pytest.mark.parametrize("precision", ["fp32", HALF])
def test_killed_at_any_moment_it_resumes_bit_for_bit(tiny, precision):
    """SIGKILL after steps 3, 6 and 9 of a real process."""
    tiny = replace(tiny, precision=precision, save_every=2)
    pretrain(replace(tiny, out=tiny.out.with_name("whole")))
    for kill in (3, 6, 9):
        process = Ready(WORKER, dump(replace(tiny, resume="if-any")), str(kill))
        assert process.wait(120) == -signal.SIGKILL
    pretrain(replace(tiny, resume="yes"))
    assert same(outcome(tiny.out), outcome(tiny.out.with_name("whole")))


WORKER = """
import json, os, signal, sys
from openjepa.cli.pretrain import pretrain
from openjepa.training.config import from_json
from openjepa.training.meters import Meters
from tests.small import small
small()
took = Meters.on_step
def killed(self, finite, masks):
    took(self, finite, masks)
    killed.steps += 1
    if killed.start + killed.steps >= int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
killed.steps = 0
made = Meters.__init__
def begun(self, config, place, start, ceiling):
    made(self, config, place, start, ceiling)
    killed.start = start
Meters.__init__, Meters.on_step = begun, killed
pretrain(from_json(json.loads(sys.argv[1])))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_saves_and_leaves(tiny, number):
    tiny = replace(tiny, steps=100_000, save_every=100_000)
    process = Ready(RUN, dump(tiny), heard=True)
    metrics = tiny.out / "metrics.jsonl"
    deadline = time.monotonic() + 90
    while not (metrics.exists() and len(metrics.read_text().splitlines()) > 2):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    try:
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + number and "resume with --resume" in said
    assert load_newest(tiny.out / "checkpoints").step > 0


RUN = """
import json, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # who started the tests may ignore it, and runs then do, too
from openjepa.cli.main import run_guarded
from openjepa.cli.pretrain import pretrain
from openjepa.training.config import from_json
from tests.small import small
small()
raise SystemExit(run_guarded(lambda _: pretrain(from_json(json.loads(sys.argv[1]))), []))
"""


@pytest.mark.parametrize("harm", ["truncate", "flip", "manifest", "missing", "swap"])
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_taken(tiny, whole, harm, capsys):
    pretrain(tiny)
    newest, before = list_checkpoints(tiny.out / "checkpoints")
    shard = newest / "optimizer.safetensors"
    content = bytearray(shard.read_bytes())
    if harm == "truncate":
        shard.write_bytes(content[: len(content) // 2])
    if harm == "flip":
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
    if harm == "manifest":
        (newest / "state.json").write_text("{")
    if harm == "missing":
        shard.unlink()
    if harm == "swap":
        shard.write_bytes((before / "optimizer.safetensors").read_bytes())
    pretrain(replace(tiny, resume="yes"))
    assert f"{newest.name} is damaged" in capsys.readouterr().err
    assert same(outcome(tiny.out), whole)
    assert list((tiny.out / "checkpoints").glob("damaged-*"))


def test_when_all_are_damaged_it_refuses_and_never_starts_afresh(tiny):
    pretrain(tiny)
    for path in list_checkpoints(tiny.out / "checkpoints"):
        (path / "state.json").unlink()
    for _ in range(2):
        with pytest.raises(UserError, match="every checkpoint in .* is damaged"):
            pretrain(replace(tiny, resume="yes"))


def test_a_finished_run_resumed_does_nothing_more(tiny, whole):
    pretrain(tiny)
    pretrain(replace(tiny, resume="yes"))
    assert same(outcome(tiny.out), whole)


def test_a_run_stopped_before_its_first_checkpoint_starts_where_it_started(tiny, whole):
    process = Ready(WORKER, dump(tiny), "3")
    assert process.wait(120) == -signal.SIGKILL
    pretrain(replace(tiny, resume="yes"))
    assert same(outcome(tiny.out), whole)


def test_workers_do_not_change_a_run(tiny, whole):
    pretrain(replace(tiny, workers=2))
    assert same(outcome(tiny.out), whole)


def test_a_resume_on_other_data_is_refused_unless_forced(tiny, photos, tmp_path, capsys):
    pretrain(replace(tiny, steps=5))
    other = tmp_path / "other"
    other.mkdir()
    for place, file in enumerate(sorted(photos.rglob("*.png"))[:40]):
        os.link(file, other / f"{place}.png")
    moved = replace(tiny, resume="yes", data=replace(tiny.data, root=(str(other),)))
    with pytest.raises(UserError, match="96 files then, 40 now"):
        pretrain(moved)
    pretrain(replace(moved, allow_data_change=True))
    assert "not exact" in capsys.readouterr().err


def test_a_resume_with_other_settings_says_that_it_is_not_exact(tiny, capsys):
    pretrain(tiny)
    pretrain(replace(tiny, resume="yes", steps=14, optim=replace(tiny.optim, lr=5e-4)))
    said = capsys.readouterr().err
    assert "optim.lr: 0.001 → 0.0005" in said and "steps: 12 → 14" in said


def test_a_run_folder_that_exists_is_not_overwritten(tiny):
    pretrain(tiny)
    before = outcome(tiny.out)
    with pytest.raises(UserError, match="already holds a run.*--resume.*another --out"):
        pretrain(tiny)
    assert same(outcome(tiny.out), before)


def test_two_runs_do_not_share_a_folder(tiny):
    with lock_folder(tiny.out, "training"), pytest.raises(UserError, match="another process is training"):
        pretrain(tiny)


@pytest.mark.parametrize("last", [False, True])
def test_a_full_disk_loses_nothing(tiny, monkeypatch, capsys, last):
    """In the middle of a run it is told and training goes on; at the end the run fails with older checkpoints intact."""
    store, failing = checkpoint.write_durable, {12} if last else {5}

    def full(file, content):
        if int(file.parent.name.split("-")[1].split(".")[0]) in failing:
            raise OSError(28, "No space left on device")
        return store(file, content)

    monkeypatch.setattr(checkpoint, "write_durable", full)
    if last:
        with pytest.raises(RunError, match=r"step 12 could not be saved .*No space left.*step-00000010 is intact"):
            pretrain(tiny)
    else:
        pretrain(tiny)
        assert "No space left on device" in capsys.readouterr().err
    assert next(path.name for path in list_checkpoints(tiny.out / "checkpoints")) == (
        "step-00000010" if last else "step-00000012"
    )
    assert not list((tiny.out / "checkpoints").glob(".*"))


def test_old_checkpoints_go_and_every_nth_stays(tiny):
    pretrain(replace(tiny, save_every=1, keep_last=2, keep_every=4))
    names = [path.name for path in list_checkpoints(tiny.out / "checkpoints")]
    assert names == ["step-00000012", "step-00000011", "step-00000008", "step-00000004"]


def test_a_checkpoint_of_another_network_is_refused_by_name(tiny):
    pretrain(tiny)
    with pytest.raises(UserError, match="another network.*blocks"):
        pretrain(replace(tiny, resume="yes", steps=14, method=replace(tiny.method, depth=2, target_layers=(0, 1))))


def test_weights_of_another_run_can_start_one(tiny, capsys):
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
    one, other = (outcome(out)[0]["model"] for out in (tiny.out, tiny.out.with_name("second")))
    torch.testing.assert_close(
        one["context_encoder.norm.weight"], other["context_encoder.norm.weight"], atol=1e-6, rtol=0
    )
    assert "started from" in capsys.readouterr().out


def test_a_gradient_that_is_never_finite_stops_the_run_with_advice(tiny, monkeypatch):
    from openjepa.training import step

    monkeypatch.setattr(step, "clip_gradients", lambda method, limit: torch.tensor(float("nan")))
    with pytest.raises(RunError, match="has not been finite for .* steps: try --optim.clip 1"):
        pretrain(tiny)


def test_stop_on_collapse_ends_the_run(tiny, monkeypatch):
    from openjepa.training import collapse as health

    monkeypatch.setattr(health, "THRESHOLDS", (Threshold("rankme", "more", 1e9, "a test"),))
    with pytest.raises(RunError, match="stopped at step 6 by --stop-on-collapse: the representation is collapsing"):
        pretrain(replace(tiny, stop_on_collapse=True))


def test_too_many_bad_files_stop_the_run_and_few_are_listed(tiny, photos, tmp_path):
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
    with pytest.raises(RunError, match="cannot be decoded, the last .*jpg"):
        pretrain(replace(mixed, out=tiny.out.with_name("worse")))


def test_the_config_survives_its_json(tiny):
    assert from_json(json.loads(json.dumps(to_json(tiny)))) == tiny


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": 3}, "no setting 'epoch'"),
        ({"steps": "many"}, "steps cannot be 'many'"),
        ({"precision": "fp8"}, "precision cannot be 'fp8'"),
        ({"data": {"type": "hologram"}}, "'hologram' is none of image, series"),
    ],
)
def test_a_wrong_key_or_value_in_a_config_is_an_error(tiny, change, message):
    with pytest.raises(UserError, match=message):
        from_json({**to_json(tiny), **change})


def test_what_a_masked_autoencoder_learnt_is_where_both_encoders_start(tiny):
    first = replace(tiny, method=replace(METHODS["mae"], dim=96), out=tiny.out.with_name("first"))
    pretrain(first)
    learnt = load_run(first.out).encoder.state_dict()
    net = replace(METHODS["released"], dim=96).build(tiny.data)
    unfit = initialize_from(net, first.out)
    for which in ("target", "context"):
        assert all(torch.equal(value, learnt[name]) for name, value in net.encoder(which).state_dict().items())
    assert unfit == [  # pixels there, features here
        "predictor.proj.bias is 48 there and 96 here",
        "predictor.proj.weight is 48×24 there and 96×24 here",
    ]
    deeper = replace(METHODS["released"], dim=96, depth=3).build(tiny.data)
    assert "target_encoder.blocks.2.norm1.bias is only here, and begins as the seed makes it" in initialize_from(
        deeper, first.out
    )


def test_weights_of_which_none_fit_or_that_are_damaged_are_refused(tiny):
    first = replace(tiny, steps=1, out=tiny.out.with_name("first"))
    pretrain(first)
    with pytest.raises(UserError, match="nothing of the encoder in .* fits this one"):
        initialize_from(torch.nn.Linear(2, 2), first.out)
    (list_checkpoints(first.out / "checkpoints")[0] / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="is damaged .*resume the run"):
        initialize_from(tiny.method.build(tiny.data), first.out)


def test_a_run_killed_before_its_first_checkpoint_starts_from_the_other_run_again(tiny, monkeypatch):
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


def test_a_run_without_its_config_is_not_started_afresh_over_its_checkpoints(tiny):
    pretrain(tiny)
    (tiny.out / "config.json").unlink()
    for resume in ("no", "yes", "if-any"):
        with pytest.raises(UserError, match="has checkpoints and no config.json: put it back"):
            pretrain(replace(tiny, resume=resume))


def test_a_run_whose_checkpoints_have_gone_is_not_started_afresh(tiny):
    """Unless none can have been there yet, whatever is asked for now."""
    pretrain(tiny)
    shutil.rmtree(tiny.out / "checkpoints")
    with pytest.raises(UserError, match="has a log up to step 12 and no checkpoint"):
        pretrain(replace(tiny, resume="if-any"))
    early = replace(tiny, out=tiny.out.with_name("early"), save_every=100)
    pretrain(early)
    shutil.rmtree(early.out / "checkpoints")
    pretrain(replace(early, resume="if-any", save_every=1))


def test_a_checkpoint_that_cannot_be_read_is_not_taken_for_a_damaged_one(tiny, monkeypatch):
    pretrain(tiny)
    before = sorted(path.name for path in (tiny.out / "checkpoints").iterdir())

    def failing(file):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(checkpoint, "sha256_of_file", failing)
    with pytest.raises(
        UserError, match="cannot be read .Input/output error.: mend its permissions or its disk; nothing was changed"
    ):
        pretrain(replace(tiny, resume="yes"))
    assert before == sorted(path.name for path in (tiny.out / "checkpoints").iterdir())


def test_a_run_that_has_more_steps_than_are_asked_for_says_so(tiny, capsys):
    pretrain(tiny)
    pretrain(replace(tiny, resume="yes", steps=5))
    assert "nothing is left to do: 12 steps are taken, and 5 were asked for" in capsys.readouterr().out


def test_a_run_without_its_data_json_says_what_it_does_not_know(tiny, capsys):
    pretrain(tiny)
    (tiny.out / "data.json").unlink()
    pretrain(replace(tiny, resume="yes"))
    assert "has no data.json" in capsys.readouterr().err
