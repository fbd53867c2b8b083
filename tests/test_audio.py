"""Spectrograms, masks, and the audio modality from files to features."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from openjepa import load
from openjepa.cli.main import main
from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Layout, Masks
from openjepa.data.audio_baselines import mfcc_statistics
from openjepa.data.audio_controls import reverse_time, shuffle_pieces
from openjepa.data.audio_doctor import AUDIO_FINDINGS, examine_sound
from openjepa.data.spectrogram import MelScale, cosine_transform, hz_to_mel, log_mel, mel_filterbank, mel_to_hz
from openjepa.data.synthetic.sounds import TASKS, render_sounds, write_sounds
from openjepa.data.wav_files import wav_content
from openjepa.evaluation.probes.masked_keys import draw_visible, mask_keys
from openjepa.interop.adapters import load_any
from openjepa.interop.pretrained import from_network
from openjepa.masking.curriculum import Curriculum
from openjepa.masking.multiblock import MultiBlock
from openjepa.masking.random import Random
from openjepa.masking.spectrogram import Spectrogram
from openjepa.masking.stretches import Stretches
from openjepa.methods.jepa import JEPA
from openjepa.methods.s_jea import SJEA
from openjepa.modalities.audio import Audio
from openjepa.nn.vit import ViTConfig
from openjepa.recipes.audio import a_jepa, audio_design_study, audio_small, choose_settings
from openjepa.training.config import Pretrain
from openjepa.training.run import pretrain
from tests.conftest import SMALL, SMALL_PREDICTOR, slow

SCALE = MelScale(16000, 400, 160, 40, 50.0, 8000.0)
GRID = Layout.grid(8, 12)
TINY = Audio(rate=4000, frames=32, bands=16, patch=4, mean=(-40.0,), std=(20.0,))


def rng_of(count: int, step: int = 0) -> CounterRNG:
    return CounterRNG.of(0, step, np.arange(count) + count * step)


def sine(hz: float, rate: int = 16000, seconds: float = 0.5) -> torch.Tensor:
    return torch.sin(2 * torch.pi * hz * torch.arange(round(rate * seconds)) / rate)[None, None]


# Band, first and last frequency bin with weight, largest weight: of librosa 0.11, filters.mel(sr=16000, n_fft=512,
# n_mels=40, fmin=50, fmax=8000)
LIBROSA = [(0, 2, 6, 0.01331545), (7, 18, 22, 0.01309467), (20, 54, 62, 0.006716624), (39, 221, 255, 0.001763641)]


@pytest.mark.parametrize(("band", "first", "last", "largest"), LIBROSA)
def test_mel_filters_have_the_values_of_librosa(band, first, last, largest):
    row = mel_filterbank(SCALE)[band]
    inside = row.nonzero()[:, 0]
    assert (inside.min(), inside.max()) == (first, last)
    assert row.max().item() == pytest.approx(largest, rel=1e-5)


@slow
@pytest.mark.parametrize("scale", [SCALE, MelScale(22050, 551, 220, 128, 20.0, 11025.0)])
def test_log_mel_spectrograms_equal_those_of_librosa(scale):
    librosa = pytest.importorskip("librosa")
    expected = librosa.filters.mel(sr=scale.rate, n_fft=scale.fft, n_mels=scale.bands, fmin=scale.low, fmax=scale.high)
    np.testing.assert_allclose(mel_filterbank(scale), expected, atol=1e-7)
    sound = np.random.default_rng(0).normal(size=scale.rate).astype(np.float32) * 0.1
    margin = scale.fft - scale.hop
    padded = np.pad(sound, (margin // 2, margin - margin // 2), mode="reflect")
    power = librosa.feature.melspectrogram(
        y=padded, sr=scale.rate, n_fft=scale.fft, win_length=scale.window, hop_length=scale.hop, center=False,
        n_mels=scale.bands, fmin=scale.low, fmax=scale.high,
    )  # fmt: skip
    result = log_mel(torch.from_numpy(sound)[None, None], scale)[0, 0]
    np.testing.assert_allclose(result, librosa.power_to_db(power, top_db=None)[:, : result.shape[1]], atol=1e-3)


@slow
def test_mfccs_equal_those_of_librosa():
    librosa = pytest.importorskip("librosa")
    spectrogram = np.random.default_rng(0).normal(size=(40, 30)).astype(np.float32)
    expected = librosa.feature.mfcc(S=spectrogram, n_mfcc=13, norm="ortho")
    np.testing.assert_allclose(cosine_transform(13, 40) @ torch.from_numpy(spectrogram), expected, atol=1e-4)


def test_mels_and_hertz_are_inverse_and_the_scale_bends_at_1_khz():
    hz = torch.tensor([0.0, 500.0, 1000.0, 4000.0, 8000.0], dtype=torch.float64)
    torch.testing.assert_close(mel_to_hz(hz_to_mel(hz)), hz)
    assert hz_to_mel(hz)[1].item() == pytest.approx(7.5) and hz_to_mel(hz)[2].item() == pytest.approx(15.0)
    assert hz_to_mel(torch.tensor(6400.0)).item() == pytest.approx(15 + 27, abs=1e-4)


@pytest.mark.parametrize("hz", [200, 1000, 5000])
def test_a_sine_is_loudest_in_its_band_and_twice_as_loud_is_6_decibels(hz):
    spectrogram = log_mel(sine(hz), SCALE)[0, 0]
    centers = mel_to_hz(torch.linspace(*hz_to_mel(torch.tensor([50.0, 8000.0])).tolist(), 42))[1:-1]
    assert (spectrogram[:, 10:-10].mean(1).argmax() - (centers - hz).abs().argmin()).abs() <= 1
    louder = log_mel(2 * sine(hz), SCALE)[0, 0]
    loud = spectrogram > -60
    torch.testing.assert_close(
        (louder - spectrogram)[loud], torch.full_like(spectrogram, 6.0206)[loud], atol=0.01, rtol=0
    )
    assert log_mel(torch.zeros(1, 1, 1600), SCALE).max() == -100


def test_low_bands_are_never_empty():
    for rate, bands in ((8000, 64), (16000, 128), (44100, 128)):
        scale = MelScale(rate, rate // 40, rate // 100, bands, 50.0, rate / 2)
        assert (mel_filterbank(scale).sum(1) > 0).float().mean() > 0.95, (rate, bands)


def test_the_rows_of_a_view_go_from_high_to_low_and_level_makes_no_difference_with_stretch():
    data = replace(TINY, rate=16000, frames=32, bands=16, normalize="stretch")
    view = sine(300.0, seconds=data.samples / 16000)
    assert data.spectrogram(view)[0, 0].mean(1).argmax() > 8
    torch.testing.assert_close(data.tokens(view).x, data.tokens(0.3 * view).x, atol=1e-3, rtol=1e-4)
    louder = replace(data, normalize="data")
    assert (louder.tokens(view).x - louder.tokens(0.1 * view).x).mean() == pytest.approx(20 / 20, rel=1e-2)


def test_what_is_quieter_than_the_floor_is_raised_to_it():
    data = replace(TINY, floor=30.0)
    spectrogram = data.decibels(sine(300.0, 4000, data.samples / 4000))
    assert spectrogram.min().item() == pytest.approx(spectrogram.max().item() - 30, abs=1e-4)


def test_patches_are_cut_and_assembled_and_positions_are_time_and_pitch():
    spectrogram = torch.randn(2, 1, 16, 32)
    tokens = TINY.patchify(spectrogram)
    assert tokens.x.shape == (2, 32, 16) and tokens.pos[0, 1].tolist() == [1.0, 0.0]
    assert torch.equal(TINY.unpatchify(tokens.x), spectrogram)
    assert torch.equal(tokens.x[0, 9].view(4, 4), spectrogram[0, 0, 4:8, 4:8])
    longer = TINY.patchify(torch.randn(1, 1, 16, 40))
    assert longer.pos[0, 9].tolist() == [9.0, 0.0]  # time is not rescaled
    with pytest.raises(UserError, match="does not divide"):
        TINY.patchify(torch.randn(1, 1, 16, 30))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"bands": 60}, "--data.bands 64"), ({"frames": 90}, "--data.frames 88"), ({"hop": 0.05}, "--data.window"),
     ({"high": 9000.0}, "--data.high 0"), ({"speed": (1.2, 0.8)}, "--data.speed 0.9 1.1"), ({"rate": 0}, "--data.rate"),
     ({"floor": 0.0}, "--data.floor 80"), ({"gain": -1.0}, "--data.gain")],
)  # fmt: skip
def test_settings_that_do_not_fit_are_refused_with_what_to_type(settings, message):
    with pytest.raises(UserError, match=message):
        Audio(**settings)


def cells(mask: Masks, row: int, grid: tuple[int, int]) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
    """Return the (row, column) of context and target tokens of a sample."""
    context = mask.context[row] if mask.context_valid is None else mask.context[row][mask.context_valid[row]]
    both = ({divmod(int(token), grid[1]) for token in tokens.flatten()} for tokens in (context, mask.target[row]))
    return tuple(both)  # type: ignore[return-value]


@pytest.mark.parametrize("hidden", ["time", "frequency", "either"])
def test_time_frequency_masks_hide_the_times_or_the_pitches_of_each_block(hidden):
    masker = Spectrogram(hidden=hidden)
    (mask,) = masker(GRID, None, None, rng_of(64), 0.0)
    directions = set()
    for sample in range(64):
        context, _ = cells(mask, sample, (8, 12))
        for block in mask.target[sample]:
            rows, columns = (block // 12).tolist(), (block % 12).tolist()
            no_time = not any(column in columns for _, column in context)
            no_pitch = not any(row in rows for row, _ in context)
            assert (no_time or no_pitch) if hidden == "either" else (no_time if hidden == "time" else no_pitch)
            directions.add((no_time, no_pitch))
    assert hidden != "either" or {(True, False), (False, True)} <= directions
    assert (mask.context.shape[1], *mask.target.shape[1:]) in masker.shapes(GRID)


@pytest.mark.parametrize(("axis", "stretches"), [("time", 1), ("time", 3), ("frequency", 1), ("frequency", 2)])
def test_stretches_hide_whole_columns_or_rows_and_everything_hidden_is_a_target(axis, stretches):
    masker = Stretches(axis=axis, mask_ratio=0.5, stretches=stretches)
    (mask,) = masker(GRID, None, None, rng_of(256), 0.0)
    assert (mask.context.shape[1], *mask.target.shape[1:]) in masker.shapes(GRID)
    position, counts = (1 if axis == "time" else 0), np.zeros(12 if axis == "time" else 8)
    for sample in range(256):
        context, target = cells(mask, sample, (8, 12))
        assert context | target == {(row, column) for row in range(8) for column in range(12)} and not context & target
        hidden = {cell[position] for cell in target}
        assert not hidden & {cell[position] for cell in context} and len(hidden) == len(counts) // 2
        starts = sum(line - 1 not in hidden for line in hidden)
        assert starts <= stretches
        counts[list(hidden)] += 1
    assert counts.min() > 0


@pytest.mark.parametrize("masker", [Stretches(stretches=9), Stretches(mask_ratio=0.01)])
def test_stretches_that_do_not_fit_are_refused(masker):
    with pytest.raises(UserError):
        masker.shapes(GRID)


def test_the_curriculum_goes_from_blocks_to_time_frequency_masks():
    masker = Curriculum()
    assert masker.probability(0.0) == pytest.approx(1e-4) and masker.probability(1.0) == 1.0
    steps = [masker.probability(step / 50) for step in range(51)]
    assert steps == sorted(steps)
    count = dict.fromkeys((0.0, 0.25, 1.0), 0)
    for progress in count:
        for step in range(200):
            (mask,) = masker(GRID, None, None, rng_of(1, step), progress)
            count[progress] += mask.target.shape[1] == masker.hard.targets
    assert count[0.0] == 0 and count[1.0] == 200 and 70 < count[0.25] < 130


def test_targets_of_several_blocks_see_each_other_but_never_the_context():
    """The EMA encoder sees the union of the blocks: what overlaps once, and nothing else."""
    method = JEPA(SMALL, SMALL_PREDICTOR, target_input="targets_only")
    net = method.build(TINY)
    mask = Masks(torch.tensor([[0, 1, 2]]), torch.tensor([[[8, 9, 10], [10, 11, 12]]]))
    data = TINY.synthetic(4, 0)
    view = data.read(torch.tensor([0]), None).views[0]
    keep = net.target_tokens((mask,))
    tokens = TINY.tokens(view)
    (once,) = net.target_encoder(tokens.take(torch.tensor([[8, 9, 10, 11, 12]])))
    (twice,) = net.target_encoder(tokens, keep)
    torch.testing.assert_close(twice.x[:, [0, 1, 2, 4, 5]], once.x, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(twice.x[:, 3], twice.x[:, 2], atol=1e-5, rtol=1e-4)
    method.check(TINY, MultiBlock())
    with pytest.raises(UserError, match="masks-per-sample 1"):
        method.check(TINY, MultiBlock(masks_per_sample=2))


def test_generated_sounds_depend_on_their_number_alone_and_their_labels_are_balanced():
    whole, part = render_sounds(600, 4000, 2000, 3), render_sounds(4, 4000, 2000, 3, first=300)
    assert torch.equal(whole.sound[300:304], part.sound) and whole.sound.abs().max() <= 0.81
    for task, classes in TASKS.items():
        counts = getattr(whole, task).bincount(minlength=classes)
        assert counts.min() > 600 / classes / 2, task


@slow
def test_no_single_spectrum_tells_whether_chirps_rise():
    from openjepa.evaluation.probes.logistic import logistic_probe

    train, test = render_sounds(2000, 8000, 7680, 0), render_sounds(500, 8000, 7680, 0, 10_000_000)
    data = Audio(rate=8000)
    accuracy = {}
    for name, compute in data.baselines().items():
        features = [torch.cat([compute(part) for part in each.sound[:, None].split(200)]) for each in (train, test)]
        for task, classes in TASKS.items():
            result = logistic_probe(features[0], getattr(train, task), features[1], classes)
            accuracy[name, task] = (result.predicted == getattr(test, task)).float().mean().item()
    assert accuracy["mean log-mel", "pitch"] > 0.95
    assert accuracy["mean log-mel", "rising"] < 0.6 and accuracy["log-mel 16×16", "rising"] > 0.8


def test_controls_take_the_order_of_time_away():
    view = torch.arange(200.0).view(1, 1, 200)
    shuffled = shuffle_pieces(view)
    assert sorted(shuffled.flatten().tolist()) == view.flatten().tolist() and not torch.equal(shuffled, view)
    assert torch.equal(shuffled[..., :10].diff(dim=-1), torch.ones(1, 1, 9))
    assert torch.equal(reverse_time(reverse_time(view)), view)


def test_mfcc_statistics_do_not_depend_on_when_something_sounds():
    spectrogram = torch.randn(1, 1, 16, 30)
    one, other = (mfcc_statistics(torch.nn.functional.pad(spectrogram, pad)) for pad in ((2, 8), (8, 2)))
    torch.testing.assert_close(one, other, atol=0.05, rtol=0.05)


def make_doctor_files(folder: Path) -> None:
    time = np.arange(8000) / 8000
    tone = 0.5 * np.sin(2 * np.pi * 440 * time)
    files = {"good": tone, "silent": 0 * tone, "clipped": np.clip(4 * tone, -1, 1), "offset": tone / 2 + 0.1,
             "short": tone[:400]}  # fmt: skip
    for name, values in files.items():
        (folder / f"{name}.wav").write_bytes(wav_content(values, 8000))
    (folder / "another.wav").write_bytes(wav_content(tone / 3, 16000))
    content = (folder / "good.wav").read_bytes()
    (folder / "truncated.wav").write_bytes(content[:9000])
    (folder / "broken.wav").write_bytes(content[:30])
    (folder / "copy.wav").write_bytes(content)


def test_the_doctor_names_what_is_wrong_with_recordings(tmp_path, capsys):
    make_doctor_files(tmp_path)
    for name in ("silent", "clipped", "offset"):
        assert examine_sound(str(tmp_path / f"{name}.wav")).findings == (name,)
    assert examine_sound(str(tmp_path / "good.wav")).findings == ()
    assert main(["doctor", str(tmp_path), "--out", str(tmp_path / "doctor")]) == 0
    result = json.loads((tmp_path / "doctor" / "doctor.json").read_text())
    found = {name: sorted(Path(path).stem for path in paths) for name, paths in result["findings"].items()}
    assert found == {
        "silent": ["silent"], "clipped": ["clipped"], "offset": ["offset"], "very short": ["short"],
        "another rate": ["another"], "truncated": ["truncated"], "undecodable": ["broken"],
        "duplicate": ["copy", "good"],
    }  # fmt: skip
    assert set(found) <= set(AUDIO_FINDINGS) and result["fit"] == 8
    assert (tmp_path / "doctor" / "doctor.png").stat().st_size > 5000
    assert "states 1.0 seconds" in result["reasons"][str(tmp_path / "truncated.wav")]


@pytest.fixture(scope="module")
def sounds(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sounds") / "data"
    write_sounds(folder, 32, 4000, 2000, 0)
    return folder


@pytest.fixture(scope="module")
def run(sounds) -> Path:
    """Train a tiny encoder for a few steps."""
    settings = Pretrain(
        data=replace(TINY, root=(str(sounds),), mean=(), std=()), method=JEPA(SMALL, SMALL_PREDICTOR), masks=Random(),
        steps=4, batch_size=8, threads=1, workers=0, report=False, device="cpu", precision="fp32",
        out=sounds.parent / "run",
    )  # fmt: skip
    return pretrain(settings)


def test_a_run_saves_its_statistics_and_gives_features_of_files_and_arrays(run, sounds):
    encoder = load(run)
    assert len(encoder.data.mean) == 1 and -80 < encoder.data.mean[0] < 0 < encoder.data.std[0]
    files = sorted(map(str, sounds.glob("*.wav")))[:3]
    features = encoder.features(files)
    assert features.shape == (3, 4 * 48)  # of each row of patches
    torch.testing.assert_close(encoder.features(encoder.data.read(files[0])[None]), features[:1])


def test_features_are_pooled_by_rows_of_patches_so_that_they_know_the_pitch(run):
    data = load(run).data
    x = torch.arange(2.0 * 32 * 3).view(2, 32, 3)  # 4 rows of 8 patches
    rows = x.view(2, 4, 8, 3)
    torch.testing.assert_close(data.pool(x), rows.mean(2).flatten(1))
    torch.testing.assert_close(replace(data, pooling="row-max").pool(x), rows.amax(2).flatten(1))
    torch.testing.assert_close(replace(data, pooling="mean").pool(x), x.mean(1))
    with pytest.raises(UserError, match="31 tokens are not 4 rows of patches"):
        data.pool(x[:, 1:])


def test_tokens_that_are_not_those_of_the_spectrogram_are_pooled_by_their_mean():
    """Level 2 of S-JEA encodes an embedding, whose tokens have no pitch."""
    config = SJEA(SMALL, level2=ViTConfig(32, 1, 2))
    data, net = replace(TINY, frames=64), config.build(replace(TINY, frames=64), 0)
    settings, view = Pretrain(data=data, method=config), torch.randn(2, 1, data.samples)
    tokens = net.encoder("level2")(data.tokens(view))[0].x
    found = from_network(net.encoder("level2"), settings, "level2").encode(view).last
    torch.testing.assert_close(found, tokens.float().mean(1))


COMMANDS = {
    "show masks": ["show", "masks", "RUN", "DATA", "--out", "OUT/m.png"],
    "show features": ["show", "features", "RUN", "DATA", "--out", "OUT/f.png"],
    "show prediction": ["show", "prediction", "RUN", "DATA", "--out", "OUT/p.png"],
    "embed": ["embed", "RUN", "DATA", "--out", "OUT/rows.safetensors"],
    "search": ["search", "OUT/rows.safetensors", "DATA/000003.wav", "--out", "OUT/search"],
    "duplicates": ["duplicates", "OUT/rows.safetensors", "--out", "OUT/duplicates.csv"],
    "cluster": ["cluster", "OUT/rows.safetensors", "--clusters", "3", "--out", "OUT/clusters"],
    "probe": ["probe", "RUN", "--data.root", "DATA", "--data.labels", "DATA/labels.csv", "--data.label", "rising"],
    "fine-tune": ["probe", "RUN", "--data.root", "DATA", "--data.labels", "DATA/labels.csv", "--data.label", "rising",
                  "--probes", "finetune", "--finetune", "masked-keys", "--no-baselines", "--out", "OUT/fine"],
    "predict": ["predict", "RUN", "DATA", "--out", "OUT/predictions.csv"],
    "report": ["report", "RUN", "--out", "OUT/report.html"],
}  # fmt: skip


def test_the_verbs_take_recordings(run, sounds, tmp_path, capsys):
    for name, arguments in COMMANDS.items():
        places = {"RUN": str(run), "DATA": str(sounds), "OUT": str(tmp_path)}
        for key, value in places.items():
            arguments = [each.replace(key, value) for each in arguments]
        status = main(arguments)
        assert status == 0, (name, capsys.readouterr().err[-500:])
    assert (tmp_path / "report.html").read_text(encoding="utf-8").count("<audio") > 8


def test_the_recipes_fit_their_masks_and_the_papers():
    for recipe in (audio_small, a_jepa, audio_design_study):
        config = recipe()
        config.method.check(config.data, config.masks)
        assert config.masks.shapes(config.data.layout)
    assert a_jepa().data.layout.count == 512 and audio_design_study().data.layout.count == 65
    assert audio_design_study().masks.counts(65) == (26, 39)


def test_settings_are_chosen_by_the_recordings(sounds, tmp_path):
    data, reasons = Audio(root=(str(sounds),)).suggest()
    assert (data.rate, data.patch) == (4000, 8) and data.frames in (48, 56) and "0.5 s long" in reasons[0]
    config, _ = choose_settings(data)
    assert config.batch_size == 32 and config.data.root == (str(sounds),)
    (tmp_path / "few").mkdir()
    write_sounds(tmp_path / "few", 3, 44100, 441000, 0)
    long, why = Audio(root=(str(tmp_path / "few"),)).suggest()
    assert (long.rate, long.patch, long.frames) == (16000, 16, 992) and "--data.rate 44100" in why[1]
    with pytest.raises(UserError, match="--data.every 2"):
        choose_settings(long)


@slow
def test_the_demo_writes_its_scores_and_a_figure(tmp_path):
    sizes = ("--samples", "128", "--labeled", "128", "--test", "64", "--epochs", "1")
    assert main(["demo", "audio", "--out", str(tmp_path / "demo"), *sizes]) == 0
    written = json.loads((tmp_path / "demo" / "demo.json").read_text())
    names = {each["features"] for each in written["scores"]}
    assert {"this encoder", "before training", "MFCC statistics", "most frequent class"} <= names
    assert (tmp_path / "demo" / "features.png").stat().st_size > 10_000


@pytest.mark.parametrize("positions", ["sincos", "rope"])
def test_no_token_depends_on_a_token_whose_keys_are_masked(positions, monkeypatch):
    encoder = JEPA(replace(SMALL, positions=positions), SMALL_PREDICTOR).build(TINY).encoder()
    tokens = TINY.tokens(TINY.synthetic(4, 0).read(torch.arange(4), None).views[0])
    visible = torch.ones(4, 32, dtype=torch.bool)
    visible[:, [3, 17]] = False
    monkeypatch.setattr("openjepa.evaluation.probes.masked_keys.draw_visible", lambda *_: visible)
    changed = tokens._replace(x=torch.where(visible[..., None], tokens.x, 5.0))
    with torch.no_grad(), mask_keys(encoder, 0.1, torch.Generator()):
        one, other = (encoder(each)[0].x for each in (tokens, changed))
    assert torch.equal(one[visible], other[visible]) and not torch.allclose(one[~visible], other[~visible])
    with torch.no_grad():
        plain, free = (encoder(each)[0].x for each in (tokens, changed))
    assert not torch.allclose(plain[visible], free[visible]) and not torch.allclose(plain, one)


def test_masked_keys_are_a_tenth_of_the_tokens_and_never_all():
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([draw_visible(8, 40, 0.1, generator) for _ in range(50)])
    assert (drawn.sum(-1) == 36).all() and drawn.float().mean((0, 1)).min() > 0.8
    assert draw_visible(8, 4, 1.0, generator).sum(1).tolist() == [1] * 8


# ---- encoders of Hugging Face


@pytest.mark.parametrize("kind", ["wav2vec2", "ast"])
def test_encoders_of_hugging_face_are_peers_that_give_their_own_features(kind, sounds, tmp_path):
    transformers = pytest.importorskip("transformers", reason="the extra openjepa[hf] is not installed")
    small = {"hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32}
    torch.manual_seed(1)
    if kind == "ast":
        config = transformers.ASTConfig(**small, max_length=64, num_mel_bins=32)
        network, extractor = (
            transformers.ASTModel(config),
            transformers.ASTFeatureExtractor(max_length=64, num_mel_bins=32),
        )
    else:
        config = transformers.Wav2Vec2Config(
            **small, conv_dim=(16, 16), conv_stride=(20, 20), conv_kernel=(20, 20), num_feat_extract_layers=2,
            num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
        )  # fmt: skip
        network, extractor = transformers.Wav2Vec2Model(config), transformers.Wav2Vec2FeatureExtractor()
    network.eval().save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)

    encoder = load_any(str(tmp_path))
    file = str(next(sounds.glob("*.wav")))
    wave = encoder.data.read(file)[0].numpy()
    inputs = extractor(wave, sampling_rate=16000, return_tensors="pt")["input_values"]
    with torch.no_grad():
        expected = network(inputs).last_hidden_state[0]
    found = encoder.features(file)[0]
    torch.testing.assert_close(found, expected[0] if kind == "ast" else expected.mean(0), rtol=1e-4, atol=1e-5)
    assert encoder.untrained is not None and not torch.equal(encoder.untrained().features(file)[0], found)
