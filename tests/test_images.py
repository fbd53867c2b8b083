"""Every format decodes upright to RGB; crops follow their distribution; bad files differ from unreadable ones."""

import json

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.data import image_io, image_opening
from openjepa.data.crops import Crops, center_crops, random_crops, resample
from openjepa.data.image_files import ImageArray, ImageFiles
from openjepa.data.image_io import (
    IMAGE_SUFFIXES,
    MAX_PIXELS,
    Undecodable,
    decode_image,
    image_size,
    read_image_file,
)
from openjepa.data.image_values import LEGACY, crop_file
from openjepa.data.listing import MappedPathList, list_files
from openjepa.data.normalization import measure_mean_std
from openjepa.modalities.image import Image
from tests.conftest import replace

PLAIN = Image(size=(32, 32), patch=4, mean=(0.5,) * 3, std=(0.25,) * 3)


def gradient(height: int = 48, width: int = 64) -> Pillow.Image:
    """An image whose corners differ, so that a rotation or a swapped channel shows."""
    y, x = np.mgrid[0:height, 0:width]
    array = np.stack([x * 255 // (width - 1), y * 255 // (height - 1), np.full_like(x, 40)], -1).astype(np.uint8)
    return Pillow.fromarray(array)


def decode_rgb(path) -> np.ndarray:
    return decode_image(str(path), 3).astype(int)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp", "jpg", "gif"])
def test_every_format_gives_the_same_image(tmp_path, suffix):
    file = tmp_path / f"a.{suffix}"
    gradient().save(file, **({"lossless": True} if suffix == "webp" else {"quality": 95} if suffix == "jpg" else {}))
    difference = np.abs(decode_rgb(file) - np.asarray(gradient()).transpose(2, 0, 1)).mean()
    assert difference < (12 if suffix == "gif" else 3 if suffix == "jpg" else 1e-9)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1"])
def test_every_mode_is_converted_to_rgb(tmp_path, mode):
    file = tmp_path / ("a.tiff" if mode == "CMYK" else "a.png")
    image = gradient().convert(mode)
    image.save(file)
    expected = np.asarray(image.convert("RGB")).transpose(2, 0, 1).astype(int)
    assert decode_rgb(file).shape == (3, 48, 64) and np.abs(decode_rgb(file) - expected).mean() < 2


def test_older_runs_keep_the_upper_8_of_16_bits(tmp_path):
    gray = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)
    Pillow.fromarray(gray).save(tmp_path / "a.png")
    planes = decode_image(str(tmp_path / "a.png"), 3, LEGACY)
    assert planes.dtype == np.uint8 and np.abs(planes[0] - gray / 257).max() <= 1


def test_transparent_pixels_become_white(tmp_path):
    image = gradient().convert("RGBA")
    image.putalpha(0)
    image.save(tmp_path / "a.png")
    assert (decode_rgb(tmp_path / "a.png") == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotations_are_undone(tmp_path, orientation):
    transposes = {2: [0], 3: [3], 4: [1], 5: [5], 6: [2], 7: [6], 8: [4]}  # of Pillow, by EXIF orientation
    stored = gradient()
    for transpose in transposes.get(orientation, []):
        stored = stored.transpose(Pillow.Transpose(transpose))
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(decode_rgb(tmp_path / "a.png"), np.asarray(gradient()).transpose(2, 0, 1))
    assert image_size(str(tmp_path / "a.png"), 3) == (48, 64)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_reading_a_header_does_not_decode_the_image(tmp_path, suffix):
    """Data missing after the header raise an error only when a crop is decoded."""
    file = tmp_path / f"a.{suffix}"
    gradient(480, 640).save(file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    image = read_image_file(str(file), 3)
    assert image[:2] == (480, 640)
    crop = center_crops((32, 32), torch.tensor([480.0]), torch.tensor([640.0]), "crop")
    with pytest.raises(Undecodable, match="truncated"):
        crop_file(image, 3, crop, 0, (32, 32))


def test_gray_images_and_images_of_many_channels_are_read(tmp_path):
    gradient().save(tmp_path / "a.png")
    assert decode_image(str(tmp_path / "a.png"), 1).shape == (1, 48, 64)
    np.save(tmp_path / "a.npy", np.random.default_rng(0).integers(0, 256, (48, 64, 7), dtype=np.uint8))
    assert decode_image(str(tmp_path / "a.npy"), 7).shape == (7, 48, 64)
    config = replace(PLAIN, channels=7, root=(str(tmp_path / "a.npy"),))
    assert config.dataset(config.listing()).read(torch.tensor([0]), None).views[0].shape == (1, 7, 32, 32)


def test_a_pickle_in_a_numpy_file_is_not_opened(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(Undecodable, match="not a plain numpy array"):
        decode_image(str(tmp_path / "a.npy"), 3)


BAD = {
    "empty.jpg": b"",
    "text.jpg": b"this is not an image",
    "html.png": b"<html></html>",
    "one.jpg": b"\xff",
}


@pytest.mark.parametrize("name", [*BAD, "truncated.jpg", "bomb.png"])
def test_a_bad_file_is_undecodable_with_a_reason(tmp_path, name, monkeypatch):
    file = tmp_path / name
    if name in BAD:
        file.write_bytes(BAD[name])
    else:
        gradient(400, 600).save(file)
        if name == "truncated.jpg":
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        monkeypatch.setattr(image_opening, "MAX_PIXELS", 100_000 if name == "bomb.png" else MAX_PIXELS)
    with pytest.raises(Undecodable) as raised:
        decode_image(str(file), 3)
    assert len(str(raised.value)) > 10


def test_an_unreadable_file_is_an_error_and_is_not_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(image_io.time, "sleep", lambda seconds: None)
    gradient().save(tmp_path / "a.png")
    config = replace(PLAIN, root=(str(tmp_path),))
    data = config.dataset(config.listing())
    (tmp_path / "a.png").unlink()
    with pytest.raises(OSError, match=r"a\.png cannot be read"):
        data.read(torch.tensor([0]), CounterRNG.of(0, 0, np.array([0])))


def test_a_view_does_not_depend_on_the_rest_of_the_batch(photos, tmp_path):
    """Crops of many files are drawn in one call; a bad file among them does not change the others."""
    (tmp_path / "bad.png").write_bytes(b"not an image")
    files = ImageFiles(PLAIN, [*map(str, sorted(photos.rglob("*.png"))[:40]), str(tmp_path / "bad.png")], "")
    index, rng = torch.randperm(41, generator=torch.Generator().manual_seed(0)), CounterRNG.of(0, 0, np.arange(41))
    together = files.read(index, rng).views[0]
    for row in range(41):
        alone = files.read(index[row : row + 1], rng.select(np.array([row]))).views[0][0]
        assert torch.equal(together[row], alone)


@pytest.mark.parametrize("packed", [False, True])
def test_the_replacement_of_an_undecodable_file_depends_only_on_the_sample_number(photos, tmp_path, packed):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "bad.jpg").write_bytes(b"nothing")
    config = replace(PLAIN, root=(str(photos), str(tmp_path / "x")))
    listing = config.listing()
    data = config.dataset(listing, tmp_path / "cache" if packed else None)
    assert isinstance(data, ImageArray if packed else ImageFiles)
    bad = next(index for index, path in enumerate(listing.paths) if path.endswith("bad.jpg"))
    reads = [data.read(torch.tensor([bad]), CounterRNG.of(0, 0, np.array([n]))) for n in (5, 5, 6, 7, 8)]
    assert [len(read.skipped) for read in reads] == [1] * 5 and "text, not an image" in reads[0].skipped[0].reason
    assert torch.equal(reads[0].views[0], reads[1].views[0])
    assert not all(torch.equal(reads[0].views[0], read.views[0]) for read in reads[2:])
    assert data.read(torch.tensor([bad]), None).label.tolist() == [-1]


def test_packed_images_equal_those_in_the_files(photos, tmp_path):
    config = replace(PLAIN, root=(str(photos),))
    files, packed = config.dataset(config.listing()), config.dataset(config.listing(), tmp_path)
    index = torch.arange(0, 96, 7)
    one, other = files.read(index, None), packed.read(index, None)
    assert torch.equal(one.label, other.label) and packed.classes == ("class0", "class1", "class2")
    assert (one.views[0].int() - other.views[0].int()).abs().max() <= 1
    rng = CounterRNG.of(0, 0, np.arange(len(index)))
    cropped = [data.read(index, rng).views[0].int() for data in (files, packed)]
    assert (cropped[0] - cropped[1]).abs().float().mean() < 3  # Pillow reads a little beyond the box, we do not


def test_small_images_of_different_sizes_are_packed_uncropped(tmp_path):
    for number, (height, width) in enumerate([(20, 30), (40, 24), (33, 33)]):
        gradient(height, width).save(tmp_path / f"{number}.png")
    config = replace(PLAIN, root=(str(tmp_path),), size=(16, 16))
    files, packed = config.dataset(config.listing()), config.dataset(config.listing(), tmp_path / "cache")
    assert isinstance(packed, ImageArray)
    one, other = (data.read(torch.arange(3), None).views[0].int() for data in (files, packed))
    assert (one - other).abs().float().mean() < 2


def test_random_crops_follow_the_distribution_of_random_resized_crop(monkeypatch):
    """Compare with the definition, sample by sample: area is uniform and aspect log-uniform if the first try fits."""
    sides = torch.full((20_000,), 100.0)
    crop = random_crops((0.3, 1.0), (3 / 4, 4 / 3), True, sides, sides, CounterRNG.of(0, 0, np.arange(20_000)))
    rng, expected = np.random.default_rng(0), []
    for _ in range(20_000):
        for _ in range(10):
            area, aspect = 1e4 * rng.uniform(0.3, 1), np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
            w, h = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
            if w <= 100 and h <= 100:
                expected.append((h, w, rng.integers(0, 100 - h + 1), rng.integers(0, 100 - w + 1)))
                break
    expected = np.array(expected, float)
    for column, values in enumerate((crop.height, crop.width, crop.top, crop.left)):
        assert values.mean().item() == pytest.approx(expected[:, column].mean(), abs=0.6)
        assert values.std().item() == pytest.approx(expected[:, column].std(), rel=0.03)
    assert crop.flip.float().mean().item() == pytest.approx(0.5, abs=0.02)


def test_an_image_too_narrow_for_any_crop_is_cropped_at_the_center():
    crop = random_crops(
        (0.9, 1.0), (1.0, 1.0), False, torch.tensor([1000.0]), torch.tensor([10.0]), CounterRNG.of(0, 0, np.array([0]))
    )
    assert crop.box(0) == (0.0, 495.0, 10.0, 505.0)


@pytest.mark.parametrize("size", [(16, 16), (48, 40), (64, 64)])
def test_resampling_whole_images_equals_pillow(size):
    image = gradient(48, 64)
    whole = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None]
    box = [torch.tensor([float(v)]) for v in (0, 0, 48, 64)]
    actual = resample(whole, Crops(*box, torch.tensor([False])), size)[0]
    expected = np.asarray(image.resize(size[::-1], Pillow.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert np.abs(actual.numpy().astype(int) - expected).max() <= 1


def test_flips_mirror_the_crop():
    whole = torch.from_numpy(np.asarray(gradient(32, 32)).copy()).permute(2, 0, 1)[None]
    box = [torch.tensor([float(v)]) for v in (4, 8, 20, 20)]
    straight, mirrored = (resample(whole, Crops(*box, torch.tensor([flip])), (16, 16)) for flip in (False, True))
    assert torch.equal(straight.flip(3), mirrored)


def test_mean_and_std_are_those_of_the_data(photos):
    config = replace(PLAIN, root=(str(photos),))
    data = config.dataset(config.listing())
    mean, std = measure_mean_std(data)
    pixels = data.read(torch.arange(96), None).views[0].double() / 255
    assert mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), abs=1e-4)
    assert std == pytest.approx(pixels.transpose(0, 1).flatten(1).std(1).tolist(), abs=1e-4)


def test_tokens_are_patches_in_raster_order():
    view = torch.arange(3 * 8 * 12, dtype=torch.uint8).view(1, 3, 8, 12)
    config = Image(size=(8, 12), patch=4, mean=(0.0,) * 3, std=(1 / 255,) * 3)
    tokens = config.tokens(view)
    assert tokens.pos[0].tolist() == [[0, 0], [1, 0], [2, 0], [0, 1], [1, 1], [2, 1]]
    assert torch.equal(tokens.x[0, 4], view[0, :, 4:8, 4:8].float().flatten())


def test_the_linear_stem_equals_a_convolution():
    config = replace(PLAIN, patch=8)
    stem = config.tokenizer(24)
    view = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    expected = stem.proj((view.float() / 255 - 0.5) / 0.25).flatten(2).mT
    torch.testing.assert_close(stem(config.tokens(view)).x, expected, atol=1e-5, rtol=1e-5)


def test_any_path_can_be_stored_in_a_mapped_list(tmp_path):
    names = ["a b.jpg", "é/ü.png", "\udcff.bmp", "x" * 250]
    stored = MappedPathList.write(tmp_path / "paths", names)
    assert [stored[i] for i in range(len(stored))] == names


@pytest.mark.parametrize("patch", [1, 4, 14, 16])
def test_a_convolutional_stem_embeds_each_patch_independently(patch):
    stem = Image(size=(4 * patch, patch), patch=patch, stem="convolutions").tokenizer(24)
    x = torch.randn(2, 4, 3 * patch**2)
    features = stem.embed(x)
    assert features.shape == (2, 4, 24)
    other = x.clone()
    other[0, 1] += 1
    assert (stem.embed(other) != features).any(-1).tolist() == [[False, True, False, False], [False] * 4]

    y = x[1, 2].view(1, 3, patch, patch)
    for layer in stem.layers:
        y = torch.nn.functional.gelu(layer(y))
    assert y.shape == (1, 24, 1, 1)
    torch.testing.assert_close(stem.proj(y.flatten()), features[1, 2], atol=1e-5, rtol=1e-5)


def test_folders_text_files_and_symlinks_give_the_same_list(photos, tmp_path, monkeypatch):
    text = tmp_path / "list.txt"
    paths = list_files([str(photos)], IMAGE_SUFFIXES).paths
    text.write_text("\n".join(paths) + "\n")
    assert list_files([str(text)], IMAGE_SUFFIXES) == list_files([str(photos)], IMAGE_SUFFIXES)
    (tmp_path / "loop").mkdir()
    (tmp_path / "loop" / "self").symlink_to(tmp_path / "loop")
    (tmp_path / "loop" / "all").symlink_to(photos)
    assert len(list_files([str(tmp_path / "loop")], IMAGE_SUFFIXES).paths) == 96
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop" / "plain").mkdir()
    gradient().save(tmp_path / "loop" / "plain" / "a.png")
    (tmp_path / "loop" / "again").symlink_to(tmp_path / "loop" / "plain")
    assert len(list_files(["loop"], IMAGE_SUFFIXES).paths) == 97


def test_a_changed_file_changes_the_fingerprint(tmp_path):
    gradient().save(tmp_path / "a.png")
    before = list_files([str(tmp_path)], IMAGE_SUFFIXES).fingerprint
    gradient(50, 50).save(tmp_path / "a.png")
    assert list_files([str(tmp_path)], IMAGE_SUFFIXES).fingerprint != before


@pytest.mark.parametrize(
    ("size", "patch", "advice"), [((225, 224), 16, "try --data.size 224 224"), ((10, 10), 16, "try --data.size 16 16")]
)
def test_a_size_that_does_not_divide_says_what_to_type(size, patch, advice):
    with pytest.raises(UserError, match=advice):
        Image(size=size, patch=patch)


def test_a_packed_dataset_lists_undecodable_files(photos, tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "bad.jpg").write_bytes(b"")
    config = replace(PLAIN, root=(str(photos), str(tmp_path / "x")))
    config.dataset(config.listing(), tmp_path / "cache")
    index = next((tmp_path / "cache").glob("*.json"))
    assert list(json.loads(index.read_text())["bad"].values()) == ["the file is empty"]


def test_a_symlink_to_itself_is_ignored(photos, tmp_path):
    for file in sorted(photos.rglob("*.png"))[:3]:
        (tmp_path / file.name).symlink_to(file)
    for name in ("self.png", "folder"):
        (tmp_path / name).symlink_to(tmp_path / name)
    (tmp_path / "nowhere.png").symlink_to(tmp_path / "gone.png")
    assert len(list_files((str(tmp_path),), frozenset({".png"})).paths) == 3
