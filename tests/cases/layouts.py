"""The labeled layouts that people download: each function writes one of two classes into a folder."""

import csv
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

from tests.cases.inputs import fill, jpeg, parquet, picture

CLASSES = ("disc", "square")


def table(file: Path, header: tuple[str, ...], rows: list[tuple]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header, *rows])


def mixed(folder: Path, count: int = 40) -> list[tuple[str, str]]:
    """Write pictures of both classes into one folder; return name and class of each."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        picture(number, number % 2).save(folder / f"{number:03d}.jpg")
    return [(f"{number:03d}.jpg", CLASSES[number % 2]) for number in range(count)]


def image_folder(out: Path) -> None:
    for part, count in (("train", 20), ("test", 8)):
        for kind, name in enumerate(CLASSES):
            fill(out / part / name, count, kind, first=500 * (part == "test"))


def nested_image_folder(out: Path) -> None:
    for kind, name in enumerate(CLASSES):
        for number, site in enumerate(("left", "right")):
            fill(out / name / site / "2019", 10, kind, first=10 * number)


def class_then_split(out: Path) -> None:
    for kind, name in enumerate(CLASSES):
        fill(out / name / "train", 20, kind)
        fill(out / name / "test", 8, kind, first=500)


def kaggle(out: Path) -> None:
    rows = mixed(out / "train")
    fill(out / "test", 10, first=900)
    table(out / "train.csv", ("id", "breed"), [(name.removesuffix(".jpg"), label) for name, label in rows])
    table(out / "sample_submission.csv", ("id", "breed"), [(f"{number}", "disc") for number in range(900, 910)])


def kaggle_one_hot(out: Path) -> None:
    rows = mixed(out / "images")
    cells = [(name.removesuffix(".jpg"), float(label == "disc"), float(label == "square")) for name, label in rows]
    table(out / "GroundTruth.csv", ("image", "disc", "square"), cells)


def huggingface(out: Path) -> None:
    for part, count in (("train", 40), ("test", 16)):
        table(out / part / "metadata.csv", ("file_name", "label"), mixed(out / part, count))


def huggingface_lines(out: Path) -> None:
    rows = mixed(out / "images")
    lines = [json.dumps({"file_name": f"images/{name}", "label": label}) for name, label in rows]
    (out / "metadata.jsonl").write_text("\n".join(lines))


def cub(out: Path) -> None:
    rows = []
    for kind, name in enumerate(CLASSES):
        fill(out / "images" / f"{kind + 1:03d}.{name}", 20, kind)
        rows += [(f"{kind + 1:03d}.{name}/{number:03d}.jpg", kind + 1) for number in range(20)]
    (out / "images.txt").write_text("".join(f"{n} {path}\n" for n, (path, _) in enumerate(rows, 1)))
    (out / "image_class_labels.txt").write_text("".join(f"{n} {kind}\n" for n, (_, kind) in enumerate(rows, 1)))
    (out / "classes.txt").write_text("".join(f"{n} {n:03d}.{name}\n" for n, name in enumerate(CLASSES, 1)))
    (out / "train_test_split.txt").write_text("".join(f"{n} {int(n % 4 > 0)}\n" for n in range(1, 41)))


def table_beside(out: Path) -> None:
    rows = mixed(out / "images")
    table(out / "labels.csv", ("file", "label"), [(f"images\\{name}", label) for name, label in rows])


def webdataset(out: Path) -> None:
    out.mkdir(parents=True)
    for part, count in (("train-000000", 40), ("test-000000", 16)):
        with tarfile.open(out / f"{part}.tar", "w") as tar:
            for number in range(count):
                for suffix, content in ((".jpg", jpeg(number, number % 2)), (".cls", CLASSES[number % 2].encode())):
                    member = tarfile.TarInfo(f"{number:03d}{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))


def parquet_shards(out: Path) -> None:
    for part, count in (("train-00000-of-00001", 40), ("test-00000-of-00001", 16)):
        parquet(out / "data" / f"{part}.parquet", [(jpeg(n, n % 2), None, n % 2) for n in range(count)])


def coco(out: Path) -> None:
    rows = mixed(out / "images")
    content = {
        "images": [{"id": number, "file_name": name} for number, (name, _) in enumerate(rows)],
        "annotations": [
            {"id": n, "image_id": n, "category_id": CLASSES.index(label) + 1} for n, (_, label) in enumerate(rows)
        ],
        "categories": [{"id": 1, "name": "disc"}, {"id": 2, "name": "square"}],
    }
    (out / "annotations").mkdir()
    (out / "annotations" / "instances.json").write_text(json.dumps(content))


def flat_names(out: Path) -> None:
    out.mkdir(parents=True)
    for kind, name in enumerate(CLASSES):
        for number in range(20):
            picture(number, kind).save(out / f"{name}.{number}.jpg")


LAYOUTS: dict[str, Callable[[Path], None]] = {
    make.__name__: make
    for make in (
        image_folder, nested_image_folder, class_then_split, kaggle, kaggle_one_hot, huggingface, huggingface_lines,
        cub, table_beside, webdataset, parquet_shards, coco, flat_names,
    )
}  # fmt: skip
