"""An encoder in hand: features of whatever is a picture, and what the predictor expects."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image as Pillow

import openjepa
from openjepa.cli.pretrain import pretrain
from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Batch, Masks
from openjepa.evaluation.features import compute_features
from openjepa.interop.adapters import load_adapter
from tests.conftest import CPU, replace


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    from tests.conftest import JEPA, TINY, Image, Masking, Optim, Pretrain

    assert isinstance(TINY, JEPA)
    return pretrain(
        Pretrain(
            Image(root=(str(photos),), size=(32, 32), patch=4), TINY, Masking(), Optim(warmup=0.1), steps=3, batch_size=16,
            device="cpu", precision="fp32", threads=1, workers=0, out=tmp_path_factory.mktemp("trained") / "run",
        )
    )  # fmt: skip


def test_every_kind_of_picture_gives_the_same_features(run, photos):
    trained, path = openjepa.load(run), min(photos.rglob("*.png"))
    picture = Pillow.open(path)
    array = np.asarray(picture)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    expected = trained.features(path)
    assert expected.shape == (1, 48)
    for other in (str(path), picture, array, tensor, [picture], tensor[None], array[None]):
        assert torch.equal(trained.features(other), expected)


def test_features_are_those_that_probes_are_trained_on(run, photos):
    trained, this = openjepa.load(run), load_adapter(str(run))
    data = replace(this.data, root=(str(photos),))
    listing = data.listing()
    rows = compute_features(this, data.dataset(listing), CPU, ("last", "last4"))
    paths = list(listing.paths)
    torch.testing.assert_close(trained.features(paths, batch=7), rows.kinds["last"])
    torch.testing.assert_close(trained.features(paths, "last4"), rows.kinds["last4"])
    torch.testing.assert_close(trained.features(paths, "patches").mean(1), rows.kinds["last"])


def test_large_and_oblong_pictures_are_cut_as_files_are(run, tmp_path):
    """A PIL image in memory, and the same in a file without loss."""
    noise = np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8)
    Pillow.fromarray(noise).save(tmp_path / "a.png")
    trained = openjepa.load(run)
    view = trained.transform(tmp_path / "a.png")
    assert view.shape == (3, 32, 32) and torch.equal(view, trained.transform(Pillow.fromarray(noise)))
    own = trained.transform(noise).int() - view.int()
    assert (
        own.abs().float().mean() < 2
    )  # an array is resized by our own products, a picture by Pillow, which rounds on its way
    assert trained.transform(noise, (16, 24)).shape == (3, 16, 24)


def test_another_size_than_trained_has_its_own_grid(run, photos):
    trained = openjepa.load(run)
    assert trained.features(min(photos.rglob("*.png")), "patches", size=(24, 48)).shape == (1, 6 * 12, 48)


def test_what_the_predictor_expects_is_what_training_compares(run, photos):
    """The loss of a step, from `predict` and `targets`; whatever normalises over the batch left out."""
    trained = openjepa.load(run, "context")
    config = replace(trained.config.method, standardize=False, target_layers=(-1,))
    net = config.build(trained.data)
    net.context_encoder.load_state_dict(trained.encoder.state_dict())
    net.target_encoder.load_state_dict(trained.encoder.state_dict())
    net.predictor.load_state_dict(trained.predictor.state_dict())
    paths = sorted(photos.rglob("*.png"))[:2]
    view = torch.stack([trained.transform(path) for path in paths])
    batch = Batch((view,), torch.arange(2))
    (masks,) = trained.config.masks.build(trained.data.grid)(None, None, CounterRNG.of(0, 0, np.arange(2)), 0.0)
    assert masks.context_valid is None
    expected = net(batch, (Masks(masks.context, masks.target),), net.targets(batch, (masks,))).loss
    targets = trained.targets(paths)
    losses = [
        F.smooth_l1_loss(trained.predict(path, masks.context[row], masks.target[row]), targets[row][masks.target[row]])
        for row, path in enumerate(paths)
    ]
    torch.testing.assert_close(torch.stack(losses).mean(), expected)


def test_one_block_of_targets_is_a_list(run, photos):
    trained, path = openjepa.load(run), min(photos.rglob("*.png"))
    one, two = trained.predict(path, [0, 1, 2], [9, 10]), trained.predict(path, [0, 1, 2], [[9, 10], [20, 21]])
    assert one.shape == (1, 2, 48) and torch.allclose(one[0], two[0], atol=1e-6)


@pytest.mark.parametrize(
    ("picture", "sentence"),
    [
        ("gone.png", "gone.png is no file: give the path of a picture"),
        (np.zeros((8, 8, 3)), "pixels are bytes from 0 to 255, not float64: give uint8"),
        (torch.zeros(8, 8, 3, dtype=torch.uint8), r"pixels of shape \(8, 8, 3\) are no picture of 3 channels: want \(C, H, W\)"),
        ([], "no picture was given"),
    ],
)  # fmt: skip
def test_what_is_no_picture_is_a_sentence(run, picture, sentence):
    with pytest.raises(UserError, match=sentence):
        openjepa.load(run).features(picture)


def test_a_file_that_is_no_picture_is_named(run, tmp_path):
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(UserError, match=r"a\.png: not a picture of a known format"):
        openjepa.load(run).features(tmp_path / "a.png")


def test_patches_that_are_not_there_and_predictors_that_were_not_kept(run, photos):
    path = min(photos.rglob("*.png"))
    with pytest.raises(UserError, match="patches are numbered from 0 to 63"):
        openjepa.load(run).predict(path, [0], [64])
    with pytest.raises(UserError, match="these weights have no predictor of features: load the run's folder"):
        openjepa.load(run / "export").predict(path, [0], [1])


def test_a_predictor_of_pixels_besides_gives_features_alone(photos):
    from openjepa.interop.pretrained import PretrainedEncoder
    from openjepa.training.config import Pretrain
    from tests.conftest import METHODS, MODALITIES

    data = replace(MODALITIES["image"])
    net = METHODS["pixels"].build(data).eval()
    trained = PretrainedEncoder(net.context_encoder, Pretrain(data=data, method=METHODS["pixels"]), 0, net.predictor)
    assert trained.predict(min(photos.rglob("*.png")), [0, 1], [5, 6, 7]).shape == (1, 3, 48)


def test_a_mask_of_patches_is_taken_as_such(run, photos):
    trained, path = openjepa.load(run), min(photos.rglob("*.png"))
    hidden = torch.arange(64) > 60
    assert torch.equal(trained.predict(path, ~hidden, hidden), trained.predict(path, range(61), [61, 62, 63]))
    with pytest.raises(UserError, match="by their numbers, or by one mask"):
        trained.predict(path, [0], torch.zeros(2, 64, dtype=torch.bool))


def test_grey_and_transparent_arrays_are_taken_as_pictures_are(run):
    trained = openjepa.load(run)
    for shape in ((40, 40), (40, 40, 1), (40, 40, 4)):
        array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        picture = Pillow.fromarray(array[..., 0] if shape[-1] == 1 else array)
        assert torch.equal(trained.features(array), trained.features(picture))


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda trained, path: trained.features(np.zeros((0, 0, 3), np.uint8)), "there are none"),
        (lambda trained, path: trained.features(path, size=(30, 32)), "is no height and width in multiples of 4 pixels"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_a_sentence(run, photos, ask, sentence):
    trained = openjepa.load(run)
    with pytest.raises(UserError, match=sentence):
        ask(trained, min(photos.rglob("*.png")))
