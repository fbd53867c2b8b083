"""V-JEPA 2 in Hugging Face's layout: encoder and predictor equal the transformers library's, round trips are exact."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import openjepa
from openjepa.cli.convert import convert
from openjepa.cli.export import export
from openjepa.cli.settings import Convert, Export
from openjepa.core.errors import UserError
from openjepa.core.types import Tokens
from openjepa.interop.adapters import load_any
from openjepa.interop.imported import empty_network
from openjepa.interop.key_maps import check_tensors, empty_tensors
from openjepa.interop.load import load
from openjepa.interop.pretrained import PretrainedEncoder
from openjepa.interop.vjepa2 import to_external
from openjepa.masking.tube import Tube
from openjepa.methods.jepa import JEPA
from openjepa.modalities.video import Video
from openjepa.nn.predictor import PredictorConfig
from openjepa.nn.vit import ViTConfig
from openjepa.recipes.auto import AutoConfig, start_from_run
from openjepa.recipes.registry import load_recipe, make_recipe
from openjepa.training.config import Pretrain, load_config
from openjepa.training.run_folder import ENCODER_FILE, PREDICTOR_FILE, Provenance, initialize_from, write_weights
from openjepa.training.stages import Stages
from tests.conftest import replace

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

SIZES = {
    "patch_size": 16,
    "tubelet_size": 2,
    "frames_per_clip": 4,
    "hidden_size": 128,
    "num_attention_heads": 2,
    "num_hidden_layers": 3,
    "pred_hidden_size": 64,
    "pred_num_attention_heads": 2,
    "pred_num_hidden_layers": 2,
    "pred_num_mask_tokens": 3,
}  # fmt: skip  heads of 64 in the encoder: 60 of their features are rotated


def reference(crop_size: int = 64, **changes):
    """Return transformers' network with random weights, mask tokens, norms and biases too."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.VJEPA2Model(transformers.VJEPA2Config(**SIZES | {"crop_size": crop_size} | changes)).eval()
        for parameter in model.parameters():
            parameter.data.add_(torch.randn(parameter.shape) * 0.1)
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("vjepa2")
    reference().save_pretrained(path)
    return path


def clips(frames: int, height: int, width: int) -> torch.Tensor:
    """Return normalized clips B F C H W."""
    return torch.randn(2, frames, 3, height, width, generator=torch.Generator().manual_seed(1))


def tokens_of(encoder: PretrainedEncoder, inputs: torch.Tensor) -> Tokens:
    """Return the raw tokens of clips whose positions count cells from 0, as those of transformers."""
    data = replace(encoder.data, frames=inputs.shape[1], size=tuple(inputs.shape[3:]))
    return data.input_tokens(inputs)


def position_numbers(frames: int, rows: int, columns: int, side: int) -> torch.Tensor:
    """Return the number of each token of a grid within a larger grid of frames with `side` rows and columns."""
    t, y, x = torch.meshgrid(torch.arange(frames), torch.arange(rows), torch.arange(columns), indexing="ij")
    return ((t * side + y) * side + x).flatten().expand(2, -1)


def encode_at(model, inputs: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Return the features of transformers' own layers for tokens at these positions."""
    x = model.encoder.embeddings(inputs)
    for layer in model.encoder.layer:
        x = layer(x, numbers)[0]
    return model.encoder.layernorm(x)


@pytest.mark.parametrize("frames", [4, 8])
def test_encoder_equals_transformers_on_square_clips_of_any_length(folder, frames):
    ours, inputs = load(folder), clips(frames, 64, 64)
    expected = reference()(inputs, skip_predictor=True).last_hidden_state
    (features,) = ours.encoder(tokens_of(ours, inputs))
    torch.testing.assert_close(features.x, expected, atol=1e-5, rtol=0)


def test_encoder_equals_transformers_at_another_square_size_that_its_config_states(folder):
    ours, inputs = load(folder), clips(4, 96, 96)
    expected = reference(crop_size=96)(inputs, skip_predictor=True).last_hidden_state
    (features,) = ours.encoder(tokens_of(ours, inputs))
    torch.testing.assert_close(features.x, expected, atol=1e-5, rtol=0)
    wrong = reference()(inputs, skip_predictor=True).last_hidden_state  # it counts rows of crop_size, whatever it gets
    assert (features.x - wrong).abs().max() > 1e-3


@pytest.mark.parametrize(("height", "width"), [(64, 96), (96, 64)])
def test_encoder_equals_transformers_layers_on_clips_that_are_not_square(folder, height, width):
    """The model takes rows of `crop_size` for granted; its layers, given the true positions, do not."""
    ours, model, inputs = load(folder), reference(crop_size=96), clips(8, height, width)
    expected = encode_at(model, inputs, position_numbers(4, height // 16, width // 16, 6))
    (features,) = ours.encoder(tokens_of(ours, inputs))
    torch.testing.assert_close(features.x, expected, atol=1e-5, rtol=0)
    assert (features.x - model(inputs, skip_predictor=True).last_hidden_state).abs().max() > 1e-3


@pytest.mark.parametrize(("height", "width"), [(96, 96), (64, 96)])
def test_predictor_equals_transformers_with_masks_in_any_order(folder, height, width):
    ours, model, inputs = load(folder), reference(crop_size=96), clips(8, height, width)
    tokens = tokens_of(ours, inputs)
    generator = torch.Generator().manual_seed(2)
    order = torch.stack([torch.randperm(tokens.x.shape[1], generator=generator) for _ in range(2)])
    context, target = order[:, :20], order[:, 20:50]
    numbers = position_numbers(4, height // 16, width // 16, 6)
    features = torch.zeros(2, int(numbers.max()) + 1, 128)  # of a square grid: the features of some cells are given
    features.scatter_(1, numbers[..., None].expand(-1, -1, 128), encode_at(model, inputs, numbers))
    expected = model.predictor(features, [numbers.gather(1, context)], [numbers.gather(1, target)]).last_hidden_state
    (encoded,) = ours.encoder(tokens)
    assert ours.predictor is not None
    where = tokens.take(target).pos[:, None]
    predicted = ours.predictor(encoded.take(context), where, mask_sets=(1,))  # transformers uses mask token 1
    torch.testing.assert_close(predicted[:, 0], expected, atol=1e-5, rtol=0)
    other = ours.predictor(encoded.take(context), where, mask_sets=(2,))
    assert (other - predicted).abs().max() > 1e-3


def test_the_whole_model_with_masks_equals_ours(folder):
    ours, inputs = load(folder), clips(4, 64, 64)
    context, target = torch.arange(0, 12).expand(2, -1), torch.arange(12, 32).expand(2, -1)
    output = reference()(inputs, context_mask=[context], target_mask=[target])
    (encoded,) = ours.encoder(tokens_of(ours, inputs))
    assert ours.predictor is not None
    predicted = ours.predictor(encoded.take(context), encoded.pos[:, None, 12:32], mask_sets=(1,))[:, 0]
    torch.testing.assert_close(predicted, output.predictor_output.last_hidden_state, atol=1e-5, rtol=0)


def test_import_and_export_give_the_same_files_tensors(folder, tmp_path):
    convert(Convert(source=str(folder), out=tmp_path / "ours"))
    out = export(Export(run=str(tmp_path / "ours"), format="hf", out=tmp_path / "again"))
    before, after = (load_file(each / "model.safetensors") for each in (folder, out))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    ours = json.loads((out / "config.json").read_text(encoding="utf-8"))
    theirs = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert {name: theirs[name] for name in ours} == ours
    again = load(out)
    assert again.data == load(folder).data and again.fingerprint == load(folder).fingerprint


OURS = Video(frames=4, stride=3, size=(32, 32), mean=(0.4, 0.45, 0.5), std=(0.2, 0.25, 0.3), eval_crop="margin")
METHOD = JEPA(ViTConfig(48, 2, 2, positions="rope_vjepa2"), PredictorConfig(24, 2, 3, mask_tokens=2), "l1")


def write_ours(folder: Path, data: Video = OURS, method: JEPA = METHOD) -> Path:
    """Write a folder of ours with random weights in every tensor."""
    net = method.build(data, seed=3)
    with torch.no_grad():
        for number, parameter in enumerate(net.parameters()):
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)) * 0.1)
    states = {ENCODER_FILE: net.target_encoder.state_dict(), PREDICTOR_FILE: net.predictor.state_dict()}
    return write_weights(folder, states, Pretrain(data, method, Tube()), 7, Provenance())


@pytest.mark.parametrize("pixel_loss_weight", [0.0, 1.0])
def test_transformers_loads_our_export_with_the_same_features_and_predictions(tmp_path, pixel_loss_weight):
    method = replace(METHOD, pixel_loss_weight=pixel_loss_weight)
    ours = load(write_ours(tmp_path / "ours", method=method))
    out = export(Export(run=str(tmp_path / "ours"), format="hf", out=tmp_path / "hf"))
    model, report = transformers.VJEPA2Model.from_pretrained(out, output_loading_info=True)
    assert not any(report.values())
    view = torch.randint(0, 256, (2, 4, 3, 32, 32), generator=torch.Generator().manual_seed(1)).byte()
    context, target = torch.arange(0, 5), torch.arange(5, 8)
    with torch.no_grad():
        inputs = ours.data.normalize(view)
        output = model(inputs, context_mask=[context.expand(2, -1)], target_mask=[target.expand(2, -1)])
        tokens = ours.data.tokens(view)
        (features,) = ours.encoder(tokens)
        assert ours.predictor is not None
        predicted = ours.predictor(features.take(context.expand(2, -1)), tokens.pos[:, None, 5:], mask_sets=(1,))
    torch.testing.assert_close(features.x, output.last_hidden_state, atol=1e-5, rtol=0)
    expected = output.predictor_output.last_hidden_state
    torch.testing.assert_close(predicted[:, 0, :, :48], expected, atol=1e-5, rtol=0)
    back = load(out)
    assert back.data == ours.data and torch.equal(back.pooled(view), ours.pooled(view))
    assert "AutoVideoProcessor" in (out / "README.md").read_text(encoding="utf-8")


def test_the_processor_states_size_mean_and_std_and_the_distance_of_frames(tmp_path):
    write_ours(tmp_path / "ours")
    out = export(Export(run=str(tmp_path / "ours"), format="hf", out=tmp_path / "hf"))
    processor = json.loads((out / "video_preprocessor_config.json").read_text(encoding="utf-8"))
    assert processor["image_mean"] == [0.4, 0.45, 0.5] and processor["image_std"] == [0.2, 0.25, 0.3]
    assert processor["crop_size"] == {"height": 32, "width": 32} and processor["size"] == {"shortest_edge": 36}
    assert processor["video_processor_type"] == "VJEPA2VideoProcessor" and processor["frame_stride"] == 3


def test_a_classifier_on_top_is_left_out_and_what_is_not_stated_is_noted(folder, tmp_path):
    tensors = {f"vjepa2.{name}": x for name, x in load_file(folder / "model.safetensors").items()}
    tensors |= {"pooler.query_tokens": torch.zeros(1, 1, 128), "classifier.weight": torch.zeros(5, 128)}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    encoder = load(tmp_path)
    assert encoder.fingerprint == load(folder).fingerprint
    assert encoder.data.fps == 4 and encoder.data.mean == (0.485, 0.456, 0.406)
    assert [note.split()[0] for note in encoder.provenance.notes] == ["ImageNet's", "clips"]


def test_evaluation_reads_a_folder_with_our_own_network(folder):
    assert load_any(str(folder)).fingerprint == load(folder).fingerprint
    assert load_any(str(folder)).data.tubelets == (2, 4, 4)


def test_features_and_predictions_of_clips_in_memory(folder):
    encoder = openjepa.load(folder)
    clip = torch.randint(0, 256, (4, 3, 64, 64), generator=torch.Generator().manual_seed(0)).byte()
    assert encoder.features(clip, "patches").shape == (1, 32, 128)
    first, second = (encoder.predict(clip, range(16), [20, 21], mask_token=number) for number in (0, 1))
    assert first.shape == (1, 2, 128) and not torch.allclose(first, second)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "silu"}, "hidden_act must be gelu, got silu"),
        ({"qkv_bias": False}, "qkv_bias must be True, got False"),
        ({"pred_mlp_ratio": 2.0}, "pred_mlp_ratio must be 4.0, got 2.0"),
        ({"hidden_size": "wide"}, "hidden_size must be an integer above 0, got 'wide'"),
        ({"mlp_ratio": "x"}, "mlp_ratio must be a number above 0, got 'x'"),
        ({"num_hidden_layers": 4}, r"is incomplete: encoder.layer.3.attention.key.bias \(128\) is missing"),
        ({"num_hidden_layers": 2}, "which is not part of V-JEPA 2"),
        ({"pred_num_mask_tokens": 2}, "predictor.embeddings.mask_tokens has the shape 3×1×1×64"),
        ({"patch_size": [16, 8]}, "patch_size must be an integer above 0"),
        ({"crop_size": 70}, "frame size 70×70 is not a multiple of patch 16"),
    ],
)
def test_a_config_that_is_not_v_jepa_2_is_one_sentence(folder, tmp_path, changes, message):
    config = json.loads((folder / "config.json").read_text(encoding="utf-8")) | changes
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(UserError, match=message):
        load(tmp_path)


@pytest.mark.parametrize(
    ("data", "method", "message"),
    [
        (replace(OURS, size=(32, 48)), METHOD, "no frames that are not square"),
        (OURS, replace(METHOD, encoder=ViTConfig(48, 2, 2)), "no positions other than --method.encoder.positions rope"),
    ],
)
def test_what_transformers_cannot_represent_is_one_sentence(tmp_path, data, method, message):
    write_ours(tmp_path / "ours", data, method)
    with pytest.raises(UserError, match=message):
        export(Export(run=str(tmp_path / "ours"), format="hf", out=tmp_path / "hf"))


def test_the_authors_own_files_name_the_way_over_hugging_face(tmp_path):
    """Their names are known, but the same for V-JEPA and V-JEPA 2, whose positions differ."""
    names = {"module.backbone.patch_embed.proj.weight": torch.zeros(8, 3, 2, 4, 4)}
    torch.save({"encoder": names, "target_encoder": names, "epoch": 1}, tmp_path / "vitl.pt")
    with pytest.raises(UserError, match="hf:facebook/vjepa2-vitl-fpc64-256"):
        load(tmp_path / "vitl.pt")


def stages_of(name: str) -> tuple[Pretrain, ...]:
    """Return the runs of a recipe of several stages."""
    recipe = make_recipe(name)
    assert isinstance(recipe, Stages)
    return recipe.runs


@pytest.mark.parametrize(
    ("recipe", "config"),
    [
        ("vjepa2-vitl16", {"hidden_size": 1024, "num_attention_heads": 16, "num_hidden_layers": 24}),
        ("vjepa2-vith16", {"hidden_size": 1280, "num_attention_heads": 16, "num_hidden_layers": 32}),
        (
            "vjepa2-vitg16-384",
            {
                "hidden_size": 1408,
                "num_attention_heads": 22,
                "num_hidden_layers": 40,
                "mlp_ratio": 48 / 11,
                "crop_size": 384,
            },
        ),
    ],
)
def test_networks_of_the_recipes_have_the_tensors_of_transformers(recipe, config):
    """The released sizes; transformers' defaults are those of the predictor."""
    *_, settings = stages_of(recipe)
    own = {name: empty_tensors(empty_network(settings, name)) for name in ("target", "predictor")}
    with torch.device("meta"):
        model = transformers.VJEPA2Model(transformers.VJEPA2Config(**config | {"pred_num_mask_tokens": 2}))
    check_tensors(to_external(own["target"], own["predictor"]), dict(model.state_dict()), recipe)
    assert settings.data.tubelets == (32, model.config.crop_size // 16, model.config.crop_size // 16)


@pytest.mark.parametrize("recipe", ["vjepa-vitl16", "vjepa-vith16", "vjepa-vith16-384"])
@pytest.mark.parametrize(
    ("step", "lr", "weight_decay", "momentum"),
    [
        (6_000, 2e-4 + 4.25e-4 / 2, 0.4 - 0.18 * (1 + math.cos(math.pi * 60 / 1125)), 0.998 + 0.002 * 60 / 1125),
        (12_000, 6.25e-4, 0.4 - 0.18 * (1 + math.cos(math.pi * 120 / 1125)), 0.998 + 0.002 * 120 / 1125),
        (90_000, 7.504e-5, 0.4 - 0.18 * (1 + math.cos(math.pi * 0.8)), 0.9996),
    ],
)
def test_v_jepa_stops_before_its_schedules_end(recipe, step, lr, weight_decay, momentum):
    """Published: 90,000 steps of schedules of 112,500, and 12,000 steps of warm-up."""
    settings = load_recipe(recipe)
    values = settings.optim.at(step - 1, settings.steps)
    assert values.lr == pytest.approx(lr, rel=1e-4)
    assert values.weight_decay == pytest.approx(weight_decay, rel=1e-6)
    assert values.momentum == pytest.approx(momentum, abs=2e-8)


def test_v_jepa_2_holds_its_learning_rate_and_decays_it_in_the_second_stage():
    first, second = stages_of("vjepa2-vitg16")
    assert [first.optim.at(step, 240_000).lr for step in (11_999, 120_000, 239_999)] == [5.25e-4] * 3
    assert second.optim.at(11_999, 12_000).lr == pytest.approx(1e-6, rel=1e-3)
    assert {each.optim.at(step, each.steps).momentum for each in (first, second) for step in (0, 9_999)} == {0.99925}
    assert (first.data.frames, second.data.frames, second.data.fps) == (16, 64, 4.0)


def test_training_goes_on_from_imported_weights_with_two_masks(folder, tmp_path):
    """Files of V-JEPA 2 have more mask tokens than a clip has masks: the first two are taken."""
    convert(Convert(source=str(folder), out=tmp_path / "imported"))
    chosen = AutoConfig(Pretrain(Video(root=("clips",)), JEPA(), Tube()), ("chosen otherwise",))
    config = start_from_run(chosen, load_config(tmp_path / "imported"), tmp_path / "imported").config
    assert config.data == replace(load(folder).data, root=("clips",)) and config.masks == Tube()
    assert config.method == replace(
        METHOD, encoder=load(folder).config.method.encoder, predictor=config.method.predictor
    )
    method = config.method.build(config.data)
    assert initialize_from(method, tmp_path / "imported") == []
    mask_tokens = load_file(folder / "model.safetensors")["predictor.embeddings.mask_tokens"]
    assert torch.equal(method.predictor.mask_token, mask_tokens[:2, 0])
