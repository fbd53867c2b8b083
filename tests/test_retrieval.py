"""Embed, search, duplicates, cluster, predict: every row equals plain arithmetic; bad input is one sentence."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from safetensors import safe_open

import openjepa
from openjepa.cli.cluster import cluster
from openjepa.cli.duplicates import duplicates
from openjepa.cli.embed import embed
from openjepa.cli.main import main
from openjepa.cli.pretrain import pretrain
from openjepa.cli.search import search
from openjepa.cli.settings import Cluster, Duplicates, Embed
from openjepa.core.errors import UserError
from openjepa.core.outputs import MARK
from openjepa.evaluation import feature_store as embedding_of
from openjepa.evaluation.clusters import class_agreement
from openjepa.evaluation.duplicates import Pairs, cosines_to_leader, group_pairs
from openjepa.evaluation.feature_store import FeatureChunk, FeatureWriter, store_features
from openjepa.evaluation.features import feature_encoder, view_reader
from openjepa.evaluation.index import open_index
from openjepa.evaluation.nearest import EXACT_LIMIT, ApproximateSearch, ExactSearch, choose_finder, normalize_rows
from openjepa.evaluation.settings import Search
from openjepa.evaluation.whitening import Whitening
from openjepa.masking.multiblock import MultiBlock
from openjepa.masking.region import covered_patches
from openjepa.viz import gallery
from openjepa.viz.gallery import reachable_rows
from tests.browser import browser
from tests.conftest import TINY, Image, Optim, Pretrain, replace


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    return pretrain(
        Pretrain(
            Image(root=(str(photos),), size=(32, 32), patch=4), TINY, MultiBlock(), Optim(warmup=0.1), steps=3,
            batch_size=16,
            device="cpu", precision="fp32", threads=1, workers=0, out=tmp_path_factory.mktemp("retrieval") / "run",
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def index(run, photos):
    return embed(
        Embed(run=str(run), data=str(photos), out=run.parent / "photos.safetensors", precision="fp32", device="cpu")
    )


def asked(run, photos, out, **more):
    return Embed(run=str(run), data=str(photos), out=out, precision="fp32", device="cpu", **more)


@pytest.mark.parametrize("ending", ["safetensors", "npy", "parquet"])
def test_rows_are_the_features_of_the_pictures_in_the_order_of_their_list(run, photos, tmp_path, ending):
    file = embed(asked(run, photos, tmp_path / f"x.{ending}"))
    found, trained = open_index(file), openjepa.load(run)
    assert found.files == sorted(found.files) and len(found.files) == 96
    assert found.classes == [name.split("/")[-2] for name in found.files]
    torch.testing.assert_close(torch.from_numpy(np.array(found.features)), trained.features(found.files))
    assert [file.name for file in tmp_path.glob(".*")] in ([], [MARK])  # nothing is left of the work
    assert found.metadata["encoder"] and found.metadata["kind"] == "last"


def test_other_tools_read_the_files(run, photos, tmp_path):
    import pyarrow.parquet as parquet

    for ending in ("safetensors", "npy", "parquet"):
        embed(asked(run, photos, tmp_path / f"x.{ending}"))
    with safe_open(tmp_path / "x.safetensors", "np") as file:
        rows = file.get_tensor("features")
    assert np.array_equal(rows, np.load(tmp_path / "x.npy"))
    table = parquet.read_table(tmp_path / "x.parquet")
    assert np.array_equal(rows, np.stack(table["features"].to_numpy())) and table.column_names == [
        "file",
        "class",
        "features",
    ]
    assert (tmp_path / "x.npy.csv").read_text().splitlines()[0] == "file,class"


@pytest.mark.parametrize("kind", ["last4", "patches"])
def test_other_kinds_of_features_are_written_as_they_are_given_in_code(run, photos, tmp_path, kind):
    for ending in ("npy", "parquet"):
        found = open_index(embed(asked(run, photos, tmp_path / f"x.{ending}", features=kind)))
        expected = openjepa.load(run).features(found.files[:5], kind)
        torch.testing.assert_close(torch.from_numpy(np.array(found.features[:5])), expected)


def test_an_interrupted_embedding_goes_on_where_it_stopped(run, photos, tmp_path, monkeypatch):
    """And not with another encoder, or other pictures."""
    monkeypatch.setattr(embedding_of, "CHUNK_ROWS", 16)
    whole, made = embed(asked(run, photos, tmp_path / "whole.npy")), []
    original = feature_encoder

    def stopping(*arguments):
        encode = original(*arguments)

        def encoded(first, read):
            made.append(first)
            if len(made) == 5:
                raise KeyboardInterrupt
            return encode(first, read)

        return encoded

    monkeypatch.setattr("openjepa.cli.embed.feature_encoder", stopping)
    with pytest.raises(KeyboardInterrupt):
        embed(asked(run, photos, tmp_path / "part.npy"))
    done = set(made[1:-1])  # the first is the look at one row that tells the shape
    with pytest.raises(UserError, match="contains features of another data"):
        embed(asked(run, min(photos.iterdir()), tmp_path / "part.npy"))
    made.clear()
    made.extend([0] * 5)  # past where it stops
    embed(asked(run, photos, tmp_path / "part.npy"))
    assert not done & set(made[6:]) and np.array_equal(np.load(whole), np.load(tmp_path / "part.npy"))


def test_two_processes_write_what_one_writes(run, photos, tmp_path):
    one = embed(asked(run, photos, tmp_path / "one.npy"))
    line = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "openjepa",
        "embed",
    ]
    line += [str(run), str(photos), "--out", str(tmp_path / "two.npy"), "--precision", "fp32", "--device", "cpu"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    assert np.array_equal(np.load(one), np.load(tmp_path / "two.npy"))


def test_each_process_makes_every_other_chunk(run, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(embedding_of, "CHUNK_ROWS", 16)
    for name, value in (("rank_and_size", (1, 2)), ("is_main", True), ("barrier", None)):
        monkeypatch.setattr(embedding_of, name, lambda value=value: value)
    made = []

    def encode(first, read):
        made.append(first)
        return FeatureChunk(first, {"x": torch.zeros(len(read.label), 4)}, read.label)

    data = replace(openjepa.load(run).data, root=(str(photos),))
    make = FeatureWriter(view_reader(data.dataset(data.listing())), encode)
    store_features(make, 96, {"encoder": "", "data": "", "precision": ""}, tmp_path)
    assert made == [0, 16, 48, 80]  # the first is the look at one row that tells the shape


def test_what_cannot_be_decoded_is_nan_and_is_never_found(run, photos, tmp_path):
    folder = tmp_path / "some"
    folder.mkdir()
    for number, file in enumerate(sorted(photos.rglob("*.png"))[:8]):
        (folder / f"{number}.png").symlink_to(file)
    (folder / "bad.png").write_text("no picture")
    found = open_index(embed(asked(run, folder, tmp_path / "x.npy")))
    bad = found.files.index(str(folder / "bad.png"))
    assert np.isnan(found.features[bad]).all() and np.isfinite(np.delete(found.features, bad, 0)).all()
    for whiten in (True, False):
        hits = search(
            Search(index=tmp_path / "x.npy", query=f"row:{(bad + 1) % 9}", count=20, whiten=whiten, page=False)
        )
        assert len(hits) == 7 and bad not in [hit.row for hit in hits]
    with pytest.raises(UserError, match="which could not be decoded"):
        search(Search(index=tmp_path / "x.npy", query=f"row:{bad}"))
    assert all(bad not in group for group in duplicates(Duplicates(index=tmp_path / "x.npy", threshold=-0.9)))
    assert cluster(Cluster(index=tmp_path / "x.npy", clusters=2)).cluster[bad] == -1


@pytest.mark.parametrize("count", [1, 3, 40])
def test_exact_search_is_brute_force(count):
    """Against one sort of all cosines, ties by the row; of more rows than are looked at at once."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(700, 8)).astype(np.float32)
    x[[5, 77, 300]] = x[3] * 2  # the same direction
    near = ExactSearch(x).find(x[:20], count)
    y = x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    cosine = (y[:20] @ y.T).astype(np.float32)
    for query in range(20):
        order = np.lexsort((np.arange(700), -cosine[query].round(6)))[:count]
        assert set(near.rows[query]) == set(order) or np.allclose(near.cosine[query], cosine[query][order], atol=1e-6)
        np.testing.assert_allclose(near.cosine[query], cosine[query][order], atol=1e-6)


def test_exact_search_in_pieces_is_the_same(monkeypatch):
    x = np.random.default_rng(1).normal(size=(500, 16)).astype(np.float32)
    whole = ExactSearch(x).find(x[:9], 12)
    monkeypatch.setattr("openjepa.evaluation.nearest.PIECE_ROWS", 37)
    parts = ExactSearch(x).find(x[:9], 12)
    assert np.array_equal(whole.rows, parts.rows) and np.allclose(whole.cosine, parts.cosine)


def test_whitening_makes_directions_alike():
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(4000, 6)) * [100, 10, 5, 2, 1, 1] + 7).astype(np.float32)
    for power in (0.5, 1.0):
        seen = Whitening.of(x, power).map(x)
        covariance = np.cov(seen.T)
        expected = np.sort(np.var(x, 0) + 0.01 * np.var(x, 0).mean()) ** (1 - power)
        assert np.allclose(seen.mean(0), 0, atol=1e-2)
        off = covariance - np.diag(np.diag(covariance))
        assert np.abs(off).max() < 0.02 * expected.max()
        assert np.diag(covariance)[-1] == pytest.approx(expected.max(), rel=0.05)


def test_of_fewer_rows_than_numbers_nobody_knows_what_is_loud():
    x = np.random.default_rng(0).normal(size=(24, 24)).astype(np.float32)
    assert Whitening.partial(x[:23]) is None
    assert np.array_equal(Whitening.partial(x).map(x), Whitening.of(x, 0.5).map(x))


def clustered(count: int, width: int = 32) -> np.ndarray:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(50, width))
    return (centres[rng.integers(50, size=count)] + 0.4 * rng.normal(size=(count, width))).astype(np.float32)


def test_the_approximate_index_finds_what_it_says_and_is_kept(tmp_path, capsys):
    pytest.importorskip("faiss", reason="the extra openjepa[search] is not installed")
    x = clustered(20_000)
    made = ApproximateSearch.of(x, tmp_path / "a.faiss")
    assert "recall@10" in capsys.readouterr().out
    truth, found = ExactSearch(x).find(x[::100], 10).rows, made.find(x[::100], 10).rows
    recall = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(truth, found, strict=True)])
    stated = float(re.search(r"recall@10 ([\d.]+)", made.how)[1])
    assert recall > 0.93 and abs(recall - stated) < 0.04
    before = (tmp_path / "a.faiss").stat().st_mtime_ns
    again = ApproximateSearch.of(x, tmp_path / "a.faiss")
    assert np.array_equal(again.find(x[:5], 10).rows, made.find(x[:5], 10).rows)
    assert (tmp_path / "a.faiss").stat().st_mtime_ns == before and again.how == made.how
    ApproximateSearch.of(clustered(20_000) + 1, tmp_path / "a.faiss")  # other features: made anew
    assert (tmp_path / "a.faiss").stat().st_mtime_ns != before


def test_few_rows_are_all_looked_at_and_many_are_not(tmp_path, monkeypatch):
    pytest.importorskip("faiss", reason="the extra openjepa[search] is not installed")
    x = clustered(3000)
    assert isinstance(choose_finder(x, tmp_path / "a"), ExactSearch) and EXACT_LIMIT >= 100_000
    monkeypatch.setattr("openjepa.evaluation.nearest.EXACT_LIMIT", 1000)
    assert isinstance(choose_finder(x, tmp_path / "a"), ApproximateSearch) and isinstance(
        choose_finder(x, tmp_path / "a", True), ExactSearch
    )


def test_a_copy_finds_the_picture_first_and_the_picture_not_itself(index, tmp_path):
    names, copied = open_index(index).files, tmp_path / "copied.png"
    shutil.copy(names[30], copied)
    hits = search(Search(index=index, query=str(copied), count=5))
    assert hits[0].row == 30 and hits[0].cosine == pytest.approx(1, abs=1e-4)
    for query in ("row:30", names[30], os.path.relpath(names[30])):
        rows = search(Search(index=index, query=query, count=4))
        assert [hit.row for hit in rows] == [hit.row for hit in hits[1:]]
    assert index.with_name("photos-search.png").stat().st_size > 1000


def test_a_part_of_a_picture_is_the_mean_of_its_patches(run, index):
    """A box over everything is the picture itself; of a quarter, sixteen of the 64 patches."""
    file = open_index(index).files[7]
    whole, boxed = (
        search(Search(index=index, query=file, count=5, box=box, page=False)) for box in (None, (0.0, 0.0, 1.0, 1.0))
    )
    assert [hit.row for hit in whole] == [hit.row for hit in boxed]
    inside = covered_patches((0.5, 0.0, 1.0, 0.5), (8, 8))
    assert inside.sum() == 16 and inside[:4, 4:].all()
    assert covered_patches((0.51, 0.51, 0.52, 0.52), (8, 8)).sum() == 1
    vector = openjepa.load(run).features(file, "patches")[0].numpy()[inside.ravel()].mean(0)
    hits = search(Search(index=index, query=file, count=3, box=(0.5, 0.0, 1.0, 0.5), whiten=False, page=False))
    x = np.array(open_index(index).features)
    best = np.argsort(-(normalize_rows(x) @ normalize_rows(vector)), kind="stable").tolist()
    assert [hit.row for hit in hits] == [row for row in best if row != 7][:3]


def test_in_an_index_of_patches_a_picture_is_as_near_as_its_nearest_patch(run, photos, tmp_path):
    file = embed(asked(run, photos, tmp_path / "p.npy", features="patches"))
    found = open_index(file)
    hits = search(Search(index=file, query=found.files[3], count=4, box=(0.0, 0.0, 0.25, 0.25)))
    vector = np.array(found.features[3]).reshape(8, 8, -1)[:2, :2].reshape(4, -1).mean(0)
    best = (normalize_rows(np.array(found.features)) @ normalize_rows(vector)).max(1)
    assert [hit.row for hit in hits] == [row for row in np.argsort(-best, kind="stable").tolist() if row != 3][:4]
    assert not (tmp_path / "p-search.html").exists()


def test_the_page_holds_the_true_neighbours_and_nothing_from_elsewhere(index):
    hits = search(Search(index=index, query="row:30", count=6))
    page = index.with_name("photos-search.html").read_text()
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", page) and "http" not in re.sub('data:[^"]*', "", page)
    told = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
    rows = [told["pictures"][number]["row"] for number, _ in told["pictures"][0]["near"]]
    assert rows == [hit.row for hit in hits]
    for each in told["pictures"][1:8]:
        own = search(Search(index=index, query=f"row:{each['row']}", count=6, page=False))
        assert [told["pictures"][number]["row"] for number, _ in each["near"]] == [hit.row for hit in own]


def test_a_page_does_not_grow_without_end(monkeypatch):
    monkeypatch.setattr(gallery, "MAX_IMAGES", 30)

    def of(rows):
        return [[(row * 7 + step, 0.5) for step in range(1, 8)] for row in rows]

    wanted, near = reachable_rows([1, 2, 3], of)
    assert len(wanted) <= 30 and near and all(other in wanted for found in near.values() for other, _ in found)


def test_a_click_on_a_neighbour_searches_from_it(index):
    hits = search(Search(index=index, query="row:30", count=6))
    second = search(Search(index=index, query=f"row:{hits[1].row}", count=6, page=False))
    search(Search(index=index, query="row:30", count=6))
    with browser() as window:
        from selenium.webdriver.support.ui import WebDriverWait

        window.get(index.with_name("photos-search.html").as_uri())

        def page() -> tuple[str, list[str]]:
            """Read query and results at one moment: a click draws them anew a little later."""
            query, files = window.execute_script(
                "return [document.querySelector('#query strong').textContent,"
                "[...document.querySelectorAll('#results button')].map(button => button.title)]"
            )
            return query, files

        start = page()
        assert start[1] == [hit.file for hit in hits]
        window.find_elements("css selector", "#results button")[1].click()
        wait = WebDriverWait(window, 30)
        wait.until(lambda _: page() == (hits[1].file, [hit.file for hit in second]))
        window.find_element("id", "back").click()
        wait.until(lambda _: page() == start)
        assert not [line for line in window.get_log("browser") if line["level"] == "SEVERE"]
        events = [json.loads(line["message"])["message"] for line in window.get_log("performance")]
        addresses = [
            each["params"]["request"]["url"] for each in events if each["method"] == "Network.requestWillBeSent"
        ]
        assert all(address.startswith(("file:", "data:")) for address in addresses)


def test_copies_are_found_and_others_are_not(run, photos, tmp_path, capsys):
    """Of 60 pictures nine are there again, as JPEG or a hundredth darker."""
    folder, files = tmp_path / "copies", sorted(photos.rglob("*.png"))[:60]
    folder.mkdir()
    for number, file in enumerate(files):
        (folder / f"{number:02d}.png").symlink_to(file)
    for number in range(0, 9):
        picture = Pillow.open(files[number])
        if number % 2:
            picture.save(folder / f"{number:02d}copy.jpg", quality=98, subsampling=0)
        else:
            picture.point(lambda value: int(value * 0.99)).save(folder / f"{number:02d}copy.png")
    file = embed(asked(run, folder, tmp_path / "x.safetensors"))
    groups = duplicates(Duplicates(index=file, threshold=0.9))
    names = open_index(file).files
    found = {tuple(sorted(names[row].split("/")[-1][:2] for row in group)) for group in groups if len(group) == 2}
    assert {(f"{number:02d}",) * 2 for number in range(9)} <= found
    assert sum(len(group) for group in groups) <= 24  # scenes that are nearly empty are nearly the same
    lines = list(csv.DictReader((tmp_path / "x-duplicates.csv").open()))
    assert [int(line["row"]) for line in lines] == [row for group in groups for row in group]
    assert all(0.9 <= float(line["cosine"]) <= 1 for line in lines)
    assert (tmp_path / "x-duplicates.png").stat().st_size > 1000
    assert "cosines are higher than the threshold assumes" not in capsys.readouterr().err
    duplicates(Duplicates(index=file))  # 69 images are few for the width of the features
    assert "cosines are higher than the threshold assumes" in capsys.readouterr().err


def test_groups_have_a_leader_and_no_chains():
    """1 is like 0 and 2, which are not alike: one group about 1. 3 is like 2 alone, which is taken."""
    pairs = Pairs(np.array([0, 1, 2, 4]), np.array([1, 2, 3, 5]), np.array([0.9, 0.9, 0.9, 0.5], np.float32))
    assert group_pairs(pairs, 0.85) == [[1, 0, 2]]
    assert group_pairs(pairs, 0.4) == [[1, 0, 2], [4, 5]] and group_pairs(pairs, 0.95) == []
    assert cosines_to_leader([4, 5], pairs) == [1.0, 0.5]


def test_clusters_are_named_by_size_and_agree_with_folders(index):
    pytest.importorskip("sklearn", reason="the extra openjepa[search] is not installed")
    found = cluster(Cluster(index=index))
    assert set(found.cluster) == {0, 1, 2}  # as many as there are folders
    sizes = np.bincount(found.cluster)
    assert list(sizes) == sorted(sizes, reverse=True)
    assert set(found.agreement) == {"adjusted mutual information", "adjusted Rand index", "purity"}
    again = cluster(Cluster(index=index))
    assert np.array_equal(found.cluster, again.cluster)
    page = index.with_name("photos-clusters.html").read_text()
    assert page.count("<h2>") == 3 and "http" not in re.sub('data:[^"]*', "", page)


def test_clusters_are_divided_by_other_features_of_the_same_files(index, tmp_path):
    pytest.importorskip("sklearn", reason="the extra openjepa[search] is not installed")
    plain = cluster(Cluster(index=index, out=tmp_path / "plain"))
    found = cluster(Cluster(index=index, sub_clusters=2, sub_features=index, out=tmp_path / "divided"))
    assert np.array_equal(found.cluster, plain.cluster) and set(found.sub_cluster) == {0, 1}
    assert sorted(found.rows(0)) == sorted([*found.rows(0, 0), *found.rows(0, 1)])
    page, table = ((tmp_path / f"divided{suffix}").read_text() for suffix in (".html", ".csv"))
    assert page.count("<h2>") == 3 and "2.1: " in page and table.splitlines()[0].endswith(",sub_cluster")
    np.save(tmp_path / "others.npy", np.eye(4, dtype=np.float32))
    (tmp_path / "others.npy.csv").write_text("file,class\n" + "".join(f"{name}.png,\n" for name in "abcd"))
    with pytest.raises(UserError, match="has not one vector for each file"):
        cluster(Cluster(index=index, sub_clusters=2, sub_features=tmp_path / "others.npy"))
    with pytest.raises(UserError, match="--sub-clusters must be at least 2"):
        cluster(Cluster(index=index, sub_features=index))


def test_agreement_is_one_where_clusters_are_the_folders():
    classes = np.array(["a", "a", "b", "b"])
    assert all(value == pytest.approx(1) for value in class_agreement(np.array([1, 1, 0, 0]), classes).values())
    assert class_agreement(np.array([0, 0, 0, 1]), classes)["purity"] == 0.75


def test_predict_says_what_the_probe_would(run, photos, tmp_path, capsys):
    """The head that is kept gives the classes that logistic regression gave, on the very features."""
    folder = tmp_path / "labelled"
    for part, names in (("train", slice(0, 20)), ("test", slice(20, 32))):
        for own in sorted(photos.iterdir()):
            (folder / part / own.name).mkdir(parents=True)
            for file in sorted(own.iterdir())[names]:
                (folder / part / own.name / file.name).symlink_to(file)
    out = ["--out", str(run / "probes"), "--precision", "fp32", "--device", "cpu"]
    assert main(["probe", str(run), "--data.root", str(folder), "--probes", "logistic", *out]) == 0
    told = json.loads((run / "probes" / "labelled.json").read_text())["scores"][0]["value"]
    answers = tmp_path / "answers.csv"
    line = ["predict", str(run), str(folder / "test"), "--out", str(answers), "--precision", "fp32", "--device", "cpu"]
    assert main(line) == 0
    rows = list(csv.DictReader(answers.open()))
    right = np.mean([row["file"].split("/")[-2] == row["class"] for row in rows])
    assert 100 * right == pytest.approx(told) and len(rows) == 36
    assert all(float(row["chance"]) >= float(row["second chance"]) for row in rows)
    assert (
        main(
            [
                "export",
                str(run),
                "--head",
                str(run / "probes" / "labelled-head.safetensors"),
                "--out",
                str(tmp_path / "hf"),
            ]
        )
        == 0
    )
    transformers = pytest.importorskip("transformers", reason="the extra openjepa[hf] is not installed")
    classify = transformers.pipeline("image-classification", model=str(tmp_path / "hf"), top_k=1)
    for row in rows[::9]:
        (best,) = classify(row["file"])
        assert best["label"] == row["class"] and best["score"] == pytest.approx(float(row["chance"]), abs=1e-3)
    assert "accuracy on test data" in (tmp_path / "hf" / "README.md").read_text()
    capsys.readouterr()
    other = run.with_name("other")
    if not other.exists():
        pretrain(replace(openjepa.load(run).config, seed=5, steps=1, out=other, resume="no"))
    assert (
        main(["predict", str(other), str(folder / "test"), "--head", str(run / "probes" / "labelled-head.safetensors")])
        == 1
    )
    assert "was trained on another encoder's features: jepa probe" in capsys.readouterr().err
    assert main(["predict", str(other), str(folder / "test")]) == 1
    assert "/probes has no classifier: run jepa probe" in capsys.readouterr().err


def test_one_picture_is_a_folder_of_one(run, photos, capsys):
    if not (run / "probes").exists():
        pytest.skip("no head was kept before")
    assert main(["predict", str(run), str(min(photos.rglob("*.png"))), "--precision", "fp32"]) == 0
    assert "class" in capsys.readouterr().out


BAD = {
    "gone.safetensors x.png": "gone.safetensors is not an index: make one with jepa embed",
    "INDEX gone.png": "gone.png is not an image file: give a path, or row:17",
    "INDEX row:96": "has rows 0 to 95, got row:96",
    "INDEX row:1 --count 0": "--count must be >= 1, got 0",
    "INDEX row:1 --box 0 0 0 1": "LEFT TOP RIGHT BOTTOM are fractions of the image, from 0 to 1",
    "INDEX notes.png": "notes.png: the file is text, not an image",
    "CUT row:1": "cut.safetensors is truncated",
    "ALONE row:1": "alone.safetensors.csv, the list of its files, is missing",
    "SHORT row:1": "has 96 rows but 2 file names: they do not belong together",
    "OTHER a.png --run RUN2": "was made with another encoder than",
    "NPY row:1": "is damaged",
}


@pytest.mark.parametrize("line", BAD)
def test_a_bad_question_is_one_sentence(index, photos, tmp_path, capsys, line, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.png").write_text("hello")
    content, rows = index.read_bytes(), index.with_name(index.name + ".csv").read_text()
    for name, part, lines in (("cut", content[:-500], rows), ("short", content, "\n".join(rows.splitlines()[:3]))):
        (tmp_path / f"{name}.safetensors").write_bytes(part)
        (tmp_path / f"{name}.safetensors.csv").write_text(lines)
    (tmp_path / "alone.safetensors").write_bytes(content)
    (tmp_path / "bad.npy").write_bytes(b"\x93NUMPY nothing")
    (tmp_path / "bad.npy.csv").write_text(rows)
    (tmp_path / "a.png").symlink_to(min(photos.rglob("*.png")))
    run2 = index.with_name("run2")
    if "RUN2" in line and not run2.exists():
        pretrain(replace(openjepa.load(index.with_name("run")).config, seed=6, steps=1, out=run2, resume="no"))
    names = {"INDEX": index, "OTHER": index, "CUT": "cut.safetensors", "ALONE": "alone.safetensors",
             "SHORT": "short.safetensors",
             "NPY": "bad.npy", "RUN2": run2}  # fmt: skip
    words = [str(names.get(word, word)) for word in line.split()]
    assert main(["search", *words]) == 1
    said = capsys.readouterr().err
    assert BAD[line] in said and said.count("\n") == 1 and "Traceback" not in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["embed", "RUN", "PHOTOS", "--out", "x.csv"],
         "--out x.csv must end in .safetensors, .npy, .parquet: try --out x.safetensors"),
        (["embed", "RUN", "PHOTOS", "--out", "INDEX"], "already exists: give another --out"),
        (["embed", "RUN", "nowhere", "--out", "y.npy"], "nowhere does not exist"),
        (["embed", "RUN", "PHOTOS", "--out", "y.npy", "--batch", "0"], "--batch must be >= 1, got 0"),
        (["duplicates", "INDEX", "--threshold", "3"],
         "--threshold must be a cosine between -1 and 1, e.g. 0.85, got 3"),
        (["cluster", "INDEX", "--clusters", "97"], "cannot put 96 images into 97 clusters"),
        (["push", "PHOTOS", "me/mine"], "has no model card: give a folder that jepa export wrote"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_one_sentence(run, index, photos, tmp_path, capsys, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    names = {"RUN": run, "INDEX": index, "PHOTOS": photos}
    assert main([str(names.get(word, word)) for word in words]) == 1
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1


def test_push_uploads_the_folder_and_says_what_the_hub_says(run, tmp_path, monkeypatch, capsys):
    hub = pytest.importorskip("huggingface_hub", reason="the extra openjepa[hf] is not installed")
    from huggingface_hub.errors import LocalTokenNotFoundError

    done = []

    class Hub:
        def __init__(self, **_):
            pass

        def create_repo(self, name, **more):
            if name == "no/token":
                raise LocalTokenNotFoundError("no token")
            done.append((name, more))

        def upload_folder(self, folder_path, repo_id):
            done.append((folder_path, repo_id))
            return f"https://hub/{repo_id}"

    monkeypatch.setattr(hub, "HfApi", Hub)
    assert main(["export", str(run), "--out", str(tmp_path / "hf"), "--license", "mit"]) == 0
    assert main(["push", str(tmp_path / "hf"), "me/mine", "--private"]) == 0
    assert done == [("me/mine", {"private": True, "exist_ok": True}), (str(tmp_path / "hf"), "me/mine")]
    assert main(["push", str(tmp_path / "hf"), "no/token"]) == 1 and "type hf auth login" in capsys.readouterr().err


def test_two_indexes_of_one_stem_and_a_list_of_the_users_own_are_told_apart(run, photos, tmp_path, capsys):
    """Each has its list under its whole name; nothing that is there is written over."""
    one, two = sorted(photos.iterdir())[:2]
    embed(asked(run, one, tmp_path / "x.safetensors"))
    embed(asked(run, two, tmp_path / "x.npy"))
    assert open_index(tmp_path / "x.safetensors").files[0].startswith(str(one))
    assert open_index(tmp_path / "x.npy").files[0].startswith(str(two))
    (tmp_path / "y.npy.csv").write_text("mine")
    with pytest.raises(UserError, match=r"y\.npy\.csv already exists"):
        embed(asked(run, one, tmp_path / "y.npy"))
    assert (tmp_path / "y.npy.csv").read_text() == "mine"
    assert open_index(tmp_path / "x.npy").classes == [""] * 32


@pytest.mark.parametrize(("key", "change"), [("fit", {"eval_crop": "margin"}), ("kind", {"features": "patches"})])
def test_an_embedding_is_not_gone_on_with_otherwise(run, photos, tmp_path, monkeypatch, key, change):
    original = FeatureWriter.chunks
    monkeypatch.setattr(FeatureWriter, "chunks", lambda self, spans: stopped(original(self, spans)))
    with pytest.raises(KeyboardInterrupt):
        embed(asked(run, photos, tmp_path / "x.npy"))
    monkeypatch.undo()
    with pytest.raises(UserError, match=f"contains features of another {key}: remove it"):
        embed(asked(run, photos, tmp_path / "x.npy", **change))


@pytest.mark.parametrize("ending", ["safetensors", "npy"])
def test_killed_while_the_files_get_their_names_it_goes_on(run, photos, tmp_path, monkeypatch, ending):
    """Between the list's and the features'."""
    whole = embed(asked(run, photos, tmp_path / f"whole.{ending}"))
    out, rename = tmp_path / f"x.{ending}", type(tmp_path).replace

    def killed(self, target):
        if target == out:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(type(tmp_path), "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        embed(asked(run, photos, out))
    monkeypatch.undo()
    assert out.with_name(f"{out.name}.csv").exists() and not out.exists()
    embed(asked(run, photos, out))
    assert (
        np.array_equal(open_index(out).features, open_index(whole).features)
        and open_index(out).files == open_index(whole).files
    )


def stopped(chunks):
    yield next(chunks)
    raise KeyboardInterrupt


def test_pictures_that_are_gone_are_said_to_be(run, photos, tmp_path, capsys):
    folder = tmp_path / "some"
    folder.mkdir()
    for number, file in enumerate(sorted(photos.rglob("*.png"))[:6]):
        (folder / f"{number}.png").write_bytes(file.read_bytes())
    embed(asked(run, folder, tmp_path / "x.npy"))
    folder.rename(tmp_path / "elsewhere")
    search(Search(index=tmp_path / "x.npy", query="row:2", count=3))
    said = capsys.readouterr().err
    assert "3 of 3 images are missing" in said and "gray tiles" in said
    with pytest.raises(UserError, match=r"\(row 2\) is missing: put it back, or give the path"):
        search(Search(index=tmp_path / "x.npy", query="row:2", box=(0.0, 0.0, 0.5, 0.5)))


def test_a_whole_picture_is_found_by_its_copy_in_an_index_of_patches(run, photos, tmp_path):
    file = embed(asked(run, photos, tmp_path / "p.npy", features="patches"))
    copied = shutil.copy(open_index(file).files[3], tmp_path / "copied.png")
    hits = search(Search(index=file, query=str(copied), count=2))
    assert hits[0].row == 3 and hits[0].cosine == pytest.approx(1, abs=1e-4)
