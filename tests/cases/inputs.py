"""Synthetic folders as people bring them: python -m tests.cases.inputs FOLDER [base R03 R10 …] writes them."""

import io
import json
import shutil
import struct
import sys
import tarfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def picture(number: int, kind: int = 0, side: int = 40) -> Image.Image:
    """A disc or a square on a gradient; `kind` decides shape and hue."""
    draw = np.random.default_rng(1000 * kind + number)
    y, x = np.mgrid[0:side, 0:side] / side
    base = np.stack([x, y, np.full_like(x, 0.3)], -1) * 0.6 + draw.normal(0, 0.04, (side, side, 3))
    cx, cy, r = *draw.uniform(0.3, 0.7, 2).tolist(), draw.uniform(0.15, 0.3)
    inside = (x - cx) ** 2 + (y - cy) ** 2 < r * r if kind % 2 == 0 else (abs(x - cx) < r) & (abs(y - cy) < r)
    color = [(0.9, 0.2, 0.1), (0.1, 0.3, 0.9), (0.2, 0.8, 0.2), (0.9, 0.9, 0.1)][kind % 4]
    base[inside] = np.array(color) + draw.normal(0, 0.05, 3)
    return Image.fromarray((base.clip(0, 1) * 255).astype(np.uint8))


def fill(folder: Path, count: int, kind: int = 0, ending: str = "jpg", side: int = 40, first: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        picture(number, kind, side).save(folder / f"{number:03d}.{ending}")


def jpeg(number: int = 0, kind: int = 0, **options) -> bytes:
    stream = io.BytesIO()
    picture(number, kind).save(stream, "JPEG", **options)
    return stream.getvalue()


def png(image: Image.Image | None = None, **options) -> bytes:
    stream = io.BytesIO()
    (image or picture(0)).save(stream, "PNG", **options)
    return stream.getvalue()


def chunk(kind: bytes, content: bytes, good: bool = True) -> bytes:
    check = zlib.crc32(kind + content) ^ (0 if good else 1)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def with_chunk(whole: bytes, extra: bytes) -> bytes:
    """Behind the header of a PNG."""
    return whole[:33] + extra + whole[33:]


def raw_png(array: np.ndarray, color: int, depth: int, extra: bytes = b"") -> bytes:
    """A PNG of color type 0 or 2, 8 or 16 bits, with whatever chunk."""
    height, width = array.shape[:2]
    lines = b"".join(b"\0" + row.astype(">u2" if depth == 16 else "u1").tobytes() for row in array)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
        + extra + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    )  # fmt: skip


def tiff(array: np.ndarray, photometric: int, extra_samples: tuple[int, ...] = (), sample_format: int = 1) -> bytes:
    """An uncompressed TIFF of any number of bands and bits, in one strip, as GDAL writes it."""
    height, width = array.shape[:2]
    bands = 1 if array.ndim == 2 else array.shape[2]
    bits = array.dtype.itemsize * 8
    content = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"))).tobytes()
    entries: list[tuple[int, int, int, bytes]] = []

    def add(tag: int, *values: int, kind: int = 3) -> None:
        fmt = {3: "H", 4: "I"}[kind]
        entries.append((tag, kind, len(values), struct.pack(f"<{len(values)}{fmt}", *values)))

    add(256, width)
    add(257, height)
    add(258, *[bits] * bands)
    add(259, 1)
    add(262, photometric)
    add(273, 0, kind=4)
    add(277, bands)
    add(278, height)
    add(279, len(content), kind=4)
    add(284, 1)
    if extra_samples:
        add(338, *extra_samples)
    add(339, *[sample_format] * bands)
    entries.sort()
    directory = 8
    after = directory + 2 + 12 * len(entries) + 4
    blob, body = b"", b""
    start = after + sum(len(value) for *_, value in entries if len(value) > 4)
    for tag, kind, count, value in entries:
        if tag == 273:
            value = struct.pack("<I", start)
        if len(value) > 4:
            body += struct.pack("<HHII", tag, kind, count, after + len(blob))
            blob += value
        else:
            body += struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0")
    return b"II*\0" + struct.pack("<I", directory) + struct.pack("<H", len(entries)) + body + b"\0" * 4 + blob + content


APPLE = struct.pack(">II16sH", 0x00051607, 0x00020000, b"Mac OS X        ", 2) + bytes(4096 - 26)


def exif_jpeg(block: bytes, number: int = 0) -> bytes:
    """A JPEG with an APP1 block of these bytes."""
    whole = jpeg(number)
    return whole[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + whole[2:]


def base(out: Path) -> None:
    """base/: 60 good pictures; labelled/: two classes; big/: 40 of 128 px, so that loader processes are used."""
    fill(out / "base", 60)
    fill(out / "labelled" / "disc", 30, 0)
    fill(out / "labelled" / "square", 30, 1)
    fill(out / "big", 40, 0, side=128)


def r01(out: Path) -> None:
    fill(out / "photos", 60)


def r02(out: Path) -> None:
    def shard(file: Path, names: list[tuple[str, bytes]]) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(file, "w") as tar:
            for name, content in names:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))

    both = [("disc", 0), ("square", 1)]
    seg = [
        (f"{n:03d}{e}", c)
        for n in range(40)
        for e, c in (
            (".jpg", jpeg(n, n % 2)),
            (".seg.png", png(Image.new("L", (40, 40), 3))),
            (".cls", str(n % 2).encode()),
        )
    ]
    dots = [
        (f"img_{n}.v1.0{e}", c) for n in range(40) for e, c in ((".jpg", jpeg(n, n % 2)), (".cls", str(n % 2).encode()))
    ]
    same = [
        (f"scene.{n}{e}", c) for n in range(40) for e, c in ((".jpg", jpeg(n, n % 2)), (".cls", str(n % 2).encode()))
    ]
    as_json = [
        (f"{n:03d}{e}", c)
        for n in range(40)
        for e, c in ((".jpg", jpeg(n, n % 2)), (".json", json.dumps({"label": n % 2}).encode()))
    ]
    apple = [
        (f"./{k}/{p}{n:03d}.jpg", c)
        for k, kind in both
        for n in range(20)
        for p, c in (("._", APPLE), ("", jpeg(n, kind)))
    ]
    for name, content in {"seg": seg, "dots": dots, "same": same, "json": as_json, "apple": apple}.items():
        shard(out / f"{name}.tar", content)


def r03(out: Path) -> None:
    for kind, name in enumerate(("disc", "square")):
        fill(out / "x" / name, 20, kind)
        for number in range(4):
            (out / "x" / name / ".ipynb_checkpoints").mkdir(exist_ok=True)
            shutil.copy(
                out / "x" / name / f"{number:03d}.jpg",
                out / "x" / name / ".ipynb_checkpoints" / f"{number:03d}-checkpoint.jpg",
            )


def r04(out: Path) -> None:
    for kind, name in enumerate(("disc", "square")):
        fill(out / "x" / name, 20, kind)
        for number in range(20):
            (out / "x" / name / f"._{number:03d}.jpg").write_bytes(APPLE)
        (out / "x" / name / ".DS_Store").write_bytes(b"\0\0\0\1Bud1" + bytes(60))
    fill(out / "zip" / "photos", 40)
    (out / "zip" / "__MACOSX" / "photos").mkdir(parents=True)
    for number in range(40):
        (out / "zip" / "__MACOSX" / "photos" / f"._{number:03d}.jpg").write_bytes(APPLE)


def r06(out: Path) -> None:
    for kind, name in enumerate(("cat", "dog")):
        for part, side in enumerate(("left", "right")):
            fill(out / "x" / name / side, 15, kind, first=15 * part)
    for kind, name in enumerate(("cat", "dog")):
        fill(out / "one" / name / "images", 20, kind)
    for part in ("train", "test"):
        for kind, name in enumerate(("cat", "dog")):
            for number, side in enumerate(("2019", "2020")):
                fill(out / "split" / part / name / side, 8, kind, first=8 * number + 100 * (part == "test"))


def r07(out: Path) -> None:
    for train, test, name in (
        ("Training", "Testing", "kaggle"),
        ("Train", "Test", "capital"),
        ("seg_train", "seg_test", "seg"),
        ("train", "dev", "dev"),
        ("train", "eval", "eval"),
    ):
        for kind, label in enumerate(("disc", "square")):
            fill(out / name / train / label, 20, kind)
            fill(out / name / test / label, 8, kind, first=500)


def r08(out: Path) -> None:
    for name, where in (("flat", "test"), ("deep", "test/test")):
        for kind, label in enumerate(("disc", "square")):
            fill(out / name / "train" / label, 20, kind)
            fill(out / name / "val" / label, 8, kind, first=500)
        fill(out / name / where, 10, 0, first=900)


def parquet(
    file: Path, rows: list[tuple[bytes | None, str | None, int]], names: tuple[str, ...] = ("disc", "square")
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file.parent.mkdir(parents=True, exist_ok=True)
    features = {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
    meta = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table({
        "image": pa.array(
            [{"bytes": b, "path": p} for b, p, _ in rows], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        ),
        "label": pa.array([n for *_, n in rows], pa.int64()),
    }).replace_schema_metadata(meta)  # fmt: skip
    pq.write_table(table, file)


EXIFS = {
    "empty": b"Exif\0\0",
    "twice": b"Exif\0\0Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x01\0\0\0\0\0\0\0",
    "garbage": b"Exif\0\0" + bytes(range(40)),
    "cut": b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0\x01\0",
    "far": b"Exif\0\0II*\0\xff\xff\xff\x7f",
    "type": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x04\0\0\0abc\0\0\0\0\0",  # orientation as text
    "nine": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0\0\0\0\0",
    "xmp": b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta tiff:Orientation="x"/>',
}


def r10(out: Path) -> None:
    (out / "x").mkdir(parents=True)
    for number, (name, block) in enumerate(EXIFS.items()):
        (out / "x" / f"{name}.jpg").write_bytes(exif_jpeg(block, number))
    good = png()
    (out / "x" / "garbage.png").write_bytes(with_chunk(good, chunk(b"eXIf", bytes(range(40)))))
    (out / "x" / "empty.png").write_bytes(with_chunk(good, chunk(b"eXIf", b"")))
    fill(out / "x", 30, first=100)
    fill(out / "most", 20, first=100)
    for number in range(10):
        (out / "most" / f"e{number}.jpg").write_bytes(exif_jpeg(EXIFS["empty" if number % 2 else "garbage"], number))


def r11(out: Path) -> None:
    (out / "x").mkdir(parents=True)
    much = zlib.compress(b"<rdf:li>layer</rdf:li>" * 100_000)
    good = png()
    (out / "x" / "ztxt.png").write_bytes(with_chunk(good, chunk(b"zTXt", b"XML:com.adobe.xmp\0\0" + much)))
    (out / "x" / "itxt.png").write_bytes(with_chunk(good, chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + much)))
    (out / "x" / "iccp.png").write_bytes(with_chunk(good, chunk(b"iCCP", b"icc\0\0" + much)))
    fill(out / "x", 30, first=100)


def r13(out: Path) -> None:
    fill(out / "x", 30, first=100)
    lab = np.zeros((40, 40, 3), np.uint8)
    lab[..., 0], lab[..., 1:] = np.arange(40)[:, None] * 6, 128
    Image.frombytes("LAB", (40, 40), lab.tobytes()).save(out / "x" / "lab.tif")


def r15(out: Path) -> None:
    for name, ending in (("png12", "png"), ("tif12", "tif"), ("tif12rgb", "tif")):
        (out / name).mkdir(parents=True)
        for number in range(40):
            array = np.asarray(picture(number)).astype(np.uint16) * 16  # 0 to 4,080
            if name == "tif12rgb":
                (out / name / f"{number:03d}.{ending}").write_bytes(tiff(array, 2))
            else:
                Image.fromarray(array[..., 0]).save(out / name / f"{number:03d}.{ending}")


def r17(out: Path) -> None:
    for name in ("four", "four0", "thirteen", "thirteen16"):
        (out / name).mkdir(parents=True)
        for number in range(40):
            rgb = np.asarray(picture(number))
            nir = np.full((40, 40, 1), 20, np.uint8)  # water: dark in the infrared
            four = np.concatenate([rgb, nir], -1)
            many = np.concatenate([rgb] * 4 + [nir], -1)
            content = {
                "four": tiff(four, 2),
                "four0": tiff(four, 2, (0,)),
                "thirteen": tiff(many, 1, (0,) * 12),
                "thirteen16": tiff(many.astype(np.uint16) * 16, 1, (0,) * 12),
            }[name]
            (out / name / f"{number:03d}.tif").write_bytes(content)


def r18(out: Path) -> None:
    fill(out / "x", 12)
    for number in range(20, 60):
        (out / "x" / f"{number:03d}.jfif").write_bytes(jpeg(number))
    for number in range(60, 80):
        (out / "x" / f"{number:03d}.jpe").write_bytes(jpeg(number))
        picture(number).save(out / "x" / f"p{number:03d}.ppm")
        (out / "x" / f"{number:032x}").write_bytes(jpeg(number))
    (out / "only").mkdir()
    for number in range(40):
        (out / "only" / f"{number:03d}.jfif").write_bytes(jpeg(number))
    fill(out / "npy", 12)
    np.save(out / "npy" / "a.npy", np.asarray(picture(3)))
    (out / "npy" / "a.npy").rename(out / "npy" / "A.NPY")


def r19(out: Path) -> None:
    fill(out / "x", 30, first=100)
    for number in range(4):
        stream = io.BytesIO()
        picture(number).save(stream, "AVIF")
        (out / "x" / f"{number:03d}.jpg").write_bytes(stream.getvalue())
    (out / "x" / "heic.jpg").write_bytes(struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(200))
    stream = io.BytesIO()
    picture(9).save(stream, "JPEG2000")
    (out / "x" / "j2k.jpg").write_bytes(stream.getvalue())


def r20(out: Path) -> None:
    fill(out / "x", 30, first=100)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(0).resize((60, 40)).save(
        out / "x" / "camera.jpg", "MPO", save_all=True, append_images=[picture(1)], exif=exif
    )


def r21(out: Path) -> None:
    fill(out / "x", 40)
    names = [f"{number:03d}.jpg" for number in range(40)]
    (out / "x" / "bom.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(names).encode())
    (out / "x" / "utf16.txt").write_bytes("\r\n".join(names).encode("utf-16"))
    (out / "back").mkdir()
    (out / "back" / "list.txt").write_text("\n".join(rf"..\x\{name}" for name in names))
    (out / "x" / "quoted.txt").write_text("\n".join(f'"{name}"' for name in names))
    (out / "x" / "folders.txt").write_text(".\n")
    (out / "x" / "labels.csv").write_text("file,label\n" + "\n".join(f"{name},{n % 2}" for n, name in enumerate(names)))


def r23(out: Path) -> None:
    for kind, name in enumerate(("A$$AP", "cost_$5_or_$10", "x_$y^$", "plain")):
        fill(out / "x" / name, 16, kind)
    fill(out / "names", 30)
    for number, name in enumerate(("$$.jpg", "a$_$b.jpg", "a$\\frac$b.jpg", "$^$.jpg")):
        picture(number, 2).save(out / "names" / name, "JPEG")


def r24(out: Path) -> None:
    for kind, name in enumerate(("[red]", "[bold]x", "plain")):
        fill(out / "x" / name, 16, kind)
    for number, name in enumerate(("a[", "b]", "[link=x]")):
        (out / "deep" / name).mkdir(parents=True)
        picture(number).save(out / "deep" / name / "x.jpg")
    (out / "deep" / "a[").mkdir(exist_ok=True)
    picture(7).save(out / "deep" / "a[" / "closing].jpg")  # …/a[/closing].jpg
    fill(out / "deep", 20)
    (out / "deep" / "a[" / "broken].jpg").write_bytes(b"no picture")
    picture(8).save(out / "deep" / ":smile:.jpg")


def r26(out: Path) -> None:
    for kind, name in enumerate(("猫", "狗", "कुत्ता")):
        fill(out / "x" / name, 16, kind)


def r28(out: Path) -> None:
    fill(out / "photos", 40, side=128)
    (out / "script.py").write_text(
        "from pathlib import Path\n"
        "from openjepa import JEPA, Image, Pretrain, load, pretrain\n\n"
        'data = Image(root=("photos",), size=(32, 32), patch=4)\n'
        "method = JEPA(dim=192, depth=6, num_heads=3, predictor_dim=96, predictor_depth=4)\n"
        'run = pretrain(Pretrain(data, method, steps=20, batch_size=16, out=Path("runs/readme")))\n\n'
        "encoder = load(run)\n"
        "pictures = data.listing().paths[:4]\n"
        "print(encoder.features(pictures).shape)\n"
    )


def r32(out: Path) -> None:
    for count in (1, 2, 3, 5, 8):
        fill(out / f"few{count}", count)


def r34(out: Path) -> None:
    (out / "stub").mkdir(parents=True)
    (out / "stub" / "wandb.py").write_text(
        "import json, os\n\n\nclass Run:\n    def log(self, row, step=None):\n        pass\n\n\ndef init(**asked):\n"
        '    with open(os.environ["WANDB_SAID"], "a") as stream:\n'
        '        stream.write(json.dumps(asked, default=str) + "\\n")\n    return Run()\n'
    )


def r35(out: Path) -> None:
    for kind, name in enumerate(("disc", "square")):
        fill(out / "x" / name, 20, kind, "bmp")


def r36(out: Path) -> None:
    fill(out / "rare" / "disc", 40, 0)
    fill(out / "rare" / "square", 40, 1)
    fill(out / "rare" / "lone", 1, 2)
    for kind in range(3):
        fill(out / "tiny" / f"c{kind}", 3, kind)
    for kind in range(2):
        fill(out / "two" / f"c{kind}", 1, kind)


def r37(out: Path) -> None:
    for kind, name in enumerate(("disc", "square")):
        fill(out / "copy" / "train" / name, 20, kind)
    shutil.copytree(out / "copy" / "train", out / "copy" / "test")
    shutil.copytree(out / "copy" / "train", out / "link" / "train")
    (out / "link" / "test").symlink_to("train")


def r40(out: Path) -> None:
    import torch

    out.mkdir(parents=True, exist_ok=True)
    torch.save(
        {"classifier": {"weight": torch.zeros(3, 4)}, "opt": {}, "scaler": None, "epoch": 3, "lr": 0.1},
        out / "probe.pth.tar",
    )
    block = {
        f"module.backbone.blocks.0.{n}": torch.zeros(*s)
        for n, s in (("norm1.weight", (192,)), ("attn.qkv.weight", (576, 192)))
    }
    video = {
        "module.backbone.patch_embed.proj.weight": torch.zeros(192, 3, 2, 16, 16),
        "module.backbone.pos_embed": torch.zeros(1, 1568, 192),
        **block,
    }
    torch.save(
        {
            "encoder": video,
            "target_encoder": video,
            "predictor": {"module.backbone.predictor_embed.weight": torch.zeros(96, 192)},
            "epoch": 1,
        },
        out / "vjepa.pth.tar",
    )
    torch.save({"state_dict": {"backbone.conv1.weight": torch.zeros(64, 3, 7, 7)}}, out / "lightly.ckpt")
    torch.save(
        {"model": {"patch_embed.proj.weight": torch.zeros(192, 3, 16, 16), "cls_token": torch.zeros(1, 1, 192)}},
        out / "mae.pth",
    )


def r43(out: Path) -> None:
    fill(out / "flat", 20)


def r45(out: Path) -> None:
    for kind, name in enumerate(("disc", "square")):
        fill(out / "test" / "train" / name, 20, kind)
        fill(out / "train" / "test" / name, 8, kind)
        fill(out / "class" / "train" / name, 20, kind)
        fill(out / "class" / "test" / name, 8, kind)
        for part, count in (("test/test", 8), ("train/train", 20)):
            (out / part / name).mkdir(parents=True)
            for number in range(count):
                (out / part / name / f"{number:03d}.jpg").write_bytes(b"no picture")
    for file in (out / "class" / "train" / "square").iterdir():
        file.write_bytes(b"no picture")


MAKERS = {name.upper(): make for name, make in list(globals().items()) if name.startswith("r") and name[1:].isdigit()}


def main(makers=MAKERS) -> None:
    out, asked = Path(sys.argv[1]), sys.argv[2:] or [*makers, "base"]
    for name in asked:
        folder = out / name if name != "base" else out
        if name != "base" and folder.exists():
            shutil.rmtree(folder)
        (base if name == "base" else makers[name])(folder)


if __name__ == "__main__":
    main()
