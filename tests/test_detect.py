"""The modality of a run comes from its files: suffix, and of arrays type of value and number of axes."""

import numpy as np
import pytest
from PIL import Image as Pillow

from openjepa.cli.main import main
from openjepa.cli.parsing import default_settings
from openjepa.core.errors import UserError
from openjepa.recipes.detect import detect_modality


def save(folder, name, array):
    folder.mkdir(exist_ok=True)
    np.save(folder / name, array)
    return (str(folder),)


def test_an_array_is_told_by_its_values_and_axes(tmp_path):
    assert detect_modality(save(tmp_path / "a", "x.npy", np.zeros((8, 8, 3), np.uint8))) == "image"
    assert detect_modality(save(tmp_path / "b", "x.npy", np.zeros((4, 2, 64), np.float32))) == "series"
    with pytest.raises(UserError, match=r"ambiguous \(image reads .*, series reads .*--modality image or --modality"):
        save(tmp_path / "a", "y.npy", np.zeros((4, 2, 64), np.float32))
        detect_modality((str(tmp_path / "a"),))


def test_a_table_of_labels_beside_images_does_not_matter(tmp_path):
    for number in range(8):
        Pillow.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    (tmp_path / "labels.csv").write_text("file,label\n0.png,1\n")
    assert detect_modality((str(tmp_path),)) == "image"
    (tmp_path / "list.txt").write_text("0.png\n1.png\n")
    assert detect_modality((str(tmp_path / "list.txt"),)) == "image"


def test_classes_are_chosen_by_name_and_keep_what_they_share():
    config, rest = default_settings(["cifar10", "--method", "mae", "--masks=random", "--steps", "3"])
    assert (type(config.method).__name__, type(config.masks).__name__) == ("MAE", "Random")
    assert config.method.encoder.dim == 192 and rest == ["--steps", "3"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--method"],
            "--method needs a name: choose one of actor, cloning, cnn-jepa, cnn-vicreg, conditioned, critic, decoder, ",
        ),
        (["--method", "jepp"], "unknown method 'jepp': did you mean jepa? choose one of"),
        (["--masks.sampler", "random"], "--masks.sampler is now --masks: type --masks random"),
        (["--method.standardize"], "--method.standardize is now --method.target-transforms standardize"),
        (["--method.dim", "192"], "--method.dim is now --method.encoder.dim: type --method.encoder.dim 192"),
    ],
)
def test_a_wrong_choice_is_one_sentence(arguments, sentence, capsys):
    assert main(["pretrain", "cifar10", *arguments]) == 1
    assert sentence in capsys.readouterr().err


def test_a_resumed_run_keeps_its_classes(tiny, tmp_path, capsys):
    from openjepa.training.run import pretrain

    pretrain(tiny)
    assert main(["pretrain", "--out", str(tiny.out), "--resume", "--method", "mae"]) == 1
    assert "was started with --method jepa, not mae: leave --method out" in capsys.readouterr().err


def test_files_of_another_kind_behind_many_images_are_counted(tmp_path):
    """Also if more images than are looked at come first in the tree."""
    for folder, suffix in (("a_frames", ".jpg"), ("clips", ".mp4")):
        (tmp_path / folder).mkdir()
        for number in range(100):
            (tmp_path / folder / f"{number}{suffix}").touch()
    with pytest.raises(UserError, match=r"image reads .*\.jpg, video reads .*\.mp4.*--modality image or"):
        detect_modality((str(tmp_path),))


def test_help_lists_the_flags_of_the_files_that_are_named(tmp_path, capsys):
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    for root, flag in ((tmp_path, "--data.hop"), (tmp_path / "nothing", "--data.crop-scale")):
        with pytest.raises(SystemExit):
            main(["pretrain", "--data.root", str(root), "--help"])
        assert flag in capsys.readouterr().out
