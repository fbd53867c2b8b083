"""The explorer: its answers against plain references, and its page in a browser."""

import json
import socket
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image as Pillow

from openjepa.cli.pretrain import pretrain
from openjepa.core.errors import UserError
from openjepa.evaluation.predictive_runs import load_predictive_method
from openjepa.recipes.decoder import decoder_config
from openjepa.recipes.settings import TrainDecoder
from openjepa.viz.explorer.page import check_port, explore
from openjepa.viz.explorer.session import Session
from openjepa.viz.prediction_error import predict_hidden
from openjepa.viz.predictions import prediction_masks
from openjepa.viz.settings import Explore, PredictionOptions
from tests.browser import browser, serve_explorer
from tests.conftest import replace


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    """Train a run of a few steps and a decoder for it."""
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
    return Session.load(Explore(run=str(run), count=60, map=0))


def test_similar_patches_have_the_highest_cosine_after_subtracting_position_means(session):
    view, place = session.images.view[5], 10
    _, found = session.similar_patches(view, place)
    with torch.no_grad():
        every = session.encoder.encode(session.images.view).patches
    x = F.normalize(every - every.mean(0), dim=-1)
    cosine = (x @ x[5, place]).numpy()
    cosine[5] = -2  # the image itself is excluded
    best = cosine.max(1)
    near = 3e-3  # patches are stored in half precision
    assert all(each.cosine == pytest.approx(float(cosine[each.row, each.patch]), abs=near) for each in found)
    assert found[0].cosine == pytest.approx(float(best.max()), abs=near)
    assert found[-1].cosine >= np.sort(best)[-len(found)] - near
    assert [each.cosine for each in found] == sorted((each.cosine for each in found), reverse=True)
    assert len({each.row for each in found}) == len(found)


def test_neighbors_exclude_the_image_itself_and_exist_for_new_images(session):
    rows = [row for row, _ in session.neighbors(session.images.view[7])]
    assert 7 not in rows and len(rows) == 12
    stranger = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (3, 32, 32), np.uint8))
    assert len(session.neighbors(stranger)) == 12


def test_a_hidden_box_gives_the_error_of_show_prediction(session, run):
    view, box = session.images.view[3], (0.25, 0.25, 0.75, 0.75)
    answer = session.predict_region(view, box)
    settings, method = load_predictive_method(run)
    found = session.images._replace(view=torch.cat([view[None], session.images.view[:48]]), names=("",) * 49)
    asked = PredictionOptions(run=str(run), box=box)
    expected = predict_hidden(method, settings, found, prediction_masks(asked, settings, found))
    ratio = expected.errors.predictor[0].mean() / expected.errors.mean[0].mean()
    assert answer.ratio == pytest.approx(float(ratio), rel=1e-5)
    assert len(answer.samples) == 3  # of the decoder in the run's folder


def test_two_corners_in_any_order_give_one_box_inside_the_image(session):
    side = session.patch_side * 8
    assert (
        session.box((0.0, 0.0), (side / 2, side / 4))
        == session.box((side / 2, side / 4), (0.0, 0.0))
        == (0, 0, 0.5, 0.25)
    )
    assert session.box((-50.0, -50.0), (side / 2, side / 2)) == (0, 0, 0.5, 0.5)
    with pytest.raises(UserError, match="covers the whole image"):
        session.predict_region(session.images.view[0], session.box((0.0, 0.0), (1.0 * side, 1.0 * side)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"count": 0}, "--count must be"),
        ({"count": 20_000}, "1 to 10,000"),
        ({"map": 3}, "--map must be"),
        ({"images": ("nowhere",)}, "nowhere"),
        ({"decoder": "."}, "not a decoder|not a run"),
    ],
)
def test_bad_explore_settings_say_what_to_type(run, changes, said):
    if "decoder" in changes:
        changes = {"decoder": run}
    with pytest.raises(UserError, match=said):
        Session.load(Explore(**{"run": str(run), "count": 20, **changes}))


def test_a_bad_host_or_port_says_what_to_type(run):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match="try --port"):
        check_port("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(UserError, match="got 70000"):
        check_port("127.0.0.1", 70000)
    with pytest.raises(UserError, match="unknown host"):
        check_port("300.1.1.1", 8080)


def test_without_nicegui_the_error_names_the_extra(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "nicegui", None)
    with pytest.raises(UserError, match=r"openjepa\[explore\]"):
        explore(Explore(run=str(run)))


@pytest.mark.slow
def test_a_user_clicks_a_patch_drags_a_box_uploads_an_image_and_sees_the_map(run, tmp_path):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.support.ui import WebDriverWait

    Pillow.new("RGB", (40, 30), "red").save(tmp_path / "mine.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with browser() as window, serve_explorer(run, tmp_path) as address:
        wait = WebDriverWait(window, 60)

        def said() -> str:
            return window.find_element("tag name", "body").text

        window.get(address)
        wait.until(lambda _: "Nearest neighbors" in said())
        picture = window.find_element("css selector", "#picture")
        ActionChains(window).move_to_element_with_offset(picture, 10, 10).click().perform()
        wait.until(lambda _: "Similar patches" in said())
        assert picture.find_elements("css selector", "rect")
        ActionChains(window).move_to_element_with_offset(picture, -60, -60).click_and_hold().move_by_offset(
            90, 90
        ).release().perform()
        wait.until(lambda _: "Prediction for the hidden box" in said() and "decoded from" in said())
        before = window.find_element("css selector", "#caption").text
        window.find_element("css selector", "#another").click()
        wait.until(lambda _: window.find_element("css selector", "#caption").text != before)
        window.find_element("css selector", "#neighbors .tile").click()
        chooser = window.find_element("css selector", "input[type=file]")
        chooser.send_keys(str(tmp_path / "mine.png"))
        wait.until(lambda _: window.find_element("css selector", "#caption").text == "mine.png")
        window.find_element("css selector", "input[type=file]").send_keys(str(tmp_path / "broken.png"))
        wait.until(lambda _: "broken.png: " in said())
        wait.until(lambda _: "Map of 20 images" in said())
        errors = [row for row in window.get_log("browser") if row["level"] == "SEVERE"]
        assert not errors
        asked = [json.loads(row["message"])["message"] for row in window.get_log("performance")]
        urls = [each["params"]["request"]["url"] for each in asked if each["method"] == "Network.requestWillBeSent"]
        assert urls and all(url.startswith((address, "data:", "blob:")) for url in urls)
