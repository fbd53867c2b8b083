"""Import and export: the official layout, Hugging Face, timm and programs; round trips are bit-exact."""

import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from safetensors.torch import load_file, save_file

import openjepa
from openjepa.cli.convert import convert
from openjepa.cli.export import export
from openjepa.cli.main import main
from openjepa.cli.settings import Convert, Export
from openjepa.core.errors import UserError
from openjepa.interop.huggingface import read_huggingface
from openjepa.interop.imported import ImportOptions, Preprocessing, config_of_sizes, empty_network, to_our_names
from openjepa.interop.key_maps import HF5, TIMM, TransformerSizes, position_table, read_sizes
from openjepa.interop.official import read_official
from openjepa.interop.timm import read_timm
from openjepa.masking.official import Official
from openjepa.methods.jepa import JEPA
from openjepa.modalities.image import Image
from openjepa.nn.positions import grid_positions, sincos
from openjepa.nn.predictor import PredictorConfig
from openjepa.nn.vit import VIT_SIZES, ViTConfig
from openjepa.training.config import Pretrain
from openjepa.training.run_folder import (
    CONTEXT_FILE,
    ENCODER_FILE,
    PREDICTOR_FILE,
    Provenance,
    StateDict,
    initialize_from,
    write_weights,
)
from tests.conftest import replace, slow

SQUARE = Image(size=(32, 32), patch=8, mean=(0.4, 0.45, 0.5), std=(0.2, 0.25, 0.3))
METHOD = JEPA(ViTConfig(48, 3, 4), PredictorConfig(24, 2))
HEADS = ImportOptions(num_heads=4)


def write_folder(folder: Path, data: Image = SQUARE, method: JEPA = METHOD) -> tuple[Path, dict[str, StateDict]]:
    """Write a folder of ours with three different networks; return it and their tensors."""
    net = method.build(data, seed=3)
    with torch.no_grad():
        for parameter in net.parameters():  # norms and biases also, so that swapped names would show
            parameter.add_(
                torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())) * 0.1
            )
        for parameter in net.target_encoder.parameters():
            parameter.mul_(1.1)
    states = {
        ENCODER_FILE: net.target_encoder.state_dict(),
        CONTEXT_FILE: net.context_encoder.state_dict(),
        PREDICTOR_FILE: net.predictor.state_dict(),
    }
    settings = Pretrain(data=data, method=method, masks=Official())
    return write_weights(folder, states, settings, 7, Provenance()), states


def same_tensors(one: StateDict, other: StateDict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def views(data: Image, count: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, *data.size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("form", ["hf", "timm", "official", "safetensors"])
def test_export_and_convert_round_trip_is_bit_exact(tmp_path, form):
    source, states = write_folder(tmp_path / "ours")
    out = export(Export(run=str(source), format=form, out=tmp_path / "theirs"))
    given = out / "model.pth.tar" if form == "official" else out
    heads = 4 if form == "official" else 0
    back = convert(Convert(source=str(given), out=tmp_path / "back", num_heads=heads))
    for name, state in states.items():
        if name == ENCODER_FILE or form == "official":
            assert same_tensors(load_file(back / name), state), name
    images = views(SQUARE)
    if form != "official":  # it stores no mean and std: the released encoders have ImageNet's
        assert torch.equal(openjepa.load(back).features(images), openjepa.load(source).features(images))


def test_official_checkpoint_round_trip_is_bit_exact(tmp_path):
    """Start from an official checkpoint: every tensor, also the tables of positions."""
    content = official_checkpoint(METHOD, SQUARE)
    torch.save(content, tmp_path / "a.pth.tar")
    convert(Convert(source=str(tmp_path / "a.pth.tar"), out=tmp_path / "ours", num_heads=4))
    export(Export(run=str(tmp_path / "ours"), format="official", out=tmp_path / "again"))
    again = torch.load(tmp_path / "again" / "model.pth.tar", weights_only=True)
    for name in ("encoder", "target_encoder", "predictor"):
        assert same_tensors(again[name], content[name]), name


def official_checkpoint(method: JEPA, data: Image, prefix: str = "module.") -> dict:
    """Build a checkpoint as the released code writes it, of any size, from a description of its layout."""
    rows, columns = data.grid
    generator = torch.Generator().manual_seed(0)

    def table(width: int) -> torch.Tensor:
        """For each position in raster order: sines and cosines of its column, then of its row; rounded from fp64."""
        lines = []
        for y in range(rows):
            for x in range(columns):
                line = []
                for t in (x, y):
                    frequency = [10000.0 ** -(k / (width / 4)) for k in range(width // 4)]
                    line += [np.sin(t * w) for w in frequency] + [np.cos(t * w) for w in frequency]
                lines.append(line)
        return torch.tensor(np.array(lines), dtype=torch.float32)[None]

    def blocks(name: str, depth: int, width: int, hidden: int) -> dict[str, tuple[int, ...]]:
        parts = {
            "norm1": (width,), "attn.qkv": (3 * width, width), "attn.proj": (width, width), "norm2": (width,),
            "mlp.fc1": (hidden, width), "mlp.fc2": (width, hidden),
        }  # fmt: skip
        return {f"{name}.{i}.{part}": shape for i in range(depth) for part, shape in parts.items()}

    def filled(modules: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
        made = {}
        for name, shape in modules.items():
            made[f"{prefix}{name}.weight"] = torch.randn(shape, generator=generator) * 0.1
            made[f"{prefix}{name}.bias"] = torch.randn(shape[:1], generator=generator) * 0.1
        return made

    sizes, dim, narrow = method.encoder, method.encoder.dim, method.predictor.dim
    encoder = {"patch_embed.proj": (dim, 3, data.patch, data.patch), "norm": (dim,)}
    encoder |= blocks("blocks", sizes.depth, dim, int(dim * sizes.mlp_ratio))
    predictor = {"predictor_embed": (narrow, dim), "predictor_norm": (narrow,), "predictor_proj": (dim, narrow)}
    predictor |= blocks("predictor_blocks", method.predictor.depth, narrow, 4 * narrow)
    return {
        "encoder": {f"{prefix}pos_embed": table(dim)} | filled(encoder),
        "predictor": {
            f"{prefix}mask_token": torch.randn((1, 1, narrow), generator=generator),
            f"{prefix}predictor_pos_embed": table(narrow),
        } | filled(predictor),
        "target_encoder": {f"{prefix}pos_embed": table(dim)} | filled(encoder),
        "opt": {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-3}]},
        "scaler": {"scale": 65536.0, "growth_factor": 2.0},
        "epoch": 300, "loss": 0.1, "batch_size": 128, "world_size": 16, "lr": 1e-3,
    }  # fmt: skip


@pytest.mark.parametrize("prefix", ["module.", ""])
def test_official_checkpoint_gives_the_target_encoder_and_keeps_all_networks(tmp_path, prefix):
    content = official_checkpoint(METHOD, SQUARE, prefix)
    torch.save(content, tmp_path / "jepa-ep300.pth.tar")
    found = read_official(tmp_path / "jepa-ep300.pth.tar", HEADS)
    for own, external in (("target", "target_encoder"), ("context", "encoder")):
        state = content[external]
        mine = found.networks[own]
        assert all(torch.equal(mine[name], state[prefix + name]) for name in mine)
        assert {prefix + name for name in mine} | {f"{prefix}pos_embed"} == set(state)
    assert torch.equal(
        found.networks["predictor"]["embed.weight"], content["predictor"][f"{prefix}predictor_embed.weight"]
    )
    assert found.provenance.license == "cc-by-nc-4.0" and found.provenance.notes == ("after 300 epochs",)
    assert found.settings.data.mean == (0.485, 0.456, 0.406) and found.settings.method.predictor.depth == 2
    trained = openjepa.load(
        convert(Convert(source=str(tmp_path / "jepa-ep300.pth.tar"), out=tmp_path / "c", num_heads=4))
    )
    assert trained.predict(views(SQUARE)[0], [0, 1, 5], [2, 3]).shape == (1, 2, 48)
    context = openjepa.load(tmp_path / "c", "context")
    assert torch.equal(context.encoder.state_dict()["norm.weight"], content["encoder"][f"{prefix}norm.weight"])


RELEASED = {  # size, patch, pixels, depth of the predictor
    "IN1K-vit.h.14-300e": ("huge", 14, 224, 12, 5120, 256),
    "IN1K-vit.h.16-448px-300e": ("huge", 16, 448, 12, 5120, 784),
    "IN22K-vit.h.14-900e": ("huge", 14, 224, 12, 5120, 256),
    "IN22K-vit.g.16-600e": ("giant", 16, 224, 16, 6144, 196),
}  # fmt: skip


@pytest.mark.parametrize("name", RELEASED)
def test_released_checkpoints_have_the_expected_shapes(name):
    """Names and shapes of all four released files, without values."""
    size, patch, pixels, depth, hidden, positions = RELEASED[name]
    dim = VIT_SIZES[size]["dim"]
    with torch.device("meta"):
        blocks = {
            f"blocks.{i}.{part}.{kind}": torch.empty(shape if kind == "weight" else shape[:1])
            for i in range(VIT_SIZES[size]["depth"])
            for part, shape in {
                "norm1": (dim,), "attn.qkv": (3 * dim, dim), "attn.proj": (dim, dim), "norm2": (dim,),
                "mlp.fc1": (hidden, dim), "mlp.fc2": (dim, hidden),
            }.items()
            for kind in ("weight", "bias")
        }  # fmt: skip
        encoder = blocks | {
            "patch_embed.proj.weight": torch.empty(dim, 3, patch, patch), "patch_embed.proj.bias": torch.empty(dim),
            "norm.weight": torch.empty(dim), "norm.bias": torch.empty(dim),
        }  # fmt: skip
    encoder["pos_embed"] = position_table((pixels // patch, pixels // patch), dim)
    known = read_sizes(encoder, TIMM, name)
    settings = config_of_sizes(
        known, TransformerSizes(384, depth, 1536, positions, (384, dim)), 0, Preprocessing(), name
    )
    assert settings.data.size == (pixels, pixels) and settings.data.patch == patch and known.positions == positions
    method = settings.method
    assert method.encoder == ViTConfig(**VIT_SIZES[size] | {"mlp_ratio": method.encoder.mlp_ratio})
    assert method.predictor == PredictorConfig(384, depth)
    state = to_our_names(encoder, TIMM, settings, "target", name)
    assert {each: x.shape for each, x in state.items()} == {
        each: x.shape for each, x in empty_network(settings, "target").state_dict().items()
    }
    predictor = {each: x.shape for each, x in empty_network(settings, "predictor").state_dict().items()}
    assert predictor["blocks.0.attn.qkv.weight"] == (1152, 384) and predictor["proj.weight"] == (dim, 384)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda state: state.pop("module.blocks.1.mlp.fc1.bias"),
            "target_encoder is incomplete: blocks.1.mlp.fc1.bias .192. is missing",
        ),
        (
            lambda state: state.update({"module.cls_token": torch.zeros(1, 1, 48)}),
            "target_encoder has cls_token .1×1×48., which is not part of I-JEPA",
        ),
        (
            lambda state: state.update({"module.norm.bias": torch.zeros(9)}),
            "target_encoder: norm.bias has the shape 9, but the other tensors require 48",
        ),
        (lambda state: state.pop("module.pos_embed"), "is not an I-JEPA encoder: it has no pos_embed"),
        (
            lambda state: state.update({"module.pos_embed": torch.zeros(1, 16, 48)}),
            "pos_embed is not the sine-cosine table",
        ),
        (lambda state: state.update({"module.pos_embed": torch.zeros(1, 15, 48)}), "has 15 positions for patches of"),
        (lambda state: state.update({"module.blocks.900.norm1.bias": torch.zeros(48)}), "it names 901 blocks, but has"),
        (lambda state: state.clear(), "target_encoder is not a dict of tensors"),
    ],
)
def test_missing_unknown_or_misshapen_tensor_is_named(tmp_path, change, sentence):
    content = official_checkpoint(METHOD, SQUARE)
    change(content["target_encoder"])
    torch.save(content, tmp_path / "a.pth.tar")
    with pytest.raises(UserError, match=sentence):
        read_official(tmp_path / "a.pth.tar", HEADS)


def test_unknown_or_impossible_number_of_heads_is_an_error(tmp_path):
    torch.save(official_checkpoint(METHOD, SQUARE), tmp_path / "a.pth.tar")
    with pytest.raises(UserError, match=r"does not state its number of heads \(width 48\): give --num-heads"):
        read_official(tmp_path / "a.pth.tar", ImportOptions())
    with pytest.raises(UserError, match="has the width 48, which 5 heads do not divide: give another --num-heads"):
        read_official(tmp_path / "a.pth.tar", ImportOptions(5))


class Evil:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return (Path.touch, (self.file,))


def test_a_checkpoint_that_would_run_code_is_refused_without_running_it(tmp_path):
    mark = tmp_path / "mark"
    content = official_checkpoint(METHOD, SQUARE) | {"epoch": Evil(mark)}
    torch.save(content, tmp_path / "evil.pth.tar")
    with pytest.raises(UserError, match=r"would run .*: it is not loaded"):
        read_official(tmp_path / "evil.pth.tar", HEADS)
    (tmp_path / "plain.pth.tar").write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match="is not a complete torch checkpoint"):
        read_official(tmp_path / "plain.pth.tar", HEADS)
    with zipfile.ZipFile(tmp_path / "new.pth.tar", "w") as archive:  # names as newer pickles store them
        archive.writestr("a/data.pkl", pickle.dumps(content, protocol=4))
    with pytest.raises(UserError, match="would create objects|would run .*"):
        read_official(tmp_path / "new.pth.tar", HEADS)
    assert not mark.exists()


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path):
    torch.save(official_checkpoint(METHOD, SQUARE), tmp_path / "a.pth.tar")
    with (
        zipfile.ZipFile(tmp_path / "a.pth.tar") as archive,
        zipfile.ZipFile(tmp_path / "b.pth.tar", "w", zipfile.ZIP_DEFLATED) as other,
    ):
        for member in archive.infolist():
            other.writestr(member.filename, archive.read(member))
    with pytest.raises(UserError, match="is compressed: unpack it"):
        read_official(tmp_path / "b.pth.tar", HEADS)


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_checkpoint_is_a_one_line_error(tmp_path, seed):
    """Truncated, or some bytes changed: a one-line error, or the same tensors."""
    torch.save(official_checkpoint(METHOD, SQUARE), tmp_path / "a.pth.tar")
    content, rng = bytearray((tmp_path / "a.pth.tar").read_bytes()), np.random.default_rng(seed)
    if seed % 4 == 0:
        del content[int(rng.integers(len(content))) :]
    else:
        start = {1: content.find(b"data.pkl"), 2: len(content) - 3000, 3: int(rng.integers(len(content) - 3000))}[
            seed % 4
        ]
        for place in rng.integers(start, start + 2500, 6):
            content[place] = int(rng.integers(256))
    (tmp_path / "b.pth.tar").write_bytes(content)
    whole = read_official(tmp_path / "a.pth.tar", HEADS)
    try:
        found = read_official(tmp_path / "b.pth.tar", HEADS)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert all(same_tensors(found.networks[name], state) for name, state in whole.networks.items())


@pytest.mark.parametrize("data", [SQUARE, replace(SQUARE, size=(24, 48))], ids=["square", "rectangle"])
def test_transformers_computes_the_same_features(tmp_path, data):
    transformers = pytest.importorskip("transformers", reason="the extra openjepa[hf] is not installed")
    source, _ = write_folder(tmp_path / "ours", data)
    folder = export(Export(run=str(source), out=tmp_path / "hf", license="apache-2.0"))
    model, processor = (
        transformers.AutoModel.from_pretrained(folder),
        transformers.AutoImageProcessor.from_pretrained(folder),
    )
    trained = openjepa.load(source)
    pictures = [Pillow.fromarray(x.permute(1, 2, 0).numpy()) for x in views(data)]
    with torch.no_grad():
        theirs = model(**processor(pictures, return_tensors="pt")).last_hidden_state
    assert (theirs - trained.features(pictures, "patches")).abs().max() < 1e-5
    assert "license: apache-2.0" in (folder / "README.md").read_text()
    assert openjepa.load(folder).provenance.license == "apache-2.0"


def test_huggingface_processor_crops_any_shape_as_we_do(tmp_path):
    transformers = pytest.importorskip("transformers", reason="the extra openjepa[hf] is not installed")
    source, _ = write_folder(tmp_path / "ours")
    folder = export(Export(run=str(source), out=tmp_path / "hf"))
    processor, trained = transformers.AutoImageProcessor.from_pretrained(folder), openjepa.load(source)
    colors = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    scene = np.asarray(Pillow.fromarray(colors).resize((60, 60), Pillow.Resampling.BICUBIC))
    for height, width in ((32, 32), (60, 60), (48, 60), (60, 40)):
        picture = Pillow.fromarray(scene[:height, :width])
        theirs = processor(picture, return_tensors="pt")["pixel_values"]
        mine = SQUARE.normalize(trained.transform(picture)[None])
        limit = (
            1e-5 if height == width else 0.1
        )  # whole pixels against fractions of pixels where the longer side is cropped
        assert (theirs - mine).abs().mean() < limit, (height, width)


def test_tensor_names_of_transformers_5_are_read(tmp_path):
    """Its models in memory have other names than its files."""
    source, states = write_folder(tmp_path / "ours")
    folder = export(Export(run=str(source), out=tmp_path / "hf"))
    theirs = HF5.to_external(states[ENCODER_FILE], position_table((4, 4), 48))
    save_file(
        {f"ijepa.{name}": x for name, x in theirs.items()} | {"classifier.bias": torch.zeros(3)},
        folder / "model.safetensors",
    )
    assert same_tensors(read_huggingface(folder, ImportOptions()).networks["target"], states[ENCODER_FILE])


def test_sharded_weights_are_read_and_their_index_cannot_leave_the_folder(tmp_path):
    source, states = write_folder(tmp_path / "ours")
    folder = export(Export(run=str(source), out=tmp_path / "hf"))
    whole = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(whole)
    for number, part in enumerate((names[:9], names[9:])):
        save_file({name: whole[name] for name in part}, folder / f"model-{number}.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(
        json.dumps({"weight_map": {name: f"model-{int(name in names[9:])}.safetensors" for name in names}})
    )
    assert same_tensors(read_huggingface(folder, ImportOptions()).networks["target"], states[ENCODER_FILE])
    index.write_text(json.dumps({"weight_map": {"a": "../../etc/passwd"}}))
    with pytest.raises(
        UserError, match=r"must name \*\.safetensors files in the same folder: other names are not read"
    ):
        read_huggingface(folder, ImportOptions())


def test_published_processors_with_mean_one_half_are_replaced_by_imagenet_statistics(tmp_path):
    """Other values are used as they are."""
    source, _ = write_folder(tmp_path / "ours")
    folder = export(Export(run=str(source), out=tmp_path / "hf"))
    assert read_huggingface(folder, ImportOptions()).settings.data.mean == SQUARE.mean
    config = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(
        json.dumps(config | {"image_mean": [0.5] * 3, "image_std": [0.5] * 3})
    )
    found = read_huggingface(folder, ImportOptions())
    assert found.settings.data.mean == (0.485, 0.456, 0.406) and "its processor says 0.5" in found.provenance.notes[0]


def test_a_single_timm_file_is_read(tmp_path):
    source, states = write_folder(tmp_path / "ours")
    folder = export(Export(run=str(source), format="timm", out=tmp_path / "timm"))
    found = read_timm(folder / "model.safetensors", HEADS)
    assert same_tensors(found.networks["target"], states[ENCODER_FILE])
    config = json.loads((folder / "config.json").read_text())
    assert config["model_args"]["num_heads"] == 4 and config["pretrained_cfg"]["mean"] == list(SQUARE.mean)


@pytest.mark.parametrize("positions", [pytest.param("sincos", marks=slow), "rope"])
def test_onnxruntime_computes_the_same_features_at_any_batch_and_size(tmp_path, positions):
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra openjepa[onnx] is not installed")
    data = replace(SQUARE, size=(24, 32))
    method = replace(METHOD, encoder=replace(METHOD.encoder, num_heads=3, positions=positions))
    source, _ = write_folder(tmp_path / "ours", data, method)
    folder = export(Export(run=str(source), format="onnx", out=tmp_path / "onnx"))
    session, trained = onnxruntime.InferenceSession(str(folder / "model.onnx")), openjepa.load(source)
    for count, size in ((1, (24, 32)), (5, (24, 32)), (2, (32, 48))):
        view = views(replace(data, size=size), count)
        patches, pooled = session.run(None, {"pixel_values": data.normalize(view).numpy()})
        assert abs(torch.from_numpy(patches) - trained.features(view, "patches", size)).max() < 1e-4
        assert abs(torch.from_numpy(pooled) - trained.features(view, size=size)).max() < 1e-4


def test_torch_program_computes_the_same_features(tmp_path):
    source, _ = write_folder(tmp_path / "ours")
    folder = export(Export(run=str(source), format="torch", out=tmp_path / "torch"))
    program = torch.export.load(folder / "model.pt2").module()
    for count in (1, 4):
        view = views(SQUARE, count)
        assert (program(SQUARE.normalize(view))[1] - openjepa.load(source).features(view)).abs().max() < 1e-5


def test_a_format_that_cannot_represent_the_encoder_is_refused(tmp_path):
    rotary = replace(METHOD, encoder=replace(METHOD.encoder, num_heads=3, positions="rope"))
    source, _ = write_folder(tmp_path / "ours", SQUARE, rotary)
    for form in ("hf", "timm", "official"):
        with pytest.raises(UserError, match=r"has no rotary positions: try --format onnx"):
            export(Export(run=str(source), format=form, out=tmp_path / form))
        assert not (tmp_path / form).exists() and not list(tmp_path.glob(".*"))


def test_converted_weights_keep_their_license(tmp_path, photos):
    torch.save(official_checkpoint(METHOD, SQUARE), tmp_path / "a.pth.tar")
    source = convert(Convert(source=str(tmp_path / "a.pth.tar"), out=tmp_path / "ours", num_heads=4))
    with pytest.raises(UserError, match=r"keep their license, cc-by-nc-4\.0: omit --license"):
        export(Export(run=str(source), out=tmp_path / "hf", license="mit"))
    for form in ("hf", "timm", "safetensors"):
        folder = export(Export(run=str(source), format=form, out=tmp_path / form))
        assert "license: cc-by-nc-4.0" in (folder / "README.md").read_text()
    assert openjepa.load(tmp_path / "safetensors").provenance.license == "cc-by-nc-4.0"
    run = tmp_path / "run"
    line = ["pretrain", "--data.root", str(photos), "--steps", "1", "--batch-size", "8", "--workers", "0"]
    assert main([*line, "--device", "cpu", "--init-from", str(source), "--out", str(run)]) == 0
    assert openjepa.load(run).config.method == openjepa.load(source).config.method  # without typing them
    known = openjepa.load(run / "export").provenance
    assert known.license == "cc-by-nc-4.0" and known.notes[-1] == "trained further from these weights"


def test_a_run_starts_from_converted_weights_including_the_predictor(tmp_path):
    content = official_checkpoint(METHOD, SQUARE)
    torch.save(content, tmp_path / "a.pth.tar")
    source = convert(Convert(source=str(tmp_path / "a.pth.tar"), out=tmp_path / "ours", num_heads=4))
    net = METHOD.build(SQUARE, seed=9)
    assert initialize_from(net, source) == []
    for own, external in (("target_encoder", "target_encoder"), ("context_encoder", "encoder")):
        assert torch.equal(net.state_dict()[f"{own}.norm.weight"], content[external]["module.norm.weight"])
    assert torch.equal(net.predictor.mask_token, content["predictor"]["module.mask_token"])


def test_folders_of_older_formats_are_converted(tmp_path):
    (old,) = [folder for folder in (Path(__file__).parent / "formats").iterdir() if folder.name == "1"]
    made = convert(Convert(source=str(old), out=tmp_path / "new"))
    image = views(openjepa.load(old).data)
    assert torch.equal(openjepa.load(made).features(image), openjepa.load(old).features(image))
    assert (made / PREDICTOR_FILE).is_file() and (made / CONTEXT_FILE).is_file()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda folder: folder.mkdir(), "is not a run: it has no config.json"),
        (lambda folder: None, "does not exist: give a run, an export, an"),
        (lambda folder: folder.write_bytes(b"PK\3\4 nothing"), "is not a complete torch checkpoint"),
        (lambda folder: torch.save([1, 2], folder), "is not a checkpoint: it holds a list"),
        (
            lambda folder: torch.save({"state_dict": {}}, folder),
            "is not an I-JEPA checkpoint: it has state_dict, but no encoder",
        ),
        (
            lambda folder: write_config(folder, {"model_type": "vit"}),
            "is a vit model, not ijepa: jepa probe and jepa compare read it",
        ),
        (
            lambda folder: write_config(folder, {"model_type": "ijepa"}),
            "has no model.safetensors: only safetensors are read",
        ),
        (
            lambda folder: write_config(folder, {"architecture": "vit_huge"}),
            "has no model.safetensors: only safetensors are read",
        ),
        (lambda folder: write_config(folder, None), "config.json cannot be read"),
    ],
)
def test_anything_else_than_an_encoder_is_a_one_line_error(tmp_path, capsys, make, sentence):
    make(tmp_path / "given")
    assert main(["convert", str(tmp_path / "given"), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1 and not (tmp_path / "out").exists()


def write_config(folder: Path, config: dict | None) -> None:
    folder.mkdir()
    (folder / "config.json").write_text("{" if config is None else json.dumps(config))


def test_an_existing_folder_is_not_overwritten(tmp_path):
    source, _ = write_folder(tmp_path / "ours")
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="already exists: give another --out"):
        export(Export(run=str(source), out=tmp_path / "out"))


def test_export_drops_the_pixel_rows_of_a_predictor(tmp_path):
    source, states = write_folder(tmp_path / "ours", SQUARE, replace(METHOD, pixel_loss_weight=1.0))
    folder = export(Export(run=str(source), format="official", out=tmp_path / "official"))
    back = convert(Convert(source=str(folder), out=tmp_path / "back", num_heads=4))  # from its folder
    kept = load_file(back / PREDICTOR_FILE)
    assert torch.equal(kept["proj.weight"], states[PREDICTOR_FILE]["proj.weight"][:48])
    assert torch.equal(openjepa.load(back).encoder.norm.weight, openjepa.load(source).encoder.norm.weight)


def test_a_single_file_is_read_with_the_config_beside_it(tmp_path):
    """Mean, std and heads come from the config beside it."""
    source, _ = write_folder(tmp_path / "ours")
    images = views(SQUARE)
    for form, name in (("timm", "model"), ("hf", "model"), ("safetensors", "encoder")):
        folder = export(Export(run=str(source), format=form, out=tmp_path / form))
        mine = openjepa.load(folder / f"{name}.safetensors").features(images)
        assert torch.equal(mine, openjepa.load(source).features(images)), form


def test_an_exported_program_cannot_be_loaded_as_weights(tmp_path):
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").write_bytes(b"")
    with pytest.raises(UserError, match=r"holds a program, model\.onnx, which cannot be loaded as weights"):
        openjepa.load(tmp_path / "onnx")


FIXTURES = {  # last_hidden_state[0, :3, :3] on COCO's val2017/000000039769.jpg, by Hugging Face's conversion
    "ijepa_vith14_1k": [[-0.0621, -0.0054, -2.7513], [-0.1952, 0.0909, -3.9536], [0.0942, -0.0331, -1.2833]],
    "ijepa_vith14_22k": [[0.0358, -0.0045, -0.2154], [0.0418, -0.0246, 0.0108], [0.2529, -0.0345, -0.0246]],
    "ijepa_vith16_1k": [[0.5145, -0.1259, 0.0615], [0.1132, 0.0028, -0.0496], [1.1586, -0.0056, -0.0387]],
    "ijepa_vitg16_22k": [[0.0512, -0.0510, -0.0649], [0.1972, 0.0380, -0.0790], [0.1667, -0.0834, -0.1240]],
}


@pytest.mark.parametrize("name", FIXTURES)
def test_published_weights_give_the_published_features(name):
    """Images squashed to a square and normalized by 0.5, as the conversion was checked; skipped without the weights."""
    folder = Path(__import__("os").environ.get("JEPA_WEIGHTS", "")) / name
    if not (folder / "config.json").is_file() or not (folder.parent / "000000039769.jpg").is_file():
        pytest.skip(
            "JEPA_WEIGHTS names no folder with these: hf download facebook/"
            f"{name} --local-dir WEIGHTS/{name}, and COCO's val2017/000000039769.jpg beside it"
        )
    trained = openjepa.load(folder)
    data = replace(trained.data, eval_crop="squash", mean=(0.5,) * 3, std=(0.5,) * 3)
    trained = replace(trained, modality=data)
    features = trained.features(folder.parent / "000000039769.jpg", "patches")[0, :3, :3]
    torch.testing.assert_close(features, torch.tensor(FIXTURES[name]), atol=1e-3, rtol=0)


@pytest.mark.parametrize("side", [14, 16, 28])
def test_our_positions_equal_the_released_table(side):
    own = sincos(grid_positions(side, side), 1280)
    assert (position_table((side, side), 1280) - own).abs().max() < 2e-6


def test_model_card_reports_only_facts_of_the_exported_encoder(tmp_path):
    """The official layout holds both encoders; probe results belong to the target encoder; a license is kept."""
    source, _ = write_folder(tmp_path / "ours")
    with pytest.raises(UserError, match="holds both encoders, each under its own name: omit --encoder"):
        export(Export(run=str(source), format="official", encoder="context", out=tmp_path / "official"))
    (source / "probes").mkdir()
    score = {"features": "this encoder", "probe": "logistic", "accuracy": 0.5, "low": 0.4, "high": 0.6, "chosen": {}}
    (source / "probes" / "some.json").write_text(json.dumps({"scores": [score]}))
    for which in ("target", "context"):
        folder = export(
            Export(run=str(source), format="safetensors", encoder=which, out=tmp_path / which, license="mit")
        )
        assert ("50.0 (40.0–60.0)" in (folder / "README.md").read_text()) == (which == "target")
        assert openjepa.load(folder).provenance.license == "mit"
