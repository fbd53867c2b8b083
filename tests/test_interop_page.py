"""docs/reference/interop.md: every block runs, in order, on small images, and gives the shapes that comments state."""

import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from openjepa.cli.main import main
from openjepa.cli.pretrain import pretrain
from openjepa.masking.multiblock import MultiBlock
from openjepa.methods.jepa import JEPA
from openjepa.modalities.image import Image
from openjepa.nn.predictor import PredictorConfig
from openjepa.recipes.image_small import SMALL_VIT, small_jepa
from tests.conftest import Optim, Pretrain
from tests.test_interop import official_checkpoint

PAGE = (Path(__file__).parents[1] / "docs" / "reference" / "interop.md").read_text()


@pytest.fixture
def workshop(photos, tmp_path, monkeypatch):
    """Create a folder with photos/, labeled/, a run and an official checkpoint."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labeled").symlink_to(photos)
    (tmp_path / "photos").mkdir()
    for number, file in enumerate(sorted(photos.rglob("*.png"))[:24]):
        name = {0: "cat", 1: "dog"}.get(number, f"{number:02d}")
        Pillow.open(file).save(tmp_path / "photos" / f"{name}.png")
    method = small_jepa(predictor_depth=1)
    data = Image(root=("photos",), size=(32, 32), patch=4)
    pretrain(
        Pretrain(
            data,
            method,
            MultiBlock(),
            Optim(),
            steps=1,
            batch_size=16,
            device="cpu",
            workers=0,
            out=Path("runs/photos"),
            report=False,
        )
    )
    published = JEPA(replace(SMALL_VIT, depth=2), PredictorConfig(dim=96, depth=1))
    content = official_checkpoint(published, Image(size=(32, 32), patch=4))
    torch.save(content, "jepa-ep300.pth.tar")


def blocks() -> list[tuple[str, str]]:
    return re.findall(r"```(bash|python)\n(.*?)```", PAGE, re.DOTALL)


def test_the_page_has_all_blocks():
    kinds = [kind for kind, _ in blocks()]
    assert kinds.count("bash") == 3 and kinds.count("python") >= 5


def test_the_first_block_of_python_runs(workshop):
    text = next(text for kind, text in blocks() if kind == "python")
    variables: dict = {}
    exec(compile(text, "docs/reference/interop.md", "exec"), variables)
    check_shapes(text, variables)
    assert variables["error"] >= 0


@pytest.mark.slow
def test_every_block_of_the_page_runs(workshop):
    pytest.importorskip("transformers", reason="the extra openjepa[hf] is not installed")
    pytest.importorskip("onnxruntime", reason="the extra openjepa[onnx] is not installed")
    pytest.importorskip("sklearn", reason="the extra openjepa[search] is not installed")
    variables: dict = {}
    for kind, text in blocks():
        if kind == "bash":
            for line in text.strip().splitlines():
                assert main(shlex.split(line.split("#")[0])[1:]) == 0, line
        else:
            exec(compile(text, "docs/reference/interop.md", "exec"), variables)
            check_shapes(text, variables)
    assert variables["error"] >= 0 and np.isfinite(variables["matrix"]).all()


def test_a_transformers_pipeline_computes_the_same_features(workshop):
    transformers = pytest.importorskip("transformers", reason="the extra openjepa[hf] is not installed")
    import openjepa

    assert main(["export", "runs/photos", "--out", "photos-hf"]) == 0
    theirs = transformers.pipeline("image-feature-extraction", model="photos-hf")("photos/cat.png", return_tensors=True)
    assert (theirs - openjepa.load("runs/photos").features("photos/cat.png", "patches")).abs().max() < 1e-5


def check_shapes(text: str, variables: dict) -> None:
    """Check the shape in the comment of every line like `rows = …  # (2, 192): …`."""
    for name, shape in re.findall(r"^(\w+) = .*#.*?\((\d[\d, ]*)\)", text, re.MULTILINE):
        assert tuple(variables[name].shape) == tuple(int(each) for each in shape.split(",")), name
