"""Pages of recordings play them: from the second that was found, without a network."""

import io
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from openjepa.cli.main import main
from openjepa.data.wav_files import wav_content
from openjepa.masking.random import Random
from openjepa.methods.jepa import JEPA
from openjepa.modalities.audio import Audio
from openjepa.training.config import Pretrain
from openjepa.training.run import pretrain
from tests.browser import browser, serve_explorer
from tests.conftest import SMALL, SMALL_PREDICTOR

RATE = 4000
DATA = Audio(rate=RATE, frames=32, bands=16, patch=4, every=0.5)


def steps(count: int) -> np.ndarray:
    """Return half a second each of ever higher tones."""
    time = np.arange(RATE // 2) / RATE
    return np.concatenate([0.5 * np.sin(2 * np.pi * (150 + 100 * number) * time) for number in range(count)])


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Path:
    """Index a recording of eight tones, half a second each, by a tiny encoder."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "data").mkdir()
    (folder / "data" / "long.wav").write_bytes(wav_content(steps(8), RATE))
    settings = Pretrain(
        data=replace(DATA, root=(str(folder / "data"),)), method=JEPA(SMALL, SMALL_PREDICTOR), masks=Random(),
        steps=2, batch_size=4, threads=1, workers=0, report=False, device="cpu", precision="fp32", out=folder / "run",
    )  # fmt: skip
    run = pretrain(settings)
    assert main(["embed", str(run), str(folder / "data"), "--every", "0.5",
                 "--out", str(folder / "rows.safetensors")]) == 0  # fmt: skip
    return folder / "rows.safetensors"


def test_the_sound_of_a_part_is_the_stretch_that_the_encoder_saw(rows):
    file = str(rows.parent / "data" / "long.wav")
    with wave.open(io.BytesIO(DATA.sound(f"{file}#t=1.5"))) as stream:
        values = np.frombuffer(stream.readframes(RATE), "<i2") / 32767
    torch.testing.assert_close(torch.from_numpy(values).float(), DATA.read(f"{file}#t=1.5")[0], atol=1e-4, rtol=0)
    hz = np.abs(np.fft.rfft(values)).argmax() * RATE / len(values)
    assert abs(hz - 450) < 10  # the fourth tone


def test_a_search_finds_the_second_and_its_page_plays_it(rows, tmp_path, capsys):
    query = tmp_path / "query.wav"
    query.write_bytes(wav_content(steps(8)[5 * RATE // 2 : 6 * RATE // 2], RATE))
    out = tmp_path / "search"
    assert main(["search", str(rows), str(query), "--count", "3", "--no-whiten", "--out", str(out)]) == 0
    first = capsys.readouterr().out.split("\n1\t", 1)[1].splitlines()[0]
    assert "0:02.5" in first, first
    with browser() as window:
        from selenium.webdriver import ActionChains
        from selenium.webdriver.support.ui import WebDriverWait

        window.get(out.with_name("search.html").as_uri())
        players = window.find_elements("tag name", "audio")
        assert len(players) == 4  # the query and its neighbors
        left = 16 - players[1].size["width"] // 2  # where the button is
        ActionChains(window).move_to_element_with_offset(players[1], left, 0).click().perform()
        WebDriverWait(window, 10).until(lambda _: players[1].get_property("currentTime") > 0)
        assert players[1].get_property("duration") == pytest.approx(DATA.samples / RATE, abs=0.02)


def test_pages_of_clusters_have_players(rows, tmp_path):
    assert main(["cluster", str(rows), "--clusters", "2", "--out", str(tmp_path / "clusters")]) == 0
    page = (tmp_path / "clusters.html").read_text(encoding="utf-8")
    assert page.count("<audio") == 8 and "data:audio/wav;base64," in page


@pytest.mark.slow
def test_a_click_on_the_explorers_spectrogram_plays_from_there(rows, tmp_path):
    (tmp_path / "mine.wav").write_bytes(wav_content(steps(2), RATE))
    with browser() as window, serve_explorer(rows.parent / "run", tmp_path) as address:
        from selenium.webdriver import ActionChains
        from selenium.webdriver.support.ui import WebDriverWait

        wait = WebDriverWait(window, 60)
        window.get(address)
        wait.until(lambda _: "Nearest neighbors" in window.find_element("tag name", "body").text)
        picture, player = (window.find_element("css selector", name) for name in ("#picture", "#player"))
        wait.until(lambda _: player.get_property("duration"))
        first = player.get_property("src")
        x = picture.size["width"] // 4  # from the middle: three quarters
        ActionChains(window).move_to_element_with_offset(picture, x, 0).click().perform()
        wait.until(lambda _: player.get_property("currentTime") >= 0.74 * player.get_property("duration"))
        assert "Similar patches" in window.find_element("tag name", "body").text
        window.find_element("css selector", "input[type=file]").send_keys(str(tmp_path / "mine.wav"))
        wait.until(lambda _: window.find_element("css selector", "#caption").text == "mine.wav")
        wait.until(lambda _: player.get_property("src") != first)
        assert not [row for row in window.get_log("browser") if row["level"] == "SEVERE"]
        window.save_screenshot(str(tmp_path / "explorer.png"))
