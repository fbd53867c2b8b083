"""Images of more than 8 bits keep their levels in a range that is measured, stated and saved; bands are not opacity."""

import io
import json
import struct
from dataclasses import replace

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image as Pillow

import openjepa
from openjepa.cli.convert import convert
from openjepa.cli.export import export
from openjepa.cli.pretrain import pretrain
from openjepa.cli.settings import Convert, Export
from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.data import image_header, image_pixels, value_range
from openjepa.data.doctor import examine_file
from openjepa.data.image_files import ImageFiles
from openjepa.data.image_io import decode_image, file_form
from openjepa.data.image_opening import Undecodable
from openjepa.data.image_packing import PackedImages
from openjepa.data.image_values import LEGACY
from openjepa.data.shards import shrink_to_jpeg
from openjepa.data.value_range import robust_range
from openjepa.interop.pretrained import load_run
from openjepa.modalities.image import Image
from openjepa.recipes.auto import inspect_images
from openjepa.training.config import config_differences, from_json, load_config, to_json
from tests.cases.inputs import chunk, r13, r15, r17, raw_png, tiff

GRAY = Image(size=(64, 64), patch=8, channels=1)


def ramp(number: int = 0, low: int = 0, high: int = 4095) -> np.ndarray:
    """Every level from low to high once if there are 4,096, in another order for every number."""
    levels = np.linspace(low, high, 4096).round()
    return np.random.default_rng(number).permutation(levels).reshape(64, 64).astype(np.uint16)


def folder_of(folder, arrays, ending="tif", write=None):
    folder.mkdir(parents=True, exist_ok=True)
    for number, array in enumerate(arrays):
        file = folder / f"{number:03d}.{ending}"
        if write:
            write(file, array)
        elif ending == "npy":
            np.save(file, array)
        else:
            Pillow.fromarray(array).save(file)
    return folder


def open_folder(folder, cache=None, **settings):
    config = replace(GRAY, root=(str(folder),), **settings)
    return config.dataset(config.listing(), cache)


def view_of(folder, **settings) -> torch.Tensor:
    samples = open_folder(folder, **settings).read(torch.tensor([0]), None)
    assert not samples.skipped, samples.skipped
    return samples.views[0][0]


# R15


@pytest.mark.parametrize("ending", ["png", "tif", "npy"])
@pytest.mark.parametrize("packed", [False, True])
def test_12_bit_ramps_keep_4000_levels_in_what_the_encoder_sees(tmp_path, ending, packed, capsys):
    folder = folder_of(tmp_path / "x", [ramp(n) for n in range(8)], ending)
    data = open_folder(folder, tmp_path / "cache" if packed else None, size=(64, 64))
    data = data if packed else ImageFiles(data.config, data.paths if hasattr(data, "paths") else [], "")
    assert isinstance(data, PackedImages) is packed
    view = data.read(torch.tensor([3]), None).views[0]
    assert view.dtype == torch.float32 and len(view.unique()) >= 4000
    assert view.min() == 0 and view.max() == 255
    assert "values     4 to 4,091 of uint16 (0.1 % to 99.9 % of 8 images) are scaled to 0…1" in capsys.readouterr().out


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on 12-bit ramps."""
    from openjepa.masking.multiblock import MultiBlock
    from openjepa.training.config import Pretrain
    from openjepa.training.optim import Optim
    from tests.conftest import METHODS

    folder = tmp_path_factory.mktemp("ramps")
    data = replace(GRAY, root=(str(folder_of(folder / "x", [ramp(n, high=4080) for n in range(16)])),))
    method = replace(METHODS["released"])
    settings = Pretrain(
        data, method, MultiBlock(), Optim(warmup=0.1, ema_momentum=0.99), steps=2, batch_size=8, device="cpu",
        precision="fp32", threads=1, workers=0, out=folder / "run", report=False,
    )  # fmt: skip
    pretrain(settings)
    return folder / "run"


def test_the_range_of_a_run_is_saved_and_used_again(trained, tmp_path):
    settings = load_config(trained)
    assert settings.data.value_range == (4.0, 4076.0)
    assert json.loads((trained / "data.json").read_text())["value_range"] == [4.0, 4076.0]
    assert load_config(trained / "export").data.value_range == (4.0, 4076.0)
    bright = folder_of(tmp_path / "x", [np.full((64, 64), 65535, np.uint16)] * 4)  # not measured again
    data = replace(settings.data, root=(str(bright),))
    assert data.dataset(data.listing()).read(torch.tensor([0]), None).views[0].min() == 255


@pytest.mark.parametrize("form", ["hf", "timm", "torch", "safetensors"])
def test_exports_carry_the_range_and_give_the_same_features(trained, tmp_path, form):
    raw = ramp(99, high=4080)
    encoder = load_run(trained)
    expected = encoder.features(raw)
    out = export(Export(run=str(trained), format=form, out=tmp_path / form))
    card = (out / "README.md").read_text()
    assert "(x − 4) / (4076 − 4)" in card
    if form == "torch":
        stated = json.loads((out / "preprocessor_config.json").read_text())
        clipped = torch.from_numpy(raw.astype(np.float32).clip(4, 4076))
        inputs = (clipped * stated["rescale_factor"] - stated["image_mean"][0]) / stated["image_std"][0]
        features = torch.export.load(out / "model.pt2").module()(inputs[None, None])[1]
    else:
        back = out if form == "safetensors" else convert(Convert(source=str(out), out=tmp_path / "back"))
        features = openjepa.load(str(back)).features(raw)
    torch.testing.assert_close(features, expected, atol=2e-4, rtol=0)


def test_the_hugging_face_processor_takes_raw_values(trained, tmp_path):
    transformers = pytest.importorskip("transformers")
    out = export(Export(run=str(trained), format="hf", out=tmp_path / "hf"))
    raw = ramp(1, high=4080).clip(4, 4076)
    processor = transformers.AutoImageProcessor.from_pretrained(out)
    array = raw[None].astype(np.float32)
    stated = processor(array, return_tensors="pt", input_data_format="channels_first", do_resize=False)
    encoder = load_run(trained)
    ours = encoder.data.normalize(encoder.transform(raw)[None])
    torch.testing.assert_close(stated["pixel_values"], ours, atol=1e-3, rtol=0)


def test_neighboring_levels_have_different_features(trained):
    encoder = load_run(trained)
    one, other = encoder.features([np.full((64, 64), level, np.uint16) for level in (2000, 2001)])
    assert (one - other).abs().max() > 1e-6


def test_arrays_tensors_pictures_and_files_of_16_bits_have_the_same_features(trained, tmp_path):
    raw, encoder = ramp(7), load_run(trained)
    folder_of(tmp_path / "x", [raw])
    forms = [raw, raw[..., None], raw.astype(np.int32), raw.astype(np.float64), Pillow.fromarray(raw)]
    forms += [torch.from_numpy(raw.astype(np.int32))[None], tmp_path / "x" / "000.tif"]
    for row in encoder.features(forms)[1:]:
        torch.testing.assert_close(row, encoder.features(raw)[0])


def test_an_encoder_of_8_bit_images_measures_16_bit_files_and_refuses_single_ones(tmp_path, capsys):
    folder = folder_of(tmp_path / "x", [ramp(n) for n in range(4)])
    trained_on_bytes = replace(GRAY, mean=(0.5,), std=(0.2,), root=(str(folder),))
    data = trained_on_bytes.dataset(trained_on_bytes.listing())
    assert len(data.read(torch.tensor([0]), None).views[0].unique()) > 4000
    assert "values     4 to 4,091" in capsys.readouterr().out
    with pytest.raises(UserError, match="1 band of 16 bits, but no range of values is known"):
        trained_on_bytes.read(folder / "000.tif")
    with pytest.raises(UserError, match="pixels must be uint8, got uint16"):
        trained_on_bytes.read(ramp())


def test_a_single_deep_file_among_bytes_is_skipped_with_a_reason_if_no_range_was_measured(tmp_path):
    folder = folder_of(tmp_path / "x", [ramp().astype(np.uint8)] * 3, "png")
    folder_of(tmp_path / "deep", [ramp()], "png")
    files = ImageFiles(GRAY, [str(folder / "000.png"), str(tmp_path / "deep" / "000.png")], "")
    (skipped,) = files.read(torch.arange(2), None).skipped
    assert "--data.value-range LOW HIGH" in skipped.reason


def test_8_bit_images_beside_deep_ones_keep_their_full_range(tmp_path, capsys):
    folder = folder_of(tmp_path / "x", [ramp(n) for n in range(4)])
    Pillow.fromarray(np.full((64, 64), 255, np.uint8)).save(folder / "z.png")
    data = open_folder(folder)
    views = data.read(torch.tensor([4, 0]), None).views[0]
    assert views.dtype == torch.float32 and (views[0] == 255).all() and len(views[1].unique()) > 4000
    assert "images of 8 bits keep 0 to 255" in capsys.readouterr().out


def test_a_stated_range_is_kept_and_has_no_effect_on_bytes_alone(tmp_path):
    folder = folder_of(tmp_path / "x", [ramp(n) for n in range(4)])
    data = replace(GRAY, root=(str(folder),), value_range=(0.0, 8190.0))
    opened = data.dataset(data.listing())
    assert opened.read(torch.tensor([0]), None).views[0].max() == pytest.approx(127.5)
    assert data.measure(opened).value_range == (0.0, 8190.0)
    small = folder_of(tmp_path / "bytes", [ramp().astype(np.uint8)] * 3, "png")
    data = replace(data, root=(str(small),))
    with pytest.raises(UserError, match="no effect on images of 8 bits"):
        data.measure(data.dataset(data.listing()))


@pytest.mark.parametrize("wrong", [(5.0, 5.0), (1.0,), (0.0, 1.0, 2.0), (9.0, 1.0)])
def test_a_wrong_range_is_refused(wrong):
    with pytest.raises(UserError, match="--data.value-range 0 4095"):
        replace(GRAY, value_range=wrong)


def test_settings_of_older_versions_keep_65535(tmp_path):
    """They divided by 65,535 and kept 8 bits; with the key of today, empty means images of 8 bits."""
    old = to_json(replace(openjepa.Pretrain(), data=replace(GRAY, mean=(0.1,), std=(0.1,))))
    new = from_json(json.loads(json.dumps(old)))
    del old["data"]["value_range"]
    older = from_json(old)
    assert older.data.value_range == LEGACY and new.data.value_range == ()
    assert from_json(to_json(older)).data.value_range == LEGACY  # also of a copy that is written today
    assert config_differences(older, new) == []  # a resumed run on bytes is the same run
    for kind in ({"type": "image"}, {"type": "series"}):
        assert "value_range" not in openjepa.training.migrations.migrate({"format": 3, "data": kind})["data"]
    folder = folder_of(tmp_path / "x", [ramp()])
    view = replace(older.data, root=(str(folder),)).read(folder / "000.tif")
    assert view.dtype == torch.uint8 and view.max() == 16  # 4,095 / 65,535 · 255, as these runs were trained


def test_older_runs_warn_that_they_keep_the_upper_8_bits(tmp_path, capsys):
    folder = folder_of(tmp_path / "x", [ramp(n) for n in range(3)])
    assert open_folder(folder).config.value_range == (4.0, 4091.0)
    old = open_folder(folder, value_range=LEGACY)
    assert old.config.value_range == LEGACY and old.read(torch.tensor([0]), None).views[0].dtype == torch.uint8
    assert "divides by 65,535" in capsys.readouterr().err


# kinds of values


def write_tiff(**options):
    return lambda file, array: tifffile.imwrite(file, array, **options)


def rough(kind: str) -> np.ndarray:
    """Heights of a landscape, or densities of a body, with 4,096 levels."""
    base = ramp().astype(np.float64)
    return (base - 1024 if kind == "int16" else base * 1000 if kind == "int32" else base / 4095 + 0.25).astype(kind)


@pytest.mark.parametrize("kind", ["int16", "int32", "uint32", "float16", "float32", "float64", "int8"])
@pytest.mark.parametrize("ending", ["tif", "npy"])
def test_every_type_of_value_keeps_its_levels(tmp_path, kind, ending):
    array = (ramp() // 16 - 128).astype(kind) if kind == "int8" else rough(kind)
    folder = folder_of(tmp_path / "x", [array] * 4, ending, write_tiff() if ending == "tif" else None)
    levels = len(np.unique(array))
    view = view_of(folder)
    assert len(view.unique()) >= 0.99 * levels - 3
    order = view.flatten()[torch.from_numpy(array.astype(np.float64).ravel().argsort(kind="stable").copy())]
    assert (order.diff() >= 0).all()


FILES = {
    "big-endian": {"byteorder": ">"},
    "deflate, tiled": {"compression": "zlib", "tile": (16, 16)},
    "LZW, predictor": {"compression": "lzw", "predictor": True},
    "BigTIFF": {"bigtiff": True},
    "zstd": {"compression": "zstd"},
    "LERC": {"compression": "lerc"},
    "JPEG XL": {"compression": "jpegxl"},
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("bands", [1, 3])
def test_every_layout_of_tiff_keeps_its_levels(tmp_path, name, bands):
    array = np.stack([ramp(n) for n in range(bands)], -1) if bands > 1 else ramp()
    write = write_tiff(photometric="rgb" if bands == 3 else "minisblack", **FILES[name])
    view = view_of(folder_of(tmp_path / "x", [array] * 2, write=write), channels=bands)
    assert view.shape == (bands, 64, 64) and all(len(plane.unique()) >= 4000 for plane in view)


@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("alpha", [False, True])
def test_16_bit_color_keeps_its_levels_and_opacity_shows_white(tmp_path, planes, alpha):
    array = np.stack([ramp(n) for n in range(3)], -1)
    if alpha:
        opacity = np.where(np.arange(64) < 32, 65535, 0).astype(np.uint16)
        array = np.concatenate([array, np.broadcast_to(opacity[:, None], (64, 64, 1))], -1)
    stored = array if planes == "contig" else array.transpose(2, 0, 1)
    write = write_tiff(photometric="rgb", planarconfig=planes, extrasamples=["unassalpha"] if alpha else None)
    view = view_of(folder_of(tmp_path / "x", [stored] * 2, write=write), channels=3)
    assert view.shape == (3, 64, 64) and len(view[0].unique()) >= (1900 if alpha else 4000)
    assert not alpha or (view[:, :, 32:] == 255).all()


@pytest.mark.parametrize(("color", "bands"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_png_of_16_bits_keeps_its_levels(tmp_path, color, bands):
    array = np.stack([ramp(n) for n in range(bands)], -1)
    if bands in (2, 4):
        array[..., -1] = 65535
    (tmp_path / "x").mkdir()
    for number in range(2):
        (tmp_path / "x" / f"{number}.png").write_bytes(raw_png(array, color, 16))
    view = view_of(tmp_path / "x", channels=1 if bands < 3 else 3)
    assert all(len(plane.unique()) >= 4000 for plane in view)


def test_a_turned_deep_png_or_tiff_is_upright(tmp_path):
    array = np.zeros((40, 64, 3), np.uint16)
    array[:8, :8] = 4095
    exif = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">HHHIHHI", 1, 0x0112, 3, 1, 6, 0, 0)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.png").write_bytes(raw_png(array, 2, 16, chunk(b"eXIf", exif[6:])))
    tifffile.imwrite(tmp_path / "x" / "b.tif", array, photometric="rgb", extratags=[(274, 3, 1, 6, True)])
    for name in ("a.png", "b.tif"):
        planes = decode_image(str(tmp_path / "x" / name), 3, (0.0, 4095.0))
        assert planes.shape == (3, 64, 40) and (planes[:, :8, 32:] == 255).all() and planes.sum() == 3 * 64 * 255


def test_color_of_16_bits_in_ppm_and_jpeg_2000_keeps_its_levels(tmp_path):
    array = np.stack([ramp(n) for n in range(3)], -1)
    contents = {"ppm": b"P6\n# camera\n64 64\n4095\n" + array.astype(">u2").tobytes()}
    contents["jp2"] = imagecodecs.jpeg2k_encode(array, level=0)
    for ending, content in contents.items():
        (tmp_path / ending).mkdir()
        for number in range(2):
            (tmp_path / ending / f"{number}.{ending}").write_bytes(content)
        view = view_of(tmp_path / ending, channels=3)
        assert all(len(plane.unique()) >= 4000 for plane in view)
        assert "more than 8 bits" in examine_file(str(tmp_path / ending / f"0.{ending}")).findings


def test_arrays_with_the_bands_first_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 64, 64), np.float32))
    with pytest.raises(Undecodable, match="has the bands first"):
        decode_image(str(tmp_path / "a.npy"), 64)


def test_white_is_zero_is_inverted(tmp_path):
    folder = folder_of(tmp_path / "x", [ramp()] * 2, write=write_tiff(photometric="miniswhite"))
    view = view_of(folder)[0].flatten()
    assert view[ramp().ravel().argmin()] == 255 and view[ramp().ravel().argmax()] == 0


# no data and outliers


@pytest.mark.parametrize("missing", [-9999.0, -32768.0, float("nan"), float("-inf"), -3.4028234663852886e38, 1e20])
def test_no_data_does_not_stretch_the_range_of_a_float_picture(tmp_path, missing):
    heights = rough("float32") * 1000
    low, high = heights.min(), heights.max()
    heights[:8] = missing
    data = open_folder(folder_of(tmp_path / "x", [heights] * 3, write=write_tiff()))
    assert data.config.value_range[0] == pytest.approx(low, abs=5)
    assert data.config.value_range[1] == pytest.approx(high, abs=5)
    view = data.read(torch.tensor([0]), None).views[0]
    assert view.isfinite().all() and (view[0, 0, :8] == (255 if missing == 1e20 else 0)).all()
    assert len(view.unique()) > 3000


def test_a_tagged_no_data_value_is_left_out_although_it_is_among_the_others(tmp_path):
    array = ramp().astype(np.int16) - 2000
    array[:16] = 0
    write = write_tiff(extratags=[(42113, "s", 0, "0", True)])
    data = open_folder(folder_of(tmp_path / "x", [array] * 3, write=write))
    view = data.read(torch.tensor([0]), None).views[0][0, 0]
    assert (view[:16] == 0).all() and view[array == 1].min() > 100 if (array == 1).any() else True


def test_an_outlier_of_int32_is_clipped(tmp_path):
    array = rough("int32")
    array[0, 0], array[0, 1] = 2_000_000_000, -2_000_000_000
    data = open_folder(folder_of(tmp_path / "x", [array] * 4, write=write_tiff()))
    assert data.config.value_range[0] > -10_000 and data.config.value_range[1] < 4_200_000
    assert len(data.read(torch.tensor([0]), None).views[0].unique()) > 4000


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([7.0] * 99, (7, 8)),
        ([0.0] * 99_999 + [5.0], (0, 5)),  # sparse: the percentiles are equal
        ([-9999.0] * 500 + [*range(-11_000, 9_000)], (-10_981, 8_980)),  # a depth, not a sign of no data
    ],
)
def test_degenerate_values_have_a_range(values, expected):
    assert robust_range(np.array(values), whole=True) == pytest.approx(expected, abs=30 if expected[0] < 0 else 0)


def test_images_without_a_finite_value_are_refused(tmp_path):
    folder = folder_of(tmp_path / "x", [np.full((64, 64), np.nan, np.float32)] * 3, write=write_tiff())
    with pytest.raises(UserError, match="finite value"):
        open_folder(folder)


# R17


@pytest.fixture(scope="module")
def bands(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bands")
    r17(folder)
    return folder


@pytest.mark.parametrize("name", ["four", "four0"])
def test_the_fourth_band_is_ignored_with_a_word_and_read_when_asked_for(bands, name, capsys):
    three, four = view_of(bands / name, channels=3), view_of(bands / name, channels=4)
    assert three.dtype == torch.uint8 and torch.equal(four[:3], three)
    assert (four[3] == 20).all() and len(three.unique()) > 100  # infrared as opacity: all nearly white
    assert "bands      4: the first three" in capsys.readouterr().out
    assert inspect_images([str(file) for file in sorted((bands / name).iterdir())])[1] == 3


@pytest.mark.parametrize("name", ["thirteen", "thirteen16"])
def test_thirteen_bands_are_read_by_count(bands, name):
    view = view_of(bands / name, channels=13)
    assert view.shape[0] == 13 and len(view.unique()) > 100
    assert inspect_images([str(file) for file in sorted((bands / name).iterdir())])[1] == 13
    with pytest.raises(UserError, match=r"13 bands of .* bits, not 3 channels: .* type --data.channels 13"):
        open_folder(bands / name, channels=3)


def test_each_of_many_bands_has_its_own_range(tmp_path):
    array = np.stack([ramp(), ramp(1) // 16, ramp(2) * 10, ramp(3), ramp(4)], -1)
    view = view_of(folder_of(tmp_path / "x", [array] * 3, "npy"), channels=5)
    assert view.amax((1, 2)).tolist() == [255] * 5
    assert len(view[0].unique()) > 4000 and len(view[1].unique()) > 200


def test_real_opacity_is_opacity_or_a_fourth_channel(tmp_path):
    array = np.full((64, 64, 4), 50, np.uint8)
    array[..., 3] = 0
    write = write_tiff(photometric="rgb", extrasamples=["unassalpha"])
    folder = folder_of(tmp_path / "x", [array] * 3, write=write)
    assert (view_of(folder, channels=3) == 255).all()
    assert view_of(folder, channels=4)[:, 0, 0].tolist() == [50, 50, 50, 0]


def test_without_the_extra_a_reason_names_it_and_gray_of_16_bits_is_read(tmp_path, bands, monkeypatch):
    for module in (image_header, image_pixels):
        monkeypatch.setattr(module, "has_extra", lambda: False)
    monkeypatch.setattr(value_range, "MEASURED", {})
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.png").write_bytes(raw_png(np.stack([ramp()] * 3, -1), 2, 16))
    with pytest.raises(UserError, match=r"3 bands of 16 bits need an extra: pip install 'openjepa\[tiff\]'"):
        open_folder(tmp_path / "x", channels=3)
    with pytest.raises(UserError, match="13 bands of 8 bits need an extra"):
        open_folder(bands / "thirteen", channels=13)
    assert len(view_of(folder_of(tmp_path / "gray", [ramp()] * 3)).unique()) > 4000
    assert len(view_of(bands / "four", channels=3).unique()) > 100
    assert len(view_of(bands / "four0", channels=3).unique()) > 100


# what else touches pixels


def test_lab_and_palette_tiffs_are_colors_of_8_bits(tmp_path):
    r13(tmp_path)
    assert file_form(str(tmp_path / "x" / "lab.tif")).describe() == "3 bands of 8 bits"
    assert decode_image(str(tmp_path / "x" / "lab.tif"), 1).dtype == np.uint8
    Pillow.fromarray(ramp().astype(np.uint8)).convert("P").save(tmp_path / "palette.tif")
    assert decode_image(str(tmp_path / "palette.tif"), 3).shape == (3, 64, 64)


def test_crops_of_deep_images_are_those_of_the_same_8_bit_images(tmp_path):
    smooth = np.add.outer(np.arange(96), 2 * np.arange(128)) % 256
    one = folder_of(tmp_path / "8", [smooth.astype(np.uint8)] * 2)
    other = folder_of(tmp_path / "16", [(smooth * 16).astype(np.uint16)] * 2)
    rng = CounterRNG.of(0, 0, np.arange(2))
    views = [
        open_folder(folder, flip=True, value_range=given).read(torch.arange(2), rng).views[0].float()
        for folder, given in ((one, ()), (other, (0.0, 4080.0)))
    ]
    assert (views[0] - views[1]).abs().mean() < 6  # Pillow reads a little beyond the box


def test_a_resize_of_a_deep_image_is_a_mean_of_levels(tmp_path):
    array = np.array([[0, 4095], [4095, 0]], np.uint16).repeat(32, 0).repeat(32, 1)
    view = view_of(folder_of(tmp_path / "x", [array] * 2), size=(8, 8), value_range=(0.0, 4095.0))
    assert view.mean() == pytest.approx(127.5, abs=0.01)


def test_shards_copy_deep_images_unchanged(tmp_path, bands):
    folder = folder_of(tmp_path / "x", [ramp()])
    assert shrink_to_jpeg(str(folder / "000.tif"), 16, 90) == b""
    assert shrink_to_jpeg(str(bands / "four" / "000.tif"), 16, 90) == b""
    assert shrink_to_jpeg(str(bands / "thirteen" / "000.tif"), 16, 90) == b""


@pytest.mark.parametrize("channels", [1, 3, 13])
def test_thumbnails_of_deep_images_show_them(tmp_path, bands, channels):
    file = bands / "thirteen16" / "000.tif" if channels == 13 else folder_of(tmp_path / "x", [ramp()]) / "000.tif"
    picture = replace(GRAY, channels=channels).thumbnail(str(file), 64)
    assert picture.shape[2] == 3 and picture.std() > 20


def test_views_of_floats_are_drawn_as_bytes():
    picture = GRAY.picture(torch.full((1, 64, 64), 99.6))
    assert picture.dtype == np.uint8 and (picture == 100).all()


@pytest.mark.parametrize("writer", ["tifffile", "png"])
def test_damaged_deep_files_are_undecodable(tmp_path, writer):
    array = np.stack([ramp(n) for n in range(3)], -1)
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, photometric="rgb", compression="zlib")
    whole = stream.getvalue() if writer == "tifffile" else raw_png(array, 2, 16)
    random, file = np.random.default_rng(0), tmp_path / f"a.{'tif' if writer == 'tifffile' else 'png'}"
    reasons = []
    for number in range(150):
        content = bytearray(whole[: int(random.integers(1, len(whole)))] if number % 2 else whole)
        for place in random.integers(0, min(len(content), 400), 4):
            content[place] = random.integers(0, 256)
        file.write_bytes(content)
        try:
            decode_image(str(file), 3, (0.0, 4095.0))
        except Undecodable as error:
            reasons.append(str(error))
    assert len(reasons) > 75 and all(reasons)  # every second file is cut short


def test_a_header_that_promises_too_much_is_refused_before_decoding(tmp_path):
    file = tmp_path / "a.tif"
    content = bytearray(tiff(np.zeros((4, 4, 13), np.uint16), 1, (0,) * 12))
    for tag, value in ((256, 60_000), (257, 60_000)):
        at = content.index(struct.pack("<HHI", tag, 3, 1))
        content[at + 8 : at + 10] = struct.pack("<H", value)
    file.write_bytes(content)
    with pytest.raises(Undecodable, match="more than 89 million"):
        decode_image(str(file), 13)


def test_the_folders_of_12_bit_images_are_bright(tmp_path):
    """The three folders of the report: nothing of them is black, and RGB keeps its colors."""
    r15(tmp_path)
    for name, channels in (("png12", 1), ("tif12", 1), ("tif12rgb", 3)):
        view = open_folder(tmp_path / name, channels=channels, size=(40, 40)).read(torch.arange(40), None).views[0]
        assert view.max() == 255 and len(view.unique()) > 200  # as the 8-bit pictures that they were made of


@pytest.mark.parametrize("tag", [256, 258, 259, 262, 277, 338, 339])
@pytest.mark.parametrize("broken", ["no value", "a text"])
def test_a_tag_without_a_number_is_one_reason_or_the_default(tmp_path, tag, broken):
    whole = tiff(np.stack([ramp(number) for number in range(3)], -1), 2, (0,) if tag == 338 else ())
    entry = whole.index(struct.pack("<HH", tag, 3))
    kind, count = (3, 0) if broken == "no value" else (2, 3)  # 2: ASCII
    (tmp_path / "a.tif").write_bytes(whole[:entry] + struct.pack("<HHI", tag, kind, count) + whole[entry + 8 :])
    facts = examine_file(str(tmp_path / "a.tif"))
    try:
        decode_image(str(tmp_path / "a.tif"), 3, (0.0, 4095.0))
    except Undecodable as error:
        assert str(error)
    else:
        assert facts.width == 64
