"""The explorer: its answers against plain references, and its page as a person clicks it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image as Pillow

from openjepa.cli.pretrain import pretrain
from openjepa.core.errors import UserError
from openjepa.recipes.decoder import TrainDecoder, decoder_config
from openjepa.viz.explorer.page import check_port, explore
from openjepa.viz.explorer.session import Explore, Session
from openjepa.viz.prediction_error import load_predictive_method, predict_hidden
from openjepa.viz.predictions import PredictionOptions, prediction_masks
from tests.browser import browser
from tests.conftest import replace


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    """A run of a few steps, and a decoder on it."""
    from openjepa.modalities.image import Image
    from openjepa.training.config import Pretrain
    from tests.conftest import TINY

    out = tmp_path_factory.mktemp("explored") / "run"
    data = Image(root=(str(photos),), size=(32, 32), patch=4)
    shared = {"steps": 4, "batch_size": 16, "device": "cpu", "precision": "fp32", "threads": 1, "workers": 0}
    pretrain(Pretrain(data, TINY, **shared, log_every=2, out=out, report=False))
    asked = TrainDecoder(run=str(out), dim=48, depth=1, num_heads=2, steps=3, batch_size=16, device="cpu", threads=1)
    pretrain(replace(decoder_config(asked), report=False, log_every=3))
    return out


@pytest.fixture(scope="module")
def session(run):
    return Session.opened(Explore(run=str(run), count=60, map=0))


def test_the_patch_most_alike_is_found_by_the_cosine_less_each_places_mean(session):
    view, place = session.found.view[5], 10
    _, found = session.alike(view, place)
    with torch.no_grad():
        every = session.this.encode(session.found.view).patches
    x = F.normalize(every - every.mean(0), dim=-1)
    cosine = (x @ x[5, place]).numpy()
    cosine[5] = -2  # the picture itself is not found
    best = cosine.max(1)
    near = 3e-3  # patches are kept in half precision
    assert all(each.cosine == pytest.approx(float(cosine[each.row, each.place]), abs=near) for each in found)
    assert found[0].cosine == pytest.approx(float(best.max()), abs=near)
    assert found[-1].cosine >= np.sort(best)[-len(found)] - near
    assert [each.cosine for each in found] == sorted((each.cosine for each in found), reverse=True)
    assert len({each.row for each in found}) == len(found)


def test_a_pictures_neighbours_do_not_hold_itself_and_a_stranger_has_some_too(session):
    rows = [row for row, _ in session.neighbours(session.found.view[7])]
    assert 7 not in rows and len(rows) == 12
    stranger = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (3, 32, 32), np.uint8))
    assert len(session.neighbours(stranger)) == 12


def test_a_hidden_box_is_answered_as_show_prediction_would(session, run):
    view, box = session.found.view[3], (0.25, 0.25, 0.75, 0.75)
    answer = session.hidden(view, box)
    settings, method = load_predictive_method(run)
    found = session.found._replace(view=torch.cat([view[None], session.found.view[:48]]), names=("",) * 49)
    asked = PredictionOptions(run=str(run), box=box)
    expected = predict_hidden(method, settings, found, prediction_masks(asked, settings, found))
    ratio = expected.errors.predictor[0].mean() / expected.errors.mean[0].mean()
    assert answer.ratio == pytest.approx(float(ratio), rel=1e-5)
    assert len(answer.samples) == 3  # of the decoder that lies in the run's folder


def test_two_corners_in_any_order_are_one_box_within_the_picture(session):
    side = session.patch * 8
    assert (
        session.box((0.0, 0.0), (side / 2, side / 4))
        == session.box((side / 2, side / 4), (0.0, 0.0))
        == (0, 0, 0.5, 0.25)
    )
    assert session.box((-50.0, -50.0), (side / 2, side / 2)) == (0, 0, 0.5, 0.5)
    with pytest.raises(UserError, match="hides all"):
        session.hidden(session.found.view[0], session.box((0.0, 0.0), (1.0 * side, 1.0 * side)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"count": 0}, "not explored at once"),
        ({"count": 20_000}, "10,000 is the most"),
        ({"map": 3}, "a map has"),
        ({"images": ("nowhere",)}, "nowhere"),
        ({"decoder": "."}, "no decoder|not a run"),
    ],
)
def test_what_cannot_be_explored_is_said(run, changes, said):
    if "decoder" in changes:
        changes = {"decoder": run}
    with pytest.raises(UserError, match=said):
        Session.opened(Explore(**{"run": str(run), "count": 20, **changes}))


def test_a_port_in_use_is_a_sentence(run):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match="try --port"):
        check_port("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(UserError, match="port 70000"):
        check_port("127.0.0.1", 70000)
    with pytest.raises(UserError, match="no host"):
        check_port("300.1.1.1", 8080)


def test_without_the_toolkit_the_extra_is_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "nicegui", None)
    with pytest.raises(UserError, match=r"openjepa\[explore\]"):
        explore(Explore(run=str(run)))


@contextmanager
def served(run, tmp_path):
    """The page, as a user starts it."""
    pytest.importorskip("nicegui", reason="nicegui is not installed: pip install 'openjepa[explore]'")
    with socket.create_server(("127.0.0.1", 0)) as spare:
        port = spare.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "openjepa",
        "explore",
        str(run),
        "--count",
        "40",
        "--map",
        "20",
        "--port",
        str(port),
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("NICEGUI", "PYTEST"))}
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env=environment, start_new_session=True)
    try:
        for _ in range(300):
            with socket.socket() as asking:
                if asking.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, (tmp_path / "said").read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
def test_a_person_clicks_a_patch_drags_a_box_drops_a_picture_and_asks_the_map(run, tmp_path):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.support.ui import WebDriverWait

    Pillow.new("RGB", (40, 30), "red").save(tmp_path / "mine.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with browser() as window, served(run, tmp_path) as address:
        wait = WebDriverWait(window, 60)

        def said() -> str:
            return window.find_element("tag name", "body").text

        window.get(address)
        wait.until(lambda _: "Most like it" in said())
        picture = window.find_element("css selector", "#picture")
        ActionChains(window).move_to_element_with_offset(picture, 10, 10).click().perform()
        wait.until(lambda _: "Where else that is" in said())
        assert picture.find_elements("css selector", "rect")
        ActionChains(window).move_to_element_with_offset(picture, -60, -60).click_and_hold().move_by_offset(
            90, 90
        ).release().perform()
        wait.until(lambda _: "What it expects there" in said() and "drawn from" in said())
        before = window.find_element("css selector", "#caption").text
        window.find_element("css selector", "#another").click()
        wait.until(lambda _: window.find_element("css selector", "#caption").text != before)
        window.find_element("css selector", "#neighbours .tile").click()
        chooser = window.find_element("css selector", "input[type=file]")
        chooser.send_keys(str(tmp_path / "mine.png"))
        wait.until(lambda _: window.find_element("css selector", "#caption").text == "mine.png")
        window.find_element("css selector", "input[type=file]").send_keys(str(tmp_path / "broken.png"))
        wait.until(lambda _: "broken.png: " in said())
        wait.until(lambda _: "A map of 20 pictures" in said())
        errors = [row for row in window.get_log("browser") if row["level"] == "SEVERE"]
        assert not errors
        asked = [json.loads(row["message"])["message"] for row in window.get_log("performance")]
        urls = [each["params"]["request"]["url"] for each in asked if each["method"] == "Network.requestWillBeSent"]
        assert urls and all(url.startswith((address, "data:", "blob:")) for url in urls)
