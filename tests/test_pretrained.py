"""A loaded encoder: features of any type of image, predictions and targets."""

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
from openjepa.interop.adapters import load_any
from openjepa.masking.multiblock import MultiBlock
from tests.conftest import CPU, replace


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    from tests.conftest import JEPA, TINY, Image, Optim, Pretrain

    assert isinstance(TINY, JEPA)
    return pretrain(
        Pretrain(
            Image(root=(str(photos),), size=(32, 32), patch=4), TINY, MultiBlock(), Optim(warmup=0.1), steps=3,
            batch_size=16, device="cpu", precision="fp32", threads=1, workers=0,
            out=tmp_path_factory.mktemp("trained") / "run",
        )
    )  # fmt: skip


def test_every_type_of_image_gives_the_same_features(run, photos):
    trained, path = openjepa.load(run), min(photos.rglob("*.png"))
    picture = Pillow.open(path)
    array = np.asarray(picture)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    expected = trained.features(path)
    assert expected.shape == (1, 48)
    for other in (str(path), picture, array, tensor, [picture], tensor[None], array[None]):
        assert torch.equal(trained.features(other), expected)


def test_features_equal_those_that_probes_train_on(run, photos):
    trained, encoder = openjepa.load(run), load_any(str(run))
    data = replace(encoder.data, root=(str(photos),))
    listing = data.listing()
    rows = compute_features(encoder, data.dataset(listing), CPU, ("last", "last4"))
    paths = list(listing.paths)
    torch.testing.assert_close(trained.features(paths, batch=7), rows.kinds["last"])
    torch.testing.assert_close(trained.features(paths, "last4"), rows.kinds["last4"])
    torch.testing.assert_close(trained.features(paths, "patches").mean(1), rows.kinds["last"])


def test_images_in_memory_are_cropped_as_files(run, tmp_path):
    """A PIL image in memory equals the same image in a lossless file."""
    noise = np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8)
    Pillow.fromarray(noise).save(tmp_path / "a.png")
    trained = openjepa.load(run)
    view = trained.transform(tmp_path / "a.png")
    assert view.shape == (3, 32, 32) and torch.equal(view, trained.transform(Pillow.fromarray(noise)))
    own = trained.transform(noise).int() - view.int()
    assert (
        own.abs().float().mean() < 2
    )  # arrays are resized by our matmuls, PIL images by Pillow, which rounds in between
    assert trained.transform(noise, (16, 24)).shape == (3, 16, 24)


def test_another_size_than_trained_gives_another_grid(run, photos):
    trained = openjepa.load(run)
    assert trained.features(min(photos.rglob("*.png")), "patches", size=(24, 48)).shape == (1, 6 * 12, 48)


def test_predict_and_targets_give_the_training_loss(run, photos):
    """The loss of a step from `predict` and `targets`, without normalization over the batch."""
    trained = openjepa.load(run, "context")
    config = replace(trained.config.method, target_transforms=(), target_layers=(-1,))
    net = config.build(trained.data)
    net.context_encoder.load_state_dict(trained.encoder.state_dict())
    net.target_encoder.load_state_dict(trained.encoder.state_dict())
    net.predictor.load_state_dict(trained.predictor.state_dict())
    paths = sorted(photos.rglob("*.png"))[:2]
    view = torch.stack([trained.transform(path) for path in paths])
    batch = Batch((view,), torch.arange(2))
    (masks,) = trained.config.masks(trained.data.layout, None, None, CounterRNG.of(0, 0, np.arange(2)), 0.0)
    assert masks.context_valid is None
    batch = batch._replace(masks=(Masks(masks.context, masks.target),))
    expected = net(batch, net.targets(batch)).loss
    targets = trained.targets(paths)
    losses = [
        F.smooth_l1_loss(trained.predict(path, masks.context[row], masks.target[row]), targets[row][masks.target[row]])
        for row, path in enumerate(paths)
    ]
    torch.testing.assert_close(torch.stack(losses).mean(), expected)


def test_one_block_of_targets_equals_one_of_several(run, photos):
    trained, path = openjepa.load(run), min(photos.rglob("*.png"))
    one, two = trained.predict(path, [0, 1, 2], [9, 10]), trained.predict(path, [0, 1, 2], [[9, 10], [20, 21]])
    assert one.shape == (1, 2, 48) and torch.allclose(one[0], two[0], atol=1e-6)


@pytest.mark.parametrize(
    ("picture", "sentence"),
    [
        ("gone.png", "gone.png is not a file: give the path of an image"),
        (np.zeros((8, 8, 3)), "pixels must be uint8, got float64"),
        (
            torch.zeros(8, 8, 3, dtype=torch.uint8),
            r"an image of shape \(8, 8, 3\) does not have 3 channels: the shape must be \(C, H, W\)",
        ),
        ([], "no image was given"),
    ],
)
def test_anything_else_than_an_image_is_an_error(run, picture, sentence):
    with pytest.raises(UserError, match=sentence):
        openjepa.load(run).features(picture)


def test_a_file_that_is_not_an_image_is_named(run, tmp_path):
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(UserError, match=r"a\.png: the file is text, not an image"):
        openjepa.load(run).features(tmp_path / "a.png")


def test_patch_out_of_range_and_missing_predictor_are_errors(run, photos):
    path = min(photos.rglob("*.png"))
    with pytest.raises(UserError, match="patches are numbered from 0 to 63"):
        openjepa.load(run).predict(path, [0], [64])
    with pytest.raises(UserError, match="these weights have no predictor of features: load the run's folder"):
        openjepa.load(run / "export").predict(path, [0], [1])


def test_predict_returns_features_without_predicted_pixels(photos):
    from openjepa.interop.pretrained import from_network
    from openjepa.training.config import Pretrain
    from tests.conftest import METHODS, MODALITIES

    data = replace(MODALITIES["image"])
    net = METHODS["pixels"].build(data).eval()
    settings = Pretrain(data=data, method=METHODS["pixels"])
    trained = from_network(net.context_encoder, settings, "tiny", predictor=net.predictor)
    assert trained.predict(min(photos.rglob("*.png")), [0, 1], [5, 6, 7]).shape == (1, 3, 48)


def test_patches_are_given_as_numbers_or_as_a_boolean_mask(run, photos):
    trained, path = openjepa.load(run), min(photos.rglob("*.png"))
    hidden = torch.arange(64) > 60
    assert torch.equal(trained.predict(path, ~hidden, hidden), trained.predict(path, range(61), [61, 62, 63]))
    with pytest.raises(UserError, match="by their numbers, or as one boolean mask"):
        trained.predict(path, [0], torch.zeros(2, 64, dtype=torch.bool))


def test_gray_and_transparent_arrays_equal_pil_images(run):
    trained = openjepa.load(run)
    for shape in ((40, 40), (40, 40, 1), (40, 40, 4)):
        array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        picture = Pillow.fromarray(array[..., 0] if shape[-1] == 1 else array)
        assert torch.equal(trained.features(array), trained.features(picture))


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda trained, path: trained.features(np.zeros((0, 0, 3), np.uint8)), "has no pixels"),
        (
            lambda trained, path: trained.features(path, size=(30, 32)),
            r"must be a height and width in multiples of 4, got \(30, 32\)",
        ),
    ],
)
def test_empty_images_and_impossible_sizes_are_errors(run, photos, ask, sentence):
    trained = openjepa.load(run)
    with pytest.raises(UserError, match=sentence):
        ask(trained, min(photos.rglob("*.png")))
