"""Recordings: WAV files of every kind, other formats, resampling, stretches, damaged files."""

import io
import struct
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.data.audio_files import start_of
from openjepa.data.audio_formats import audio_format
from openjepa.data.audio_io import mix, open_sound, read_stretch, resample
from openjepa.data.image_opening import Undecodable
from openjepa.data.wav_files import wav_content
from openjepa.modalities.audio import Audio

RATE = 8000
VALUES = 0.5 * np.sin(np.arange(2000) * 0.1).astype(np.float32)


def wav_bytes(
    code: int, bits: int, data: bytes, channels: int = 1, extra: bytes = b"", stated: int | None = None
) -> bytes:
    """Return a WAV file with these samples; `extra` chunks come before them."""
    form = struct.pack("<HHIIHH", code, channels, RATE, RATE * channels * bits // 8, channels * bits // 8, bits)
    if code == 0xFFFE:
        form += struct.pack("<HHIH", 22, bits, 0, 1) + b"\0" * 14
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + extra
    body += b"data" + struct.pack("<I", len(data) if stated is None else stated) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def read_all(path: Path | str) -> np.ndarray:
    with open_sound(str(path)) as sound:
        return sound.read(0, sound.frames)


def encoded(code: int, bits: int) -> bytes:
    """Return VALUES as stored samples."""
    if code == 3:
        return VALUES.astype(f"<f{bits // 8}").tobytes()
    if bits == 8:
        return (VALUES * 127 + 128).round().astype("u1").tobytes()
    whole = (VALUES.astype(np.float64) * (2 ** (bits - 1) - 1)).round().astype("<i4")
    return whole.view("u1").reshape(-1, 4)[:, : bits // 8].tobytes()


@pytest.mark.parametrize(("code", "bits"), [(1, 8), (1, 16), (1, 24), (1, 32), (3, 32), (3, 64), (0xFFFE, 16)])
def test_wav_files_are_read_without_an_extra(code, bits, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "soundfile", None)
    file = tmp_path / "a.wav"
    file.write_bytes(wav_bytes(code, bits, encoded(code, bits)))
    np.testing.assert_allclose(read_all(file)[0], VALUES, atol=2.0 ** -(min(bits, 24) - 2))


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_32", "FLOAT", "ULAW", "ALAW"])
def test_samples_equal_those_of_libsndfile(subtype, tmp_path):
    soundfile = pytest.importorskip("soundfile")
    file = tmp_path / "a.wav"
    soundfile.write(file, np.stack([VALUES, -VALUES], 1), RATE, subtype)
    expected, _ = soundfile.read(file, dtype="float32")
    np.testing.assert_allclose(read_all(file), expected.T, atol=1e-7)


def test_chunks_before_the_samples_are_skipped_also_odd_ones(tmp_path):
    file = tmp_path / "a.wav"
    file.write_bytes(wav_bytes(1, 16, encoded(1, 16), extra=b"LIST\3\0\0\0abc\0"))
    np.testing.assert_allclose(read_all(file)[0], VALUES, atol=1e-4)


@pytest.mark.parametrize("stated", [0, 0xFFFFFFFF])
def test_an_interrupted_recording_is_read_to_its_end(stated, tmp_path):
    file = tmp_path / "a.wav"
    file.write_bytes(wav_bytes(1, 16, encoded(1, 16), stated=stated))
    assert read_all(file).shape == (1, 2000)


def test_a_truncated_recording_has_the_samples_that_are_there(tmp_path):
    file = tmp_path / "a.wav"
    file.write_bytes(wav_bytes(1, 16, encoded(1, 16))[:-1001])
    assert read_all(file).shape == (1, 1499)


@pytest.mark.parametrize("content", [b"", b"RIFF", b"RIFF\0\0\0\0WAVE", wav_bytes(1, 16, b""), wav_bytes(1, 16, b"", 0),
                                     b"nothing like a sound" * 10])  # fmt: skip
def test_files_without_samples_are_undecodable(content, tmp_path):
    file = tmp_path / "a.wav"
    file.write_bytes(content)
    with pytest.raises(Undecodable):
        read_all(file)


@pytest.mark.parametrize("kind", ["flac", "ogg", "mp3", "aiff"])
def test_other_formats_are_read_by_their_content(kind, tmp_path):
    soundfile = pytest.importorskip("soundfile")
    file = tmp_path / f"a.{kind}"
    long = np.tile(VALUES, 5)
    soundfile.write(file, long, RATE)
    renamed = file.rename(tmp_path / "a.wav")
    assert (
        audio_format(renamed.read_bytes()[:512]) == {"flac": "FLAC", "ogg": "Ogg", "mp3": "MP3", "aiff": "AIFF"}[kind]
    )
    values = read_all(renamed)[0]
    correlation = np.correlate(values[1000:8000], long[1000:8000])[0] / np.sum(long[1000:8000] ** 2)
    assert abs(len(values) - len(long)) < 3000 and (kind == "mp3" or correlation > 0.98)


def test_a_stretch_of_an_mp3_is_that_of_the_whole_and_nothing_is_printed(tmp_path, capfd):
    """After a seek, libmpg123 prints a complaint about each frame that it skips."""
    soundfile = pytest.importorskip("soundfile")
    dice, time = np.random.default_rng(0), np.arange(3 * 16_000) / 16_000
    values = 0.3 * np.sin(2 * np.pi * (500 + 150 * time) * time) * (dice.random(len(time)) < 0.9)
    soundfile.write(tmp_path / "a.mp3", values, 16_000)
    with open_sound(str(tmp_path / "a.mp3")) as sound:
        whole = sound.read(0, len(time))
        for start in range(5_000, 40_000, 1_111):
            assert np.abs(sound.read(start, 4_000) - whole[:, start : start + 4_000]).max() < 1e-3
    print("after")
    assert capfd.readouterr() == ("after\n", "")


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("openjepa.data.audio_io.find_spec", lambda name: None)
    file = tmp_path / "a.flac"
    file.write_bytes(b"fLaC" + bytes(100))
    with pytest.raises(Undecodable, match=r"pip install 'openjepa\[audio\]'"):
        read_all(file)
    monkeypatch.setitem(__import__("sys").modules, "soxr", None)
    with pytest.raises(UserError, match=r"--data.rate 44100"):
        resample(VALUES[None], 44100, 8000, 10)


@pytest.mark.parametrize("rates", [(44100, 8000), (8000, 16000), (48000, 16000)])
def test_resampling_keeps_a_sine(rates):
    pytest.importorskip("soxr")
    old, new = rates
    sine = lambda rate: np.sin(2 * np.pi * 440 * np.arange(rate) / rate).astype(np.float32)  # noqa: E731
    result = resample(sine(old)[None], old, new, new)[0]
    inside = slice(new // 10, -new // 10)
    np.testing.assert_allclose(result[inside], sine(new)[inside], atol=1e-4)


def test_resampling_takes_away_what_the_new_rate_cannot_hold():
    pytest.importorskip("soxr")
    high = np.sin(2 * np.pi * 6000 * np.arange(16000) / 16000).astype(np.float32)
    assert np.abs(resample(high[None], 16000, 8000, 8000)[0, 500:-500]).max() < 1e-3


def test_channels_are_averaged_or_repeated_but_never_dropped():
    stereo = np.stack([VALUES, 3 * VALUES])
    np.testing.assert_allclose(mix(stereo, 1)[0], 2 * VALUES)
    assert mix(VALUES[None], 2).shape == (2, 2000)
    with pytest.raises(Undecodable, match="--data.channels 1"):
        mix(np.stack([VALUES] * 3), 2)


@pytest.mark.parametrize("u", [0.0, 0.5, 0.999])
def test_a_stretch_lies_in_its_recording_and_its_middle_in_its_part(u):
    assert 0 <= start_of(u, 0, 100, 30, 100) <= 70
    for first, last in ((0, 40), (60, 100), (90, 100)):
        start = start_of(u, first, last, 30, 100)
        assert 0 <= start <= 70 and (start in (0, 70) or first <= start + 15 <= last)
    assert -20 <= start_of(u, 0, 10, 30, 10) <= 0


@pytest.fixture
def recordings(tmp_path) -> Path:
    """Write six recordings of one second, whose values count up, into two folders."""
    for number in range(6):
        (tmp_path / f"class{number % 2}").mkdir(exist_ok=True)
        ramp = (np.arange(RATE) + number * RATE) / 65536
        (tmp_path / f"class{number % 2}" / f"{number}.wav").write_bytes(wav_content(ramp, RATE))
    return tmp_path


def data_of(folder: Path, **settings) -> Audio:
    defaults = {"rate": RATE, "frames": 16, "bands": 16, "mean": (0.0,), "std": (1.0,)}
    return Audio(root=(str(folder),), **{**defaults, **settings})


def test_training_stretches_are_random_and_repeatable_and_evaluation_reads_the_middle(recordings):
    data = data_of(recordings)
    files = data.dataset(data.listing())
    index = torch.arange(6)
    rng = lambda step: CounterRNG.of(0, 0, index.numpy() + 6 * step)  # noqa: E731
    one, again, other = (files.read(index, rng(step)).views[0] for step in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other) and one.shape == (6, 1, 1280)
    steps = one.diff(dim=-1)
    assert torch.allclose(steps, torch.full_like(steps, 1 / 65536), atol=1e-4)  # one stretch of one file
    middle = files.read(index, None)
    assert middle.label.tolist() == [0, 0, 0, 1, 1, 1]
    assert abs(middle.views[0][0, 0, 640].item() - 4000 / 65536) < 0.001


def test_several_stretches_and_parts_of_long_files(recordings):
    data = data_of(recordings, eval_clips=3)
    views = data.dataset(data.listing()).read(torch.arange(6), None).views
    assert len(views) == 3 and views[0][0, 0, 0] < views[1][0, 0, 0] < views[2][0, 0, 0]
    parts = data_of(recordings, every=0.25)
    files = parts.dataset(parts.listing())
    assert len(files) == 24 and files.source(1).endswith("class0/0.wav#t=0.25")
    assert files.groups.tolist()[:5] == [0, 0, 0, 0, 1]
    assert torch.equal(parts.read(files.source(1)), files.read(torch.tensor([1]), None).views[0][0])


@pytest.mark.parametrize("short", ["repeat", "silence"])
def test_a_short_recording_is_repeated_or_lies_in_silence(short, recordings):
    data = data_of(recordings, frames=120, short=short)  # 1.2 s
    files = data.dataset(data.listing())
    for rng in (None, CounterRNG.of(1, 0, np.arange(1))):
        values = files.read(torch.tensor([3]), rng).views[0][0, 0]
        silent = int((values == 0).sum())
        assert silent == (1600 if short == "silence" else 0)
        if short == "repeat":
            assert torch.equal(values[:1600], values[8000:])


def test_gain_and_speed_change_training_stretches_only(recordings):
    pytest.importorskip("soxr")
    data = data_of(recordings, gain=6.0, speed=(2.0, 2.0))
    files, index = data.dataset(data.listing()), torch.arange(6)
    plain = data_of(recordings).dataset(data.listing())
    assert torch.equal(files.read(index, None).views[0], plain.read(index, None).views[0])
    steps = files.read(index, CounterRNG.of(0, 0, index.numpy())).views[0][..., 100:-100].diff(dim=-1).mean((1, 2))
    factor = steps * 65536 / 2
    assert (factor.max() < 2.0) and (factor.min() > 0.5) and factor.std() > 0.05


def test_an_undecodable_file_is_replaced_in_training_and_reported_in_evaluation(recordings):
    (recordings / "class0" / "0.wav").write_bytes(b"RIFF")
    data = data_of(recordings)
    files = data.dataset(data.listing())
    trained = files.read(torch.arange(6), CounterRNG.of(0, 0, np.arange(6)))
    assert trained.views[0].abs().amax((1, 2)).min() > 0 and trained.skipped
    tested = files.read(torch.arange(6), None)
    assert tested.label.tolist() == [-1, 0, 0, 1, 1, 1] and "0.wav" in tested.skipped[0].path
    with pytest.raises(UserError, match="its header is damaged"):
        data.read(str(recordings / "class0" / "0.wav"))


@pytest.mark.parametrize("damaged", [np.nan, -np.inf, 1e24])
def test_damaged_values_are_silence(tmp_path, damaged):
    values = VALUES.copy()
    values[10:20] = damaged
    (tmp_path / "a.wav").write_bytes(wav_bytes(3, 32, values.tobytes()))
    with open_sound(str(tmp_path / "a.wav")) as sound:
        stretch = read_stretch(sound, 0, 2000, 1)[0]
    assert (stretch[10:20] == 0).all() and np.array_equal(stretch[20:], values[20:])


def test_members_of_archives_are_read(recordings, tmp_path):
    import tarfile

    with tarfile.open(tmp_path / "all.tar", "w") as archive:
        for file in sorted(recordings.glob("class*/*.wav")):
            archive.add(file, f"{file.parent.name}/{file.name}")
    loose, packed = data_of(recordings), data_of(tmp_path / "all.tar")
    both = [each.dataset(each.listing()).read(torch.arange(6), None) for each in (loose, packed)]
    assert torch.equal(both[0].views[0], both[1].views[0]) and torch.equal(both[0].label, both[1].label)


def test_sound_of_a_video_is_read_where_it_starts(tmp_path):
    av = pytest.importorskip("av")
    file = tmp_path / "a.mp4"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        tone = np.concatenate([np.zeros(16000), np.sin(np.arange(32000) * 0.3)]).astype(np.float32)
        for first in range(0, 48000, 1000):
            frame = av.AudioFrame.from_ndarray(tone[None, first : first + 1000], "fltp", "mono")
            frame.sample_rate, frame.pts = 16000, first
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with open_sound(str(file)) as sound:
        whole, part = sound.read(0, sound.frames), sound.read(20000, 4000)
    loud = np.abs(whole[0]) > 0.5
    assert abs(int(loud.argmax()) - 16000) < 200
    np.testing.assert_allclose(part, whole[:, 20000:24000], atol=0.02)


@pytest.mark.parametrize(
    "source", [np.zeros((2, 3, 4)), b"text", np.zeros(10, complex), np.array([np.nan]), np.array([1e24])]
)
def test_other_inputs_are_refused(source):
    with pytest.raises(UserError):
        data_of(Path()).read(source) if not isinstance(source, bytes) else list(data_of(Path()).iterate(source))


def test_arrays_and_files_give_the_same_view(recordings):
    data = data_of(recordings)
    file = recordings / "class1" / "3.wav"
    with wave.open(str(file)) as stream:
        whole = np.frombuffer(stream.readframes(RATE), "<i2")
    expected = data.read(file)
    assert torch.equal(data.read(whole), expected)
    assert torch.equal(data.read(torch.from_numpy(whole.astype(np.float32) / 32768)[None]), expected)
    assert io.BytesIO and replace(data, frames=8).read(file).shape == (1, 640)
