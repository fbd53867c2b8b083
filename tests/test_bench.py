"""What `jepa bench` says hangs together."""

import json
from dataclasses import replace

import pytest
import torch

from openjepa.cli.bench import Bench, bench
from openjepa.cli.main import main
from openjepa.core.types import StepFlops
from openjepa.training.config import Pretrain
from openjepa.training.device import choose_device
from openjepa.training.optim import Optim, build_optimizer
from openjepa.training.perf.bench import data_wait_share, time_step_parts
from openjepa.training.setup import build_steps
from openjepa.training.step import train_step
from tests.conftest import METHODS, MODALITIES


@pytest.mark.parametrize("method", ["averaged", "mae", "vicreg"])
@pytest.mark.parametrize("modality", ["image", "series"])
def test_the_figures_hang_together(tmp_path, capsys, modality, method):
    data = MODALITIES[modality]
    settings = Bench(
        data, METHODS[method], batch_size=8, count=3, threads=1, device="cpu", json=tmp_path / "new" / "bench.json"
    )
    found = bench(settings)
    assert json.loads((tmp_path / "new" / "bench.json").read_text()) == found
    assert found["samples_per_second"] == pytest.approx(8 / found["step"])
    assert found["flops"]["total"] == sum(found["flops"][part] for part in StepFlops._fields)
    assert found["flops_per_second"] == pytest.approx(found["flops"]["total"] * found["samples_per_second"])
    assert found["share_of_ceiling"] == pytest.approx(found["flops_per_second"] / found["machine"]["matrices"])
    assert set(found["seconds"]) == {"load", "targets", "forward", "backward", "update"}
    assert ("images/s" if modality == "image" else "samples/s") in capsys.readouterr().out


def test_a_folder_of_images_is_what_is_timed_if_there_is_one(photos, tmp_path):
    data = replace(MODALITIES["image"], root=(str(photos),), mean=(), std=())
    found = bench(Bench(data, METHODS["averaged"], batch_size=8, count=3, threads=1, workers=0, device="cpu"))
    assert found["seconds"]["load"] > 0 and found["data_wait"] > 0


def test_what_is_timed_is_a_training_step(monkeypatch):
    """In its parts, clipped, over micro-batches: the weights end where `training.advance` takes them."""
    run = Pretrain(
        MODALITIES["image"], METHODS["averaged"], optim=Optim(clip=0.01), batch_size=8, accumulate=2, steps=3
    )
    where = choose_device("cpu", "fp32")
    ends = []
    for parts in (True, False):
        method = run.method.build(run.data, run.seed)
        optimizer, steps = (
            build_optimizer(method, run.optim),
            build_steps(run, run.data.synthetic(16, 0), method.num_views),
        )
        for number in range(run.steps):
            step, hyper = steps[number], run.optim.at(number, run.steps)
            if parts:
                time_step_parts(run, method, optimizer, step, hyper, where)
            else:
                train_step(method, optimizer, step.batch, hyper, where, 2, 0.01)
        ends.append(method.state_dict())
    for name, value in ends[0].items():
        torch.testing.assert_close(value, ends[1][name], rtol=0, atol=0, msg=name)


@pytest.mark.parametrize(
    ("loading", "computing", "workers", "expected"),
    [(1.0, 1.0, 0, 0.5), (1.0, 3.0, 0, 0.25), (1.0, 3.0, 2, 0.0), (4.0, 3.0, 2, 0.25)],
)
def test_a_run_waits_for_what_loading_takes_longer_than_computing(loading, computing, workers, expected):
    """And for all of it where no worker loads beside."""
    assert data_wait_share(loading, computing, workers) == pytest.approx(expected)


def test_too_few_steps_to_time_are_refused(capsys):
    assert main(["bench", "cifar10", "--count", "1"]) == 1
    assert "try --count 12" in capsys.readouterr().err
