"""A comparison's page: whole, self-contained, and alive in a browser.

Also the test of ``tools.report.comparison_tables``, ``tools.report.pair_figures``.
"""

import base64
import csv
import gzip
import json
import re
import shutil
import subprocess
from pathlib import Path

import nibabel
import numpy as np
import pytest

from common.data.datasets.datalist import read_collection
from common.errors import DataError
from tests.tools.report.made_comparison import AFFINE, SHAPE, write_comparison
from tests.tools.report.test_command import Checker
from tools.report import viewer
from tools.report.command import comparison_report, report
from tools.report.comparison import read_comparison
from tools.report.comparison_page import render_comparison
from tools.report.volumes import viewer_cases, viewer_volumes

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_comparison(tmp_path_factory.mktemp("made with ä"))


@pytest.fixture(scope="module")
def page(folder):
    return Path(comparison_report(folder, dataset_dir=folder.parent / "data"))


def _shown(text):
    """The page without what is packed into it."""
    return re.sub(r'<script type="(application/json|text/plain)".*?</script>', "", text, flags=re.DOTALL)


def test_page_is_whole_and_fetches_nothing(page):
    text = page.read_text(encoding="utf-8")
    checker = Checker()
    shown = _shown(text).replace("<input ", "<br ")
    checker.feed(shown)
    assert checker.open == [] and len(set(checker.ids)) == len(checker.ids)
    assert all(link.startswith(("data:", "#")) for link in checker.links)
    assert {a[1:] for a in checker.links if a.startswith("#")} <= set(checker.ids)
    assert not re.search(r"https?://|@import|url\(", shown)
    assert not re.search(r"\b(nan|None)\b", shown.rpartition("<script>")[0])
    for words in ("Good", "Bad &lt;b&gt;", "prompted", "reference", "not measured", "20 steps", "a71775d",
                  "Left out: flat takes 2-D pictures", "Late: ExpertError: no expert"):  # fmt: skip
        assert words in shown, words
    assert "Bad <b>" not in text and "ExpertError: no expert\nread" not in text


def test_report_command_knows_a_comparison(folder, tmp_path):
    assert report(str(folder), out=str(tmp_path / "x.html")) == str(tmp_path / "x.html")
    assert {p.name for p in tmp_path.iterdir()} == {"x.html", "tables.md", "methods.csv", "structures.csv"}


def test_numbers_on_the_page_are_those_of_the_csv(folder, page):
    text = page.read_text(encoding="utf-8")
    line = (folder / "report" / "methods.csv").read_text().splitlines()
    good = dict(zip(line[0].split(","), line[1].split(","), strict=True))
    assert f'data-v="{good["dice_mean"]}"' in text and f"<b>{float(good['dice_mean']):.3f}</b>" in text


def test_a_licence_travels_with_the_library(page):
    text = page.read_text(encoding="utf-8")
    assert "Copyright (c) 2021, Niivue" in text and "Copyright (c) 2026 Arjun Barrett" in text


def test_a_changed_library_is_refused(monkeypatch, tmp_path):
    other = tmp_path / viewer.LIBRARY.name
    other.write_bytes(gzip.compress(b"alert(1)"))
    monkeypatch.setattr(viewer, "LIBRARY", other)
    with pytest.raises(DataError, match="library was changed"):
        viewer.viewer({"cases": [{}], "labels": []})
    assert viewer.viewer({"cases": [], "labels": []}) is None


def _volume(data):
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(data)))


def test_volumes_have_every_members_answer_on_the_images_grid(folder):
    volumes = viewer_volumes(read_comparison(folder), dataset_dir=folder.parent / "data")
    assert [c["kind"] for c in volumes["cases"]] == ["worst", "best"] and volumes["labels"][1]["name"] == "spleen"
    worst = volumes["cases"][0]
    assert [layer["name"] for layer in worst["layers"]] == ["Annotation", "Good", "Bad <b>", "Plain"]
    image = _volume(worst["image"])
    assert image.shape == SHAPE and np.allclose(image.affine, AFFINE) and image.get_data_dtype() == np.uint8
    label = np.asarray(_volume(worst["layers"][0]["data"]).dataobj)
    on_disk = nibabel.load(folder.parent / "data" / "toy" / "labels" / f"{worst['case']}.nii.gz")
    assert (label == np.asarray(on_disk.dataobj)).all()
    answer = np.asarray(_volume(worst["layers"][1]["data"]).dataobj)
    saved = nibabel.load(folder / "one" / "amalgamated" / "seed0" / "predictions" / "toy" / f"{worst['case']}.nii.gz")
    assert (answer == np.asarray(saved.dataobj)).all()


def test_large_volumes_become_coarser_and_stay_in_place(folder):
    volumes = viewer_volumes(read_comparison(folder), voxels=1000, dataset_dir=folder.parent / "data")
    image = _volume(volumes["cases"][0]["image"])
    label = _volume(volumes["cases"][0]["layers"][0]["data"])
    assert 300 < np.prod(image.shape) <= 1300 and image.shape == label.shape
    centre = np.argwhere(np.asarray(label.dataobj) == 1).mean(axis=0)
    assert np.allclose(nibabel.affines.apply_affine(label.affine, centre), [18, 20, 21], atol=3)


def test_answers_are_matched_by_the_structures_names(folder, tmp_path):
    shutil.copytree(folder.parent, tmp_path / "made")
    moved = tmp_path / "made" / "compare"
    run = moved / "two" / "alone" / "seed0"
    summary = json.loads((run / "evaluation" / "summary.json").read_text())
    (run / "evaluation" / "summary.json").write_text(json.dumps({**summary, "labels": {"names": ["spleen", "liver"]}}))
    case = viewer_volumes(read_comparison(moved), dataset_dir=tmp_path / "made" / "data")["cases"][0]
    saved = np.asarray(nibabel.load(run / "predictions" / "toy" / f"{case['case']}.nii.gz").dataobj)
    answer = np.asarray(_volume(case["layers"][3]["data"]).dataobj)
    assert (answer == np.array([0, 2, 1])[saved]).all()


def test_few_megabytes_keep_the_first_case_and_lost_images_keep_the_page(folder, tmp_path):
    comparison = read_comparison(folder)
    assert len(viewer_volumes(comparison, megabytes=0.001, dataset_dir=folder.parent / "data")["cases"]) == 1
    assert viewer_volumes(comparison, dataset_dir=tmp_path / "gone") == {"cases": [], "labels": []}


def test_data_that_only_the_record_names_are_read_in_its_own_folder_alone(folder, tmp_path):
    comparison = read_comparison(folder)
    shown = viewer_volumes(comparison)
    assert shown["cases"] == [] and str(folder.parent / "data") in shown["note"]
    text = render_comparison(comparison, {**shown, "note": shown["note"] + "<i>x"})
    assert "--dataset_dir" in text and "<i>x" not in text and "viewer-library" not in text
    assert 'href="#viewer"' in text and 'id="viewer"' in text and "iewer_note" not in text
    moved = shutil.copytree(folder, tmp_path / "compare")
    shutil.copytree(folder.parent / "data", moved / "data")
    record = {**comparison.record, "dataset_dir": str(moved / "data")}
    (moved / "compare.json").write_text(json.dumps(record))
    assert len(viewer_volumes(read_comparison(moved))["cases"]) == 2
    listing = moved / "data" / "toy" / "dataset.json"
    text = listing.read_text()
    for place in (str(folder.parent / "data" / "toy" / "images"), "../../../private"):
        shutil.copytree(folder.parent / "data" / "toy" / "images", tmp_path / "private", dirs_exist_ok=True)
        listing.write_text(text.replace('"images/', f'"{place}/'))
        assert viewer_volumes(read_comparison(moved))["cases"] == []
    listing.write_text(text)
    shutil.rmtree(moved / "data" / "toy" / "labels")
    (moved / "data" / "toy" / "labels").symlink_to(folder.parent / "data" / "toy" / "labels")
    assert viewer_volumes(read_comparison(moved))["cases"] == []


def test_an_answer_that_is_a_link_out_of_the_folder_is_refused(folder, tmp_path):
    moved = shutil.copytree(folder, tmp_path / "compare")
    for file in (moved / "one" / "amalgamated" / "seed0" / "predictions" / "toy").iterdir():
        shutil.move(file, tmp_path / file.name)
        file.symlink_to(tmp_path / file.name)
    with pytest.raises(DataError, match="leads out"):
        viewer_volumes(read_comparison(moved), dataset_dir=folder.parent / "data")


def test_worst_and_best_are_by_the_mean_over_members(folder):
    comparison = read_comparison(folder)
    (worst, _), (best, _) = viewer_cases(comparison)
    dice = {}
    for m in comparison.models:
        for (t, c, _), v in m.values("dice").items():
            dice.setdefault((t, c), []).append(v)
    means = {c: np.mean(v) for c, v in dice.items()}
    assert means[worst] == min(means.values()) and means[best] == max(means.values())


def test_pictures_become_one_slice(phantom_2d_dir, tmp_path):
    made = read_comparison(write_comparison(tmp_path / "made", cases=6))
    collection = read_collection(phantom_2d_dir)
    case = collection.datasets[0].cases("test")[0]
    rows = made.members[0].model.runs[0].rows
    for r in rows:
        r.update(task=collection.datasets[0].name, case=case.id)
    for m in made.members[1:]:
        for run in m.model.runs:
            run.rows.clear()
    made.members[0].model.runs[1].rows.clear()
    content = viewer_volumes(made, dataset_dir=phantom_2d_dir)["cases"][0]
    assert content["dim"] == 2 and [layer["name"] for layer in content["layers"]] == ["Annotation"]
    assert _volume(content["image"]).shape[2] == 1


TRY = """<script>
const order = () => [...document.querySelectorAll("#methods tbody tr")].map((r) => r.cells[0].dataset.v);
const found = { before: order() }, heads = document.querySelectorAll("#methods th");
window.addEventListener("error", (e) => { found.error = e.message; });
heads[1].click(); found.rising = order(); heads[1].click(); found.falling = order();
heads[0].click(); found.names = order();
const stage = document.getElementById("viewer-stage");
stage.scrollIntoView();
const tell = () => {
  const canvas = document.getElementById("viewer-canvas");
  Object.assign(found, { state: stage.dataset.state, volumes: stage.dataset.volumes,
    canvas: [canvas.width, canvas.height], status: document.getElementById("viewer-status").textContent,
    buttons: [...document.querySelectorAll("#viewer-layers button")].map((b) => b.textContent) });
  document.documentElement.dataset.found = JSON.stringify(found);
};
document.querySelectorAll("#viewer-layers button")[2].click();
setInterval(tell, 200);
</script></body>"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_page_lives_in_a_browser(page, tmp_path):
    tried = tmp_path / "tried.html"
    tried.write_text(page.read_text(encoding="utf-8").replace("</body>", TRY), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--no-first-run", f"--user-data-dir={tmp_path / 'chrome'}"]
    options += ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
    options += ["--window-size=1300,1800", "--virtual-time-budget=30000", "--enable-logging=stderr", "--dump-dom"]
    words = [CHROMIUM, *options, tried.as_uri()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=True)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not [line for line in console if "rror" in line], console
    found = re.search(r'data-found="([^"]*)"', done.stdout)
    assert found, done.stderr[-2000:]
    told = json.loads(found[1].replace("&quot;", '"').replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert "error" not in told
    means = {r["title"]: r["dice_mean"] for r in csv.DictReader((page.parent / "methods.csv").open())}
    rising = sorted((t for t in means if means[t]), key=lambda t: float(means[t]))
    assert told["before"] == told["falling"] == [*rising[::-1], "Late"] and told["rising"] == [*rising, "Late"]
    assert told["names"] == sorted(told["names"])
    assert told["state"] == "ready" and told["volumes"] == "2", told
    assert told["buttons"] == ["Annotation", "Good", "Bad <b>", "Plain"] and "Bad <b>, mean Dice" in told["status"]
    assert min(told["canvas"]) > 100
