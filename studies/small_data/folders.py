"""Write the labeled folders of the study: handwritten digits, photographs, rendered scenes, clothes.

    python studies/small_data/folders.py digits --out folders/digits
    python studies/small_data/folders.py photos --source photos/ --out folders/photos
    python studies/small_data/folders.py scenes --out folders/scenes
    python studies/small_data/folders.py clothes --source fashion-mnist/ --out folders/clothes

Each folder has train/CLASS/ and test/CLASS/. Digits are scikit-learn's 1,797, enlarged from 8×8. The class of a crop
is the photograph that it comes from; the class of a scene is its number of objects. Clothes are Fashion-MNIST (Xiao
et al., 2017), from its four files as released (on Debian `apt install dataset-fashion-mnist`), with its own test
part; of the others every fifth image is test data.
"""

import argparse
import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

CROPS, SIDE, SHARE = 50, 96, 0.5  # crops per photograph; pixels; fraction of the shorter side
SCENES = 4000
CLOTHES = ["T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Boot"]
Picture = tuple[str, str, Image.Image]  # "train", "test" or "" (every fifth is test); class; image


def digits(_: Path | None) -> Iterator[Picture]:
    from sklearn.datasets import load_digits

    for image, label in zip(*load_digits(return_X_y=True), strict=True):
        gray = Image.fromarray((image.reshape(8, 8) * 255 / 16).astype(np.uint8))
        yield "", str(label), gray.resize((32, 32), Image.Resampling.BICUBIC)


def photos(source: Path | None) -> Iterator[Picture]:
    """Yield random crops of one size from every photograph; crops may overlap."""
    assert source
    rng = np.random.default_rng(0)
    for file in sorted(source.iterdir()):
        with Image.open(file) as opened:
            picture = opened.convert("RGB")
        side = int(SHARE * min(picture.size))
        for _ in range(CROPS):
            left, top = (int(rng.integers(0, length - side + 1)) for length in picture.size)
            yield "", file.stem, picture.crop((left, top, left + side, top + side)).resize((SIDE, SIDE))


def scenes(_: Path | None) -> Iterator[Picture]:
    from openjepa.data.synthetic.scenes import render

    rendered = render(SCENES, (48, 48), 0)
    for image, count in zip(rendered.image, rendered.count.tolist(), strict=True):
        yield "", str(count), Image.fromarray(image.permute(1, 2, 0).numpy())


def clothes(source: Path | None) -> Iterator[Picture]:
    assert source
    for part, name in (("train", "train"), ("test", "t10k")):
        images = idx(source / f"{name}-images-idx3-ubyte.gz")
        for image, label in zip(images, idx(source / f"{name}-labels-idx1-ubyte.gz"), strict=True):
            yield part, CLOTHES[label], Image.fromarray(image)


def idx(file: Path) -> np.ndarray:
    """Read an array in LeCun's IDX format: byte 3 is the number of axes; their lengths follow, four bytes each."""
    content = gzip.decompress(file.read_bytes())
    sizes = np.frombuffer(content, ">u4", count=content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(sizes)


def main() -> None:
    kinds = {kind.__name__: kind for kind in (digits, photos, scenes, clothes)}
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kind", choices=kinds)
    parser.add_argument("--source", type=Path, help="folder of the photographs, or of the clothes' files")
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
