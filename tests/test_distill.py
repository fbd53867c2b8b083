"""Pairs of two modalities, and the distillation of a frozen teacher of one into an encoder of the other."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from openjepa import load
from openjepa.cli.main import main
from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Batch
from openjepa.data.wav_files import wav_content
from openjepa.masking.random import Random
from openjepa.methods.base import FrozenTeacher
from openjepa.methods.distill import Discriminator, Distill, ReverseGradient
from openjepa.methods.jepa import JEPA
from openjepa.modalities.audio import Audio
from openjepa.modalities.image import Image
from openjepa.modalities.pair import Pair
from openjepa.training.config import Pretrain, from_json, load_config, to_json
from openjepa.training.run import pretrain
from openjepa.training.run_folder import load_newest_method
from tests.conftest import SMALL, SMALL_PREDICTOR

SOUND = Audio(rate=4000, frames=32, bands=16, patch=8, mean=(-40.0,), std=(20.0,))
PICTURE = Image(size=(16, 16), patch=8, mean=(0.5,) * 3, std=(0.25,) * 3)
PAIR = Pair(first=PICTURE, second=SOUND)
QUICK = {"masks": Random(), "batch_size": 8, "threads": 1, "workers": 0, "report": False, "device": "cpu",
         "precision": "fp32"}  # fmt: skip


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    """Write 24 pictures and sounds of two classes under the same names, and one of each without a partner."""
    folder, rng = tmp_path_factory.mktemp("pairs"), np.random.default_rng(0)
    for part in ("pictures/a", "pictures/b", "sounds/a", "sounds/b"):
        (folder / part).mkdir(parents=True)
    for number in range(24):
        name = f"{'ab'[number % 2]}/{number}"
        pixels = np.full((16, 16, 3), 60 + 120 * (number % 2), np.uint8) + rng.integers(0, 40, (16, 16, 3), np.uint8)
        Pillow.fromarray(pixels).save(folder / "pictures" / f"{name}.png")
        tone = 0.4 * np.sin(2 * np.pi * (200 + 600 * (number % 2)) * np.arange(2000) / 4000)
        (folder / "sounds" / f"{name}.wav").write_bytes(wav_content(tone, 4000))
    Pillow.new("RGB", (16, 16)).save(folder / "pictures" / "a" / "alone.png")
    (folder / "sounds" / "b" / "other.wav").write_bytes(wav_content(np.zeros(2000), 4000))
    return folder


def of(pairs: Path, *root: str) -> Pair:
    return dataclasses.replace(PAIR, root=tuple(str(pairs / each) for each in root))


def write_table(folder: Path, pairs: Path, order: list[int]) -> Path:
    """Write a table in which picture n belongs to the sound order[n]."""
    name = lambda number: f"{'ab'[number % 2]}/{number}"  # noqa: E731
    lines = [f"{pairs}/pictures/{name(n)}.png,{pairs}/sounds/{name(order[n])}.wav" for n in range(24)]
    file = folder / "pairs.csv"
    file.write_text("\n".join(["first,second", *lines]) + "\n", encoding="utf-8")
    return file


def test_partners_have_the_same_name_and_files_without_one_are_left_out(pairs):
    data = of(pairs, "pictures", "sounds")
    listing = data.listing()
    samples = data.dataset(listing)
    assert len(listing.paths) == len(samples) == 24 and samples.classes == ("a", "b")
    loud = samples.read(torch.arange(24), CounterRNG.of(0, 0, np.arange(24)))
    picture, sound = loud.views
    assert picture.shape == (24, 3, 16, 16) and sound.shape == (24, 1, SOUND.samples)
    row = SOUND.decibels(sound)[:, 0].mean(-1).argmax(-1).float()
    high = (row < row.mean()).long()
    bright = (picture.float().mean((1, 2, 3)) > 150).long()
    assert torch.equal(high, bright) and 0 < bright.sum() < 24
    assert len(samples.read(torch.arange(2), None).views) == 1  # probes see the first modality alone


def test_a_table_pairs_files_and_another_order_is_another_data_set(pairs, tmp_path):
    same, shifted = list(range(24)), [(number + 2) % 24 for number in range(24)]
    prints = []
    for name, order in (("one", same), ("two", shifted)):
        (tmp_path / name).mkdir()
        data = dataclasses.replace(PAIR, root=(str(write_table(tmp_path / name, pairs, order)),))
        prints.append(data.listing().fingerprint)
        assert data.dataset(data.listing()).second.source(3).endswith(f"{order[3]}.wav")
    assert prints[0] != prints[1]
    assert (
        of(pairs, "pictures", "sounds").listing().fingerprint == of(pairs, "pictures", "sounds").listing().fingerprint
    )


def test_pairs_keep_their_fingerprint_when_they_move_and_lose_it_when_a_partner_changes(pairs, tmp_path):
    copy = Path(shutil.copytree(pairs, tmp_path / "copy"))
    before = of(pairs, "pictures", "sounds").listing().fingerprint
    assert of(copy, "pictures", "sounds").listing().fingerprint == before
    content = bytearray((copy / "sounds" / "a" / "2.wav").read_bytes())
    content[-1] ^= 1
    (copy / "sounds" / "a" / "2.wav").write_bytes(bytes(content))
    changed = of(copy, "pictures", "sounds").listing().fingerprint
    (copy / "pictures" / "b" / "1.png").unlink()
    fewer = of(copy, "pictures", "sounds").listing().fingerprint
    assert len({before, changed, fewer}) == 3


def test_pairs_that_cannot_be_made_are_refused_in_a_sentence(pairs, tmp_path):
    with pytest.raises(UserError, match="two folders"):
        PAIR.listing()
    with pytest.raises(UserError, match="one or two folders"):
        Pair(root=("a", "b", "c"))
    (tmp_path / "x").mkdir()
    Pillow.new("RGB", (16, 16)).save(tmp_path / "x" / "nobody.png")
    with pytest.raises(UserError, match="call partners alike"):
        dataclasses.replace(PAIR, root=(str(tmp_path / "x"), str(pairs / "sounds"))).listing()
    Pillow.new("RGB", (16, 16)).save(tmp_path / "x" / "nobody.bmp")
    with pytest.raises(UserError, match="have the same name"):
        dataclasses.replace(PAIR, root=(str(tmp_path / "x"), str(pairs / "sounds"))).listing()
    for text, message in (
        ("a,b\n1,2\n", "columns first and second"),
        ("first,second\nno.png,no.wav\n", "does not exist"),
    ):
        (tmp_path / "t.csv").write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=message):
            dataclasses.replace(PAIR, root=(str(tmp_path / "t.csv"),)).listing()


def test_settings_of_both_modalities_survive_json():
    method = Distill(SMALL, predictor=SMALL_PREDICTOR, teacher="stage-1", queries=(2, 4))
    settings = Pretrain(
        dataclasses.replace(PAIR, first=SOUND, second=PICTURE), dataclasses.replace(method, queries=(1,))
    )
    plain = to_json(settings)
    assert plain["data"]["first"]["type"] == "audio" and plain["data"]["second"]["type"] == "image"
    assert from_json(plain) == settings


@pytest.mark.parametrize("settings", [{"queries": (3, 3)}, {"teacher_dim": -1}, {"adversarial": -0.1}])
def test_settings_that_do_not_fit_are_refused(settings):
    with pytest.raises(UserError):
        Pretrain(PAIR, Distill(SMALL, predictor=SMALL_PREDICTOR, **settings))
    with pytest.raises(UserError, match="--modality pair"):
        Pretrain(PICTURE, Distill(SMALL, predictor=SMALL_PREDICTOR))


@pytest.mark.parametrize("queries", [(1,), (2, 2)])
def test_what_the_first_modality_determines_is_learned_and_the_teacher_stays_as_it_is(queries):
    """The teacher sees the same pictures: the loss falls far below that of the mean embedding."""
    data = Pair(first=PICTURE, second=PICTURE)
    method = Distill(SMALL, predictor=SMALL_PREDICTOR, queries=queries, adversarial=0.01)
    net = method.build(data, 0)
    teacher = JEPA(SMALL, SMALL_PREDICTOR).build(PICTURE, 1).encoder()
    net.teachers["teacher"] = FrozenTeacher(teacher, PICTURE, "")
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    views = PICTURE.synthetic(16, 0).read(torch.arange(16), None).views
    batch = Batch((views[0], views[0]), torch.arange(16))
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    targets = net.targets(batch)
    assert not targets.x.requires_grad and targets.x.shape[1] == torch.Size(queries).numel()
    torch.testing.assert_close(targets.x.mean((0, 1)), torch.zeros(SMALL.dim), atol=1e-4, rtol=0)
    for _ in range(200):
        optimizer.zero_grad()
        output = net(batch, targets)
        output.loss.backward()
        optimizer.step()
    assert output.metrics["relative_loss"] < 0.6
    assert all(value.grad is None for value in teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_the_generator_learns_the_opposite_of_the_discriminator():
    network = Discriminator(4)
    real, one, other = torch.randn(8, 1, 4), *(torch.randn(8, 1, 4).requires_grad_() for _ in range(2))
    network(real, one).backward()
    plain = torch.nn.functional.softplus(network.layers(one.detach().requires_grad_()))
    fake = one.detach().clone().requires_grad_()
    (torch.nn.functional.softplus(network.layers(fake)).mean() / 2).backward()
    torch.testing.assert_close(one.grad, -fake.grad)
    assert torch.equal(ReverseGradient.apply(other), other) and plain.shape == (8, 1, 1)


def test_runs_of_both_stages_are_measured_and_the_teacher_must_not_change(pairs, tmp_path, capsys):
    teacher = pretrain(Pretrain(dataclasses.replace(SOUND, root=(str(pairs / "sounds"),)), JEPA(SMALL, SMALL_PREDICTOR),
                                steps=3, out=tmp_path / "teacher", **QUICK))  # fmt: skip
    weights = (teacher / "export" / "encoder.safetensors").read_bytes()
    method = Distill(SMALL, predictor=SMALL_PREDICTOR, teacher=str(teacher), queries=(2, 4))
    settings = Pretrain(of(pairs, "pictures", "sounds"), method, steps=3, out=tmp_path / "student", **QUICK)
    run = pretrain(settings)
    assert (teacher / "export" / "encoder.safetensors").read_bytes() == weights
    assert load_config(run).data.second == SOUND
    files = sorted(map(str, (pairs / "pictures" / "a").glob("*.png")))[:2]
    generated, student = (load(run, which) for which in ("", "student"))
    assert generated.features(files).shape == student.features(files).shape == (2, 48)
    assert not torch.allclose(generated.features(files), student.features(files))
    method_now, _ = load_newest_method(run, load_config(run))
    tokens = PICTURE.tokens(generated.data.read(files[0])[None])
    with torch.no_grad():
        torch.testing.assert_close(method_now.encoder()(tokens)[0].mean(), generated.features(files[:1]))
    for which in ("generated", "student"):
        assert main(["probe", str(run), "--encoder", which, "--data.root", str(pairs / "pictures"), "--probes", "knn",
                     "--no-baselines", "--device", "cpu", "--out", str(tmp_path / which)]) == 0  # fmt: skip
    assert main(["export", str(run), "--format", "torch", "--out", str(tmp_path / "program")]) == 0
    other = pretrain(dataclasses.replace(load_config(teacher), seed=1, out=tmp_path / "other"))
    changed = dataclasses.replace(method, teacher=str(other))
    with pytest.raises(UserError, match="has changed since the run started"):
        pretrain(dataclasses.replace(settings, method=changed, steps=4, resume="yes"))
