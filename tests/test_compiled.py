"""Compiled blocks are the same blocks, and compiled before the run.

Each test runs this file in a process of its own: torch cannot compile what checks the shapes in its annotations.
"""

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MASKS = {
    "blocks": {},
    "many blocks": {"targets": 2, "target_scale": (0.1, 0.25), "target_aspect": (0.5, 2.0)},
    "blocks twice": {"masks_per_sample": 2},
    "random": {"masks_per_sample": 2},
    "released": {"min_keep": 2},
}
STRATEGIES = {"random": "random", "released": "official"}
LONG = ("many blocks", "blocks twice", "random", "released")  # more shapes to compile; left to make test-all


def compare(masks: str, accumulate: int, backend: str, photos: str) -> None:
    """Six steps compiled and not: equal losses and parameter names, nothing compiled after the start, not by probes."""
    import torch
    from torch._dynamo.utils import counters

    from openjepa.core.registry import find
    from openjepa.evaluation.online import OnlineEvaluator
    from openjepa.methods.jepa import JEPA
    from openjepa.modalities.image import Image
    from openjepa.nn import cpu_kernels as products
    from openjepa.nn.predictor import PredictorConfig
    from openjepa.nn.vit import ViTConfig
    from openjepa.training.config import OnlineProbe, Pretrain
    from openjepa.training.device import Device
    from openjepa.training.optim import build_optimizer
    from openjepa.training.perf.compile import MAX_STATIC_SHAPES, compile_blocks
    from openjepa.training.setup import build_steps
    from openjepa.training.step import train_step

    torch.set_num_threads(1)
    products.uses_torch_kernels = lambda x: True  # torch's own, which the compiler sees, on both sides
    cpu, data = Device(torch.device("cpu"), False), Image(size=(32, 32), patch=4, mean=(0.5,) * 3, std=(0.25,) * 3)
    small = JEPA(ViTConfig(dim=48, depth=2, num_heads=2), PredictorConfig(dim=24, depth=1))
    settings = Pretrain(
        data,
        small,
        find("masks", STRATEGIES.get(masks, "multiblock"))(**MASKS[masks]),
        steps=6,
        batch_size=8,
        accumulate=accumulate,
    )
    settings = dataclasses.replace(settings, compile=True, online_probe=OnlineProbe(root=(photos,), samples=40))
    probes = OnlineEvaluator(settings, cpu)
    shapes = settings.masks.shapes(data.layout)

    def losses(compiled: bool) -> list[float]:
        method = small.build(data, 0)
        steps, optimizer = build_steps(settings, data.synthetic(64, 0), 1), build_optimizer(method, settings.optim)
        already = counters["stats"]["unique_graphs"]
        names, weights = list(method.state_dict()), [each.clone() for each in method.parameters()]
        if compiled:
            compile_blocks(settings, method, steps[0], cpu, backend)
            assert list(method.state_dict()) == names
            assert all(map(torch.equal, weights, method.parameters()))
            assert all(each.grad is None for each in method.parameters())
        made, found = counters["stats"]["unique_graphs"], []
        for step in (steps[number] for number in range(6)):
            hyper = settings.optim.at(0, 6)
            taken = train_step(method, optimizer, step.batch, hyper, cpu, accumulate)
            found.append(float(taken.output.loss))
        found += probes.scores(method).values()
        if len(shapes) <= MAX_STATIC_SHAPES:
            assert counters["stats"]["unique_graphs"] == made
            lengths = {(shown,) for shown, _, _ in shapes} | {
                (shown + asked, blocks) for shown, blocks, asked in shapes
            }
            ways = 2 if masks == "blocks twice" else 1  # in one pass, and one by one
            assert made == already + compiled * (1 + ways * len(lengths))
        return found

    plain, compiled = losses(compiled=False), losses(compiled=True)
    if masks == "many blocks":  # a second run in this process has room for its own code
        settings = dataclasses.replace(settings, batch_size=4)
        assert losses(compiled=False) == losses(compiled=True)
    if backend == "eager":
        assert plain == compiled
    torch.testing.assert_close(torch.tensor(plain), torch.tensor(compiled), rtol=1e-4, atol=1e-5)


def ran(*words: str) -> None:
    done = subprocess.run(
        [sys.executable, __file__, *words], capture_output=True, text=True, cwd=Path(__file__).parents[1]
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    "masks", [pytest.param(each, marks=[pytest.mark.slow] if each in LONG else []) for each in MASKS]
)
def test_compiled_blocks_take_the_same_steps_and_none_is_compiled_later(masks, photos):
    ran(masks, "2" if masks == "random" else "1", "eager", str(photos))


def test_without_a_compiler_a_run_says_so_in_a_sentence(tiny):
    (tiny.out.parent / "cache").mkdir(parents=True)
    environment = {**os.environ, "CXX": "/nonexistent", "TORCHINDUCTOR_CACHE_DIR": str(tiny.out.parent / "cache")}
    words = [
        "pretrain",
        "--data.root",
        *tiny.data.root,
        "--out",
        str(tiny.out),
        "--steps",
        "2",
        "--compile",
        "--device",
        "cpu",
    ]
    done = subprocess.run([sys.executable, "-m", "openjepa", *words], capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert "torch cannot compile here" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="there is no g++, with which torch compiles")
def test_what_the_compiler_makes_computes_the_same(photos):
    ran("random", "1", "inductor", str(photos))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    compare(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
