"""A sound image is decoded whatever its metadata hold; a skipped file has the true reason, in doctor as in runs."""

import io
import random
import struct
import sys
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from openjepa.core.rng import CounterRNG
from openjepa.data import doctor as checks
from openjepa.data.doctor import examine_file, examine_files
from openjepa.data.image_files import ImageFiles
from openjepa.data.image_formats import IMAGE_FORMATS, IMAGE_SUFFIXES, SNIFF_BYTES, sniff_format
from openjepa.data.image_io import Undecodable, decode_image, image_size, read_bytes
from openjepa.data.image_opening import count_frames
from openjepa.data.orientation import exif_orientation
from openjepa.modalities.image import Image
from tests.cases.inputs import APPLE, EXIFS, chunk, exif_jpeg, jpeg, picture, png, raw_png, tiff, with_chunk
from tests.mutants import mutate, sample_images

heif = pytest.importorskip("pillow_heif")
OUT = {"JPEG": "JPEG", "PNG": "PNG", "WEBP": "WEBP", "TIFF": "TIFF", "AVIF": "AVIF", "JPEG 2000": "JPEG2000"}


def encode(image_format: str, number: int = 0, **options) -> bytes:
    stream = io.BytesIO()
    image = picture(number).resize((60, 40))
    if image_format == "HEIC":
        file = heif.from_pillow(image)
        file.save(stream, **options)
    else:
        image.save(stream, image_format, **options)
    return stream.getvalue()


def decoded(content: bytes, folder, channels: int = 3) -> np.ndarray:
    file = folder / "case.jpg"
    file.write_bytes(content)
    return decode_image(str(file), channels)


def reason(content: bytes, folder, channels: int = 3) -> str:
    with pytest.raises(Undecodable) as raised:
        decoded(content, folder, channels)
    return str(raised.value)


def turned_exif(orientation: int) -> Pillow.Exif:
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    return exif


def jpeg_with(marker: int, content: bytes) -> bytes:
    whole = jpeg()
    return whole[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content + whole[2:]


MUCH = zlib.compress(b"<rdf:li>layer</rdf:li>" * 100_000)
NO_RESOLUTION = b"Exif\0\0II*\0\x08\0\0\0\x02\0" + struct.pack("<HHIIHHII", 0x11A, 2, 0, 0, 0x128, 3, 1, 2) + bytes(4)
SOUND_JPEGS = {f"exif {name}": exif_jpeg(block) for name, block in EXIFS.items()} | {
    "a resolution that is no number": exif_jpeg(NO_RESOLUTION),
    "a broken profile": jpeg_with(0xE2, b"ICC_PROFILE\0\x07"),
    "a list of images cut short": jpeg_with(0xE2, b"MPF\0II*\0\x08\0\0\0\xff\xff"),
    "broken Photoshop data": jpeg_with(0xED, b"Photoshop 3.0\x008BIM\x03\xed\xff\xff"),
    "an XMP orientation of 9": jpeg_with(0xE1, b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="9"/>'),
    "a comment that is not UTF-8": jpeg_with(0xFE, b"\xff\xfe\xfd"),
    "an old date in broken EXIF and more EXIF": exif_jpeg(EXIFS["cut"] + bytes(900)),
}
SOUND_PNGS = {
    "eXIf of garbage": with_chunk(png(), chunk(b"eXIf", bytes(range(40)))),
    "empty eXIf": with_chunk(png(), chunk(b"eXIf", b"")),
    "2 MB of zTXt": with_chunk(png(), chunk(b"zTXt", b"XML:com.adobe.xmp\0\0" + MUCH)),
    "2 MB of iTXt": with_chunk(png(), chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + MUCH)),
    "2 MB of iCCP": with_chunk(png(), chunk(b"iCCP", b"icc\0\0" + MUCH)),
    "2 MB of tEXt": with_chunk(png(), chunk(b"tEXt", b"Comment\0" + b"x" * 2_000_000)),
    "text with a wrong checksum": with_chunk(png(), chunk(b"tEXt", b"Title\0x", good=False)),
    "gamma with a wrong checksum": with_chunk(png(), chunk(b"gAMA", struct.pack(">I", 45455), good=False)),
    "a gamma that is too short": with_chunk(png(), chunk(b"gAMA", b"\0")),
    "a resolution that is too short": with_chunk(png(), chunk(b"pHYs", b"\0\0")),
    "transparency that is too short": with_chunk(png(), chunk(b"tRNS", b"\0")),
    "an unknown profile compression": with_chunk(png(), chunk(b"iCCP", b"icc\0\7abc")),
    "a broken animation": with_chunk(png(), chunk(b"acTL", b"\0\0")),
    "animation control without frames": with_chunk(png(), chunk(b"acTL", struct.pack(">II", 9, 0))),
    "a private chunk with a wrong checksum": with_chunk(png(), chunk(b"prVt", b"abc", good=False)),
    "a raw profile that is not hexadecimal": with_chunk(png(), chunk(b"tEXt", b"Raw profile type exif\0\nexif\n4\nzz")),
    "no end": png()[:-12],
}  # fmt: skip


@pytest.mark.parametrize("name", [*SOUND_JPEGS, *SOUND_PNGS])
def test_broken_metadata_do_not_cost_a_sound_image(name, tmp_path, capfd):
    content, plain = (SOUND_JPEGS[name], jpeg()) if name in SOUND_JPEGS else (SOUND_PNGS[name], png())
    if name.startswith("exif "):
        content = exif_jpeg(EXIFS[name.removeprefix("exif ")], 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(decoded(content, tmp_path), decoded(plain, tmp_path))
        (tmp_path / "case.jpg").write_bytes(content)
        facts = examine_file(str(tmp_path / "case.jpg"))
    assert facts.reason == "" and set(facts.findings) <= {"wrong ending"}
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("image_format", ["WEBP", "AVIF", "HEIC"])
@pytest.mark.parametrize("block", ["garbage", "cut", "far", "type", "nine"])
def test_broken_exif_data_do_not_cost_an_image_of_another_format(image_format, block, tmp_path):
    plain = encode(image_format, exif=b"Exif\0\0II*\0\x08\0\0\0\0\0" + bytes(80))
    start = plain.index(b"II*\0\x08\0\0\0")
    broken = EXIFS[block].removeprefix(b"Exif\0\0").ljust(80, b"\0")
    content = plain[:start] + broken + plain[start + len(broken) :]
    assert sniff_format(content[:SNIFF_BYTES]) == image_format
    assert np.array_equal(decoded(content, tmp_path), decoded(plain, tmp_path))


def test_a_tiff_with_broken_exif_data_and_orientation_is_decoded(tmp_path):
    plain, far = encode("TIFF"), encode("TIFF", tiffinfo={34665: 2**31 - 9, 274: 9})
    assert np.array_equal(decoded(far, tmp_path), decoded(plain, tmp_path))


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_format_is_turned_once_and_its_size_is_known_from_the_header(image_format, orientation, tmp_path):
    """A camera's orientation counts in every format that has one; crops are drawn for the turned size."""
    options = {"tiffinfo": {274: orientation}} if image_format == "TIFF" else {"exif": turned_exif(orientation)}
    plain, content = (encode(image_format, quality=90, **each) for each in ({}, options))
    image = decoded(content, tmp_path)
    assert image_size(str(tmp_path / "case.jpg"), 3) == image.shape[1:] == ((40, 60) if orientation < 5 else (60, 40))
    straight = decoded(plain, tmp_path).transpose(1, 2, 0)
    turns = {1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: a.swapaxes(0, 1),
             6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a.swapaxes(0, 1), 2), 8: np.rot90}  # fmt: skip
    assert np.array_equal(image.transpose(1, 2, 0), turns[orientation](straight))


@pytest.mark.parametrize("where", ["exif behind the pixels", "XMP", "compressed XMP", "raw profile"])
def test_a_png_is_turned_by_metadata_anywhere(where, tmp_path):
    block = turned_exif(6).tobytes()
    xmp = b'<x:xmpmeta tiff:Orientation="6"/>'
    raw = b"Raw profile type exif\0\0" + zlib.compress(f"\nexif\n{len(block):8}\n{block.hex()}\n".encode())
    extra = {
        "exif behind the pixels": chunk(b"eXIf", block.removeprefix(b"Exif\0\0")),
        "XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp),
        "compressed XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp + b" " * 3_000_000)),
        "raw profile": chunk(b"zTXt", raw),
    }[where]
    plain = encode("PNG")
    content = plain[:-12] + extra + plain[-12:] if "behind" in where else with_chunk(plain, extra)
    assert np.array_equal(decoded(content, tmp_path), np.rot90(decoded(plain, tmp_path), -1, (1, 2)))


@pytest.mark.parametrize("image_format", [*OUT, "HEIC"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_format_is_read_under_any_name(image_format, channels, tmp_path):
    """Scraped and phone images are often AVIF, HEIC or WebP with the ending .jpg."""
    content = encode(OUT.get(image_format, "HEIC"))
    assert sniff_format(content[:SNIFF_BYTES]) == image_format
    truth = decoded(encode("PNG"), tmp_path, channels)
    image = decoded(content, tmp_path, channels)
    assert image.shape == truth.shape and np.abs(image.astype(int) - truth).mean() < 12
    facts = examine_file(str(tmp_path / "case.jpg"), channels)
    assert facts.reason == "" and ("wrong ending" in facts.findings) == (image_format != "JPEG")


def test_without_the_extra_a_heic_image_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert reason(encode("HEIC"), tmp_path) == "the file is a HEIC image: to read it, pip install 'openjepa[heif]'"


def test_an_mpo_file_is_a_jpeg(tmp_path):
    stream = io.BytesIO()
    picture(0).resize((60, 40)).save(stream, "MPO", save_all=True, append_images=[picture(1)], exif=turned_exif(6))
    image = decoded(stream.getvalue(), tmp_path)
    assert image.shape == (3, 60, 40)
    assert examine_file(str(tmp_path / "case.jpg")).findings == ("turned",)
    assert np.array_equal(image, np.rot90(decoded(encode("JPEG"), tmp_path), -1, (1, 2)))


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_of_several_frames_the_first_is_read(image_format, tmp_path):
    stream = io.BytesIO()
    picture(0).save(stream, image_format, save_all=True, append_images=[picture(1), picture(2)], duration=50)
    image = decoded(stream.getvalue(), tmp_path)
    assert count_frames(stream.getvalue()) > 1
    assert np.abs(image.astype(int) - np.asarray(picture(0)).transpose(2, 0, 1)).mean() < 10
    assert "animated" in examine_file(str(tmp_path / "case.jpg")).findings


def test_damage_in_a_later_frame_does_not_cost_the_first(tmp_path):
    stream = io.BytesIO()
    picture(0).save(stream, "GIF", save_all=True, append_images=[picture(n) for n in range(1, 5)])
    whole = stream.getvalue()
    assert np.array_equal(decoded(whole[: len(whole) // 2], tmp_path), decoded(whole, tmp_path))
    (tmp_path / "case.jpg").write_bytes(whole[: len(whole) // 2])
    assert examine_file(str(tmp_path / "case.jpg")).reason == ""


def iphone_png() -> bytes:
    """A PNG as Xcode optimizes it: a first chunk of its own, and pixels without the header of zlib."""
    whole, packer = png(), zlib.compressobj(wbits=-15)
    pixels = packer.compress(bytes(121 * 40)) + packer.flush()
    return whole[:8] + chunk(b"CgBI", b"\x50\0\x20\2") + whole[8:33] + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def dicom() -> bytes:
    return bytes(128) + b"DICM" + bytes(300)


REASONS = {
    "nothing": (b"", "the file is empty"),
    "zeros": (bytes(5000), "full of zeros"),
    "a web page": (b"\n<!DOCTYPE html><html><title>404</title>", "an HTML page, not an image: a failed download?"),
    "a web page of old": (b"<HTML><HEAD>", "an HTML page"),
    "an answer of a server": (b'{"error": "rate limit"}', "JSON, not an image"),
    "an XML error": (b'<?xml version="1.0"?><Error><Code>AccessDenied', "XML, not an image"),
    "a drawing": (b'<?xml version="1.0"?>\n<svg xmlns="x">', "an SVG drawing"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "run git lfs pull"),
    "git-annex": (b"/annex/objects/SHA256E-s1--0.jpg\n", "run git annex get"),
    "text of Windows": ("nothing".encode("utf-16"), "text, not an image"),
    "AppleDouble": (APPLE, "AppleDouble"),
    "DICOM": (dicom(), "a DICOM image"),
    "PDF": (b"%PDF-1.7\n", "a PDF document"),
    "ZIP": (b"PK\x03\x04" + bytes(60), "a ZIP archive"),
    "a video": (struct.pack(">I", 24) + b"ftypisom" + bytes(60), "MP4"),
    "camera raw": (b"II*\0\x10\0\0\0CR\x02\0" + bytes(60), "a raw image of a camera"),
    "JPEG XL": (b"\xff\x0a" + bytes(60), "JPEG XL"),
    "base64": (b"data:image/png;base64,iVBOR", "base64"),
    "random bytes": (b"\x91\x02\x99\xfe" * 20, "starts with the bytes 91 02 99 fe"),
    "a cut JPEG": (jpeg()[:400], "truncated"),
    "a cut PNG": (png()[:1000], "truncated after"),
    "a cut WebP": (encode("WEBP")[:300], "truncated after"),
    "a cut BMP": (encode("BMP")[:3000], "truncated after 41 %"),
    "a cut AVIF": (encode("AVIF")[:-40], "truncated after"),
    "a cut TIFF": (encode("TIFF")[:-900], "truncated"),
    "a JPEG with zeros at its end": (
        jpeg()[:500] + bytes(4000),
        "truncated: its last 88 % are zeros, an interrupted copy?",
    ),
    "a PNG header with a wrong checksum": (png()[:29] + b"abcd" + png()[33:], "checksum of its PNG header"),
    "an iPhone PNG": (iphone_png(), "iPhone"),
    "a JPEG of 12 bits": (jpeg().replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"), "JPEG of 12 bits"),
    "a lossless JPEG": (jpeg().replace(b"\xff\xc0\0\x11", b"\xff\xc3\0\x11"), "a lossless JPEG, as in DICOM"),
    "a TIFF of an unknown compression": (
        tiff(np.zeros((8, 8), np.uint8), 1).replace(
            struct.pack("<HHIHH", 259, 3, 1, 1, 0), struct.pack("<HHIHH", 259, 3, 1, 40001, 0)
        ),
        "compression 40001",
    ),
    "a gzipped answer": (b"\x1f\x8b\x08" + bytes(50), "compressed with gzip"),
    "a Photoshop document": (b"8BPS\0\1" + bytes(50), "Photoshop"),
    "NIfTI": (struct.pack("<I", 348) + bytes(340) + b"n+1\0" + bytes(60), "NIfTI"),
    "Thumbs.db": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(60), "Thumbs.db"),
    "a pickle": (b"\x93NUMPY\x01\0nothing", "not a plain numpy array"),
}


@pytest.mark.parametrize("name", REASONS)
def test_the_reason_says_what_the_file_is(name, tmp_path):
    content, words = REASONS[name]
    assert words in reason(content, tmp_path)
    (facts,) = examine_files([str(tmp_path / "case.jpg")], 1)
    assert words in facts.reason and facts.findings == ("truncated" if "truncated" in words else "undecodable",)


def test_a_giant_image_is_refused_by_its_header_with_its_size(tmp_path):
    whole = bytearray(png())
    whole[16:24] = struct.pack(">II", 40_000, 50_000)
    whole[29:33] = struct.pack(">I", zlib.crc32(whole[12:29]))
    assert reason(bytes(whole), tmp_path).startswith("40000×50000 pixels, more than 89 million: cut it into tiles")


def test_a_bomb_in_the_text_of_a_png_is_not_inflated(tmp_path):
    import tracemalloc

    bomb = zlib.compress(bytes(300_000_000), 9)
    extra = chunk(b"zTXt", b"a\0\0" + bomb) + chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + bomb)
    content = with_chunk(png(), extra * 5)
    tracemalloc.start()
    decoded(content, tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 40_000_000
    tracemalloc.stop()


def test_thirteen_bands_are_named_once_and_nothing_reaches_the_terminal(tmp_path, capfd):
    many = np.concatenate([np.asarray(picture(0))] * 4 + [np.asarray(picture(0))[..., :1]], -1)
    assert "bands" in reason(tiff(many, 1, (0,) * 12), tmp_path)
    assert capfd.readouterr() == ("", "")


def test_damaged_compressed_tiffs_write_nothing_to_the_terminal(tmp_path, capfd):
    dice, failed = random.Random(0), 0
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"):
        for _ in range(12):
            content = bytearray(encode("TIFF", compression=compression))
            for _ in range(20):
                content[dice.randrange(8, len(content))] = dice.randrange(256)
            (tmp_path / "x.tif").write_bytes(content)
            failed += bool(examine_file(str(tmp_path / "x.tif")).reason)
    assert failed > 10 and capfd.readouterr() == ("", "")


def test_arrays_have_the_channels_of_the_run(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((40, 40, 7), np.uint8))
    (tmp_path / "x.npy").rename(tmp_path / "X.NPY")
    file = str(tmp_path / "X.NPY")
    assert decode_image(file, 7).shape == (7, 40, 40)
    assert examine_file(file, 7).findings == ("blank",) and examine_file(file, 3).findings == ("undecodable",)


def training_skips(files: list[str], channels: int) -> list[bool]:
    """Tell which files a run, and which an evaluation, replaces or leaves out; both must agree."""
    config = Image(size=(32, 32), patch=4, channels=channels, root=(".",), value_range=(0.0, 65535.0))
    data, rng = ImageFiles(config, files, ""), CounterRNG.of(0, 0, np.arange(len(files)))
    evaluated = {bad.path for bad in data.read(torch.arange(len(files)), None).skipped}
    trained = {bad.path for view in (data.decode_crops(list(range(len(files))), rng),) for bad in view
               if hasattr(bad, "reason")}  # fmt: skip
    assert trained == evaluated
    return [file in trained for file in files]


@pytest.mark.parametrize("channels", [1, 3])
def test_doctor_calls_a_file_undecodable_exactly_when_a_run_skips_it(channels, tmp_path, capfd):
    """Bit flips, cuts, exchanged pieces and extreme numbers in every format, and in a file large enough for drafts."""
    good = sample_images() | {
        f"x{number}.{name}": encode(OUT.get(name, name), number=number, **options)
        for number, (name, options) in enumerate((("AVIF", {}), ("HEIC", {}), ("WEBP", {"quality": 50})))
    }
    stream = io.BytesIO()
    picture(0, side=500).save(stream, "JPEG")
    good["large.jpg"] = stream.getvalue()
    dice, files = random.Random(channels), []
    for number, content in enumerate(good.values()):
        for case in range(14 if channels == 3 else 5):
            file = tmp_path / f"{number}-{case}.jpg"
            file.write_bytes(mutate(content, dice, dice.choice(list(good.values()))) if case else content)
            files.append(str(file))
    skipped = training_skips(files, channels)
    verdicts = [bool({"undecodable", "truncated"} & set(each.findings)) for each in examine_files(files, 1, channels)]
    assert [file for file, *pair in zip(files, verdicts, skipped, strict=True) if pair[0] != pair[1]] == []
    assert 0.1 < sum(skipped) / len(skipped) < 0.9 and capfd.readouterr() == ("", "")


def test_several_processes_report_broken_files_as_one_does(tmp_path, monkeypatch):
    for number, (content, _) in enumerate(REASONS.values()):
        (tmp_path / f"{number}.png").write_bytes(content)
    for number, content in enumerate(SOUND_PNGS.values()):
        (tmp_path / f"s{number}.png").write_bytes(content)
    files = [str(file) for file in sorted(tmp_path.iterdir())]
    monkeypatch.setattr(checks, "MIN_FOR_PROCESSES", 1)
    assert list(examine_files(files, 2)) == list(examine_files(files, 1))


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "x.jpg").write_bytes(jpeg())
    file = str(tmp_path / "x.jpg")

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    with pytest.raises(OSError, match=r"x\.jpg cannot be read \(Permission denied\): let this user read it"):
        read_bytes(file)
    facts = examine_file(file)
    assert facts.findings == ("unreadable",) and "Permission denied" in facts.reason


@pytest.mark.parametrize(
    ("content", "orientation"),
    [
        (b"", None),
        (b"Exif\0\0", None),
        (b"Exif\0\0Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0", 6),
        (b"II*\0\x08\0\0\0\x01\0\x12\x01\x04\0\x01\0\0\0\x08\0\0\0", 8),
        (b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x00\0\0\0", 1),
        (b"II*\0\x08\0\0\0\xff\xff\x12\x01\x03\0\x01\0\0\0\x03\0\0\0", 3),
    ],
)
def test_the_orientation_is_read_from_any_exif_data(content, orientation):
    assert exif_orientation(content) == orientation


def test_every_suffix_is_lower_case_and_every_format_is_named_by_its_first_bytes():
    assert {".jpg", ".jfif", ".jpe", ".ppm", ".pgm", ".avif", ".heic", ".jp2", ".npy"} <= IMAGE_SUFFIXES
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in IMAGE_SUFFIXES)
    for name in ("BMP", "GIF", "PPM"):
        assert sniff_format(encode(name)[:SNIFF_BYTES]) == name and name in IMAGE_FORMATS
    assert sniff_format(b"II+\0\x08\0\0\0" + bytes(20)) == "TIFF"
    assert sniff_format(struct.pack(">I", 28) + b"ftypmif1\0\0\0\0mif1avif" + bytes(20)) == "AVIF"
    assert sniff_format(b"\x93NUMPY\1\0") == "NumPy" and sniff_format(b"BM is not always an image") == "text"
    assert raw_png(np.zeros((4, 4), np.uint8), 0, 8).startswith(b"\x89PNG")
