"""Writes labelled folders that the study is tried on: handwritten digits, photographs, rendered scenes, clothes.

    python benchmarks/study/folders.py digits --out folders/digits
    python benchmarks/study/folders.py photos --source photos/ --out folders/photos
    python benchmarks/study/folders.py scenes --out folders/scenes
    python benchmarks/study/folders.py clothes --source fashion-mnist/ --out folders/clothes

Each has train/CLASS/ and test/CLASS/. Digits are scikit-learn's 1,797, enlarged from 8×8; a crop's class is the photograph
that it is from; a scene's is the number of its objects. Clothes are Fashion-MNIST's (Xiao et al., 2017), from its four files
as released (on Debian `apt install dataset-fashion-mnist`), with the test part that is its own; of the others each fifth.
"""

import argparse
import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

CROPS, SIDE, SHARE = 50, 96, 0.5  # of each photograph; in pixels; of its shorter side
SCENES = 4000
CLOTHES = ["T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Boot"]
Picture = tuple[str, str, Image.Image]  # its part, "" where that goes by turns; its class; what is seen


def digits(_: Path | None) -> Iterator[Picture]:
    from sklearn.datasets import load_digits

    for image, label in zip(*load_digits(return_X_y=True), strict=True):
        grey = Image.fromarray((image.reshape(8, 8) * 255 / 16).astype(np.uint8))
        yield "", str(label), grey.resize((32, 32), Image.Resampling.BICUBIC)


def photos(source: Path | None) -> Iterator[Picture]:
    """Crops of the same size in places of their own; those of a photograph may overlap."""
    assert source
    chance = np.random.default_rng(0)
    for file in sorted(source.iterdir()):
        with Image.open(file) as opened:
            picture = opened.convert("RGB")
        side = int(SHARE * min(picture.size))
        for _ in range(CROPS):
            left, top = (int(chance.integers(0, length - side + 1)) for length in picture.size)
            yield "", file.stem, picture.crop((left, top, left + side, top + side)).resize((SIDE, SIDE))


def scenes(_: Path | None) -> Iterator[Picture]:
    from openjepa.data.synthetic.scenes import render

    drawn = render(SCENES, (48, 48), 0)
    for image, count in zip(drawn.image, drawn.count.tolist(), strict=True):
        yield "", str(count), Image.fromarray(image.permute(1, 2, 0).numpy())


def clothes(source: Path | None) -> Iterator[Picture]:
    assert source
    for part, name in (("train", "train"), ("test", "t10k")):
        images = idx(source / f"{name}-images-idx3-ubyte.gz")
        for image, label in zip(images, idx(source / f"{name}-labels-idx1-ubyte.gz"), strict=True):
            yield part, CLOTHES[label], Image.fromarray(image)


def idx(file: Path) -> np.ndarray:
    """Bytes as LeCun's format has them: a fourth byte that says how many sizes follow, each of four bytes."""
    held = gzip.decompress(file.read_bytes())
    sizes = np.frombuffer(held, ">u4", count=held[3], offset=4)
    return np.frombuffer(held, np.uint8, offset=4 + 4 * held[3]).reshape(sizes)


def main() -> None:
    kinds = {kind.__name__: kind for kind in (digits, photos, scenes, clothes)}
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kind", choices=kinds)
    parser.add_argument("--source", type=Path, help="of photographs, or of clothes")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.kind in ("photos", "clothes") and not (options.source and options.source.is_dir()):
        parser.error(f"{options.kind} are made from files: give --source their folder")
    written: dict[str, int] = {}
    for part, label, picture in kinds[options.kind](options.source):
        number = written[label] = written.get(label, 0) + 1
        folder = options.out / (part or ("test" if number % 5 == 0 else "train")) / label
        folder.mkdir(parents=True, exist_ok=True)
        picture.save(folder / f"{number:05d}.png")
    print(f"{sum(written.values()):,} pictures of {len(written)} classes in {options.out}")


if __name__ == "__main__":
    main()
