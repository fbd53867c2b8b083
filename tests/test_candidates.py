"""Encoders of others: Hugging Face's, and anyone's by a function."""

import json
import re
from pathlib import Path

import pytest
import torch

from openjepa.cli.compare import compare
from openjepa.cli.settings import Compare
from openjepa.core.errors import UserError
from openjepa.evaluation.probes import attentive
from openjepa.evaluation.probes.finetune_recipes import FINETUNE_RECIPES, FinetuneRecipe
from openjepa.evaluation.settings import LabeledData, ProbeSettings
from openjepa.interop.adapters import load_any
from openjepa.interop.imported import IMAGENET_MEAN_STD
from openjepa.interop.load import load
from openjepa.interop.pretrained import untrained_encoder
from openjepa.nn.positions import sincos
from openjepa.training.config import Pretrain
from openjepa.viz.scores import measure_and_publish
from tests.conftest import METHODS, MODALITIES, replace

DOCS = Path(__file__).parents[1] / "docs"
SIZES = {"hidden_size": 48, "num_hidden_layers": 5, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}


def test_the_same_weights_in_hugging_faces_clothes_score_the_same(tmp_path, photos, monkeypatch):
    transformers = pytest.importorskip("transformers", reason="the extra openjepa[hf] is not installed")
    from tests.test_parity import state_for_encoder

    torch.manual_seed(
        0
    )  # features agree within 1e-5: for some weights an image on the edge of two classes falls otherwise
    sizes = {"hidden_size": 48, "num_hidden_layers": 5, "num_attention_heads": 2, "intermediate_size": 192}
    model = transformers.IJepaModel(transformers.IJepaConfig(image_size=32, patch_size=4, layer_norm_eps=1e-6, **sizes))
    deep = replace(METHODS["released"], encoder=replace(METHODS["released"].encoder, depth=5))
    config = replace(
        Pretrain(data=MODALITIES["image"], method=deep),
        data=replace(MODALITIES["image"], mean=IMAGENET_MEAN_STD[0], std=IMAGENET_MEAN_STD[1]),
    )
    this = untrained_encoder(config)
    with torch.no_grad():
        positions = this.data.tokens(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).pos
        model.embeddings.position_embeddings.copy_(sincos(positions, 48))
        this.network.load_state_dict(state_for_encoder(model.state_dict(), 5))
    model.save_pretrained(tmp_path / "theirs")
    theirs = load_any(str(tmp_path / "theirs"))
    assert theirs.data == replace(this.data, root=())
    view = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        for mine, other in zip(this.encode(view), theirs.encode(view), strict=True):
            torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-4)

    monkeypatch.setattr(attentive, "EPOCHS", 2)
    monkeypatch.setitem(FINETUNE_RECIPES, "default", FinetuneRecipe(epochs=2, batch_size=16, drop_path=0.0))
    settings = ProbeSettings(
        data=LabeledData((str(photos),)), device="cpu", precision="fp32", shots=(4.0,),
        probes=("logistic", "linear", "knn", "lowshot", "attentive", "finetune"),
    )  # fmt: skip
    scores = {}
    for each in (this, theirs):
        found = measure_and_publish([replace(each, name="x")], settings, tmp_path / "out", pixels=False)
        scores[each is this] = [(score.metric, score.value) for score in found]
    assert len(scores[True]) == 6 and scores[True] == scores[False]


@pytest.mark.parametrize(("kind", "registers"), [("ViT", 0), ("ViTMAE", 0), ("Dinov2", 0), ("Dinov2WithRegisters", 4)])
def test_the_class_token_of_a_peer_is_its_pooled_feature(kind, registers, tmp_path):
    transformers = pytest.importorskip("transformers", reason="the extra openjepa[hf] is not installed")
    model = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**SIZES)).eval()
    model.save_pretrained(tmp_path)
    colours = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.1, 0.3]}
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}, **colours})
    )
    this, view = load_any(str(tmp_path)), torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    assert list(this.data.mean) == colours["image_mean"] and list(this.data.std) == colours["image_std"]
    if kind == "ViTMAE":  # in its own clothes it hides patches at random
        model.config.mask_ratio = 0.0
    with torch.no_grad():
        seen, again = this.encode(view), this.encode(view)
        whole = model(pixel_values=this.data.normalize(view)).last_hidden_state
    assert seen.patches.shape == (2, 16, 48) and seen.last4.shape == (2, 4 * 48)
    assert whole.shape[1] == 1 + registers + 16
    torch.testing.assert_close(seen.last, whole[:, 0], atol=1e-5, rtol=1e-4)
    assert torch.equal(seen.patches, again.patches)
    if kind != "ViTMAE":  # whose patches come back shuffled
        torch.testing.assert_close(seen.patches, whole[:, 1 + registers :], atol=1e-5, rtol=1e-4)


def test_images_for_a_folder_of_hugging_face_are_normalized_as_it_states(tmp_path):
    transformers = pytest.importorskip("transformers", reason="the extra openjepa[hf] is not installed")
    sizes = {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 192}
    config = transformers.IJepaConfig(image_size=32, patch_size=8, layer_norm_eps=1e-6, **sizes)
    model = transformers.IJepaModel(config)
    with torch.no_grad():
        positions = replace(MODALITIES["image"], patch=8).tokens(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).pos
        model.embeddings.position_embeddings.copy_(sincos(positions, 48))
    model.save_pretrained(tmp_path)
    stated = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.1, 0.3]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(stated))
    for data in (load_any(str(tmp_path)).data, load(tmp_path).data):
        assert list(data.mean) == stated["image_mean"] and list(data.std) == stated["image_std"]


def test_a_config_that_is_cut_short_is_one_sentence(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "ijepa", ')
    with pytest.raises(UserError, match="is the download complete"):
        load_any(str(tmp_path))


def test_an_encoder_of_anyones_is_measured(tmp_path, photos, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "import torch, openjepa\n"
        "def encoder():\n"
        "    data = openjepa.Image(size=(16, 16), patch=16, mean=(.5,) * 3, std=(.5,) * 3)\n"
        "    network = torch.nn.Identity()\n"
        "    return openjepa.PretrainedEncoder('colors', data, network, lambda view: (data.tokens(view).x,))\n"
        "def nothing():\n"
        "    return 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    settings = Compare(
        runs=("mine:encoder",), data=LabeledData((str(photos),)), probes=("knn", "lowshot"), shots=(1.0,), device="cpu",
        out=tmp_path / "out",
    )  # fmt: skip
    scores = compare(settings)
    assert [(each.features, each.metric) for each in scores[:2]] == [
        ("mine:encoder", "kNN"),
        ("mine:encoder", "1 a class"),
    ]
    with pytest.raises(UserError, match="returned a int"):
        compare(replace(settings, runs=("mine:nothing",)))
    with pytest.raises(UserError, match="cannot import"):
        compare(replace(settings, runs=("mine:missing",)))
    with pytest.raises(UserError, match="is not an encoder"):
        compare(replace(settings, runs=("nowhere",)))


def test_the_documented_encoder_is_measured(tmp_path, photos, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "reference" / "evaluation.md").read_text(), re.DOTALL)
    (tmp_path / "documented.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    data = LabeledData((str(photos),))
    asked = Compare(runs=("documented:encoder",), data=data, probes=("knn",), out=tmp_path / "out", device="cpu")
    assert [each.features for each in compare(asked)] == ["documented:encoder", "raw pixels"]
