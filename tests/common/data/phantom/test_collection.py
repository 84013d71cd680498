"""The phantom: the same bytes everywhere, anatomy as it is drawn, files as they are said to be.

Also the test of ``common.data.phantom.abdomen``, ``common.data.phantom.thorax``, ``common.data.phantom.preview``.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from common.data.datasets.verify import check
from common.data.phantom import files as phantom_files
from common.data.phantom import tasks as phantom_tasks
from common.data.phantom.anatomy import Subject, sample
from common.data.phantom.body import STRUCTURES, TISSUES
from common.data.phantom.collection import beside, write_phantom
from common.data.phantom.contrast import CONTRASTS, acquire
from common.data.phantom.flat import FLAT, picture
from common.data.phantom.layout import counts
from common.data.phantom.shapes import Blend, Cut, Ellipsoid, Placed, Tube, Warp, rotation
from common.data.phantom.tasks import GENERAL, TASKS, label_values, scan
from common.errors import ConfigError, DataError
from common.labels import LabelSpace

BY_NAME = {task.name: task for task in TASKS}


def digest(folder: Path) -> dict[str, str]:
    """Contents by name, without what trainings prepared beside them."""
    files = sorted(f for f in folder.rglob("*") if f.is_file() and ".prepared" not in f.parts)
    return {f.relative_to(folder).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def read(folder: Path) -> dict:
    return json.loads((folder / "dataset.json").read_text(encoding="utf-8"))


def everything(data: dict) -> list[dict]:
    return [e for s in ("training", "validation", "test", "unlabelled") for e in data[s]]


# ---- the folder ------------------------------------------------------------------------------------------------


def test_collection_has_three_tasks_with_partial_overlapping_labels(phantom_dir):
    spaces = {p.parent.name: LabelSpace.from_json(read(p.parent)["labels"]) for p in phantom_dir.glob("*/dataset.json")}
    assert set(spaces) == {"phantom_ct", "phantom_mr", "phantom_lge"}
    names = {name: set(space.names) for name, space in spaces.items()}
    assert {"liver", "spleen", "left kidney", "right kidney"} <= names["phantom_ct"] & names["phantom_mr"]
    assert "aorta" in names["phantom_ct"] & names["phantom_lge"]
    assert "aorta" not in names["phantom_mr"]
    for name, own in names.items():
        assert own - set().union(*(other for n, other in names.items() if n != name)), f"{name} shares everything"
    assert spaces["phantom_ct"].lookup(spaces["phantom_ct"])[1] == 1
    assert spaces["phantom_ct"].names.index("liver") != spaces["phantom_mr"].names.index("liver")


@pytest.mark.parametrize("name", BY_NAME)
def test_volumes_are_what_the_dataset_says(phantom_dir, name):
    folder, task = phantom_dir / name, BY_NAME[name]
    data = read(folder)
    assert data["licence"] == "CC0-1.0"
    assert data["modality"] == {"0": task.modality}
    ids = [e["id"] for e in everything(data)]
    assert len(ids) == len(set(ids))
    assert {s: len(data[s]) for s in counts(4)} == counts(4)
    for entry in everything(data):
        image = nib.load(folder / entry["image"])
        assert image.get_data_dtype() == np.int16
        assert nib.aff2axcodes(image.affine) == tuple(task.axcodes)
        assert int(image.header["sform_code"]) == int(image.header["qform_code"]) == 1
        np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-4)
        assert image.header.get_xyzt_units()[0] == "mm"
        assert min(image.shape) >= 16 and max(image.shape) <= 34
        if "label" in entry:
            label = nib.load(folder / entry["label"])
            assert label.shape == image.shape
            assert np.array_equal(label.affine, image.affine)
            values = set(np.unique(label.dataobj).tolist())
            assert values <= set(range(len(task.labels) + 1))
    assert all("label" not in e for e in data["unlabelled"])


def test_every_structure_is_there_in_some_training_and_some_test_case(phantom_dir):
    for task in TASKS:
        data = read(phantom_dir / task.name)
        for split in ("training", "test"):
            seen = set()
            for entry in data[split]:
                seen |= set(np.unique(nib.load(phantom_dir / task.name / entry["label"]).dataobj).tolist())
            assert seen == set(range(len(task.labels) + 1)), f"{task.name} {split}"


def test_data_check_finds_no_problem(phantom_dir, phantom_general_dir, phantom_2d_dir):
    for folder in (phantom_dir, phantom_general_dir, phantom_2d_dir, phantom_2d_dir / "phantom_2d_skin"):
        assert check(folder) == []


def test_one_task_is_anisotropic_and_orientations_differ():
    assert len({t.axcodes for t in TASKS}) == 3
    assert max(max(t.spacing) / min(t.spacing) for t in TASKS) > 1.5


def test_same_arguments_give_the_same_bytes(phantom_dir, phantom_general_dir, phantom_2d_dir, tmp_path):
    root = write_phantom(tmp_path / "again", size="tiny")
    assert digest(root) == digest(phantom_dir)
    assert digest(beside(root, "general")) == digest(phantom_general_dir)
    assert digest(beside(root, "2d")) == digest(phantom_2d_dir)


def test_bytes_do_not_depend_on_process_hash_or_time(phantom_dir, tmp_path):
    code = (
        "from pathlib import Path; from common.data.phantom.tasks import TASKS\n"
        "from common.data.phantom.collection import write_task\n"
        f"write_task(Path({str(tmp_path)!r}), TASKS[0], size='tiny', seed=0, cases=4)"
    )
    env = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "PYTHONPATH": str(Path(__file__).parents[4])}
    subprocess.run([sys.executable, "-c", code], check=True, env=env, timeout=120)
    assert digest(tmp_path) == digest(phantom_dir / "phantom_ct")


def test_another_seed_gives_other_subjects():
    a, b = (scan(TASKS[0], index=0, size="tiny", seed=s).image for s in (0, 1))
    assert a.shape != b.shape or not np.array_equal(a, b)


def test_medium_is_large_and_shows_the_same_subject():
    small, medium = (scan(TASKS[2], index=0, size=s) for s in ("small", "medium"))
    assert min(medium.image.shape) >= 80 and max(medium.image.shape) <= 130
    assert min(small.image.shape) >= 40 and max(small.image.shape) <= 68
    volumes = [[np.prod(s.spacing) * np.count_nonzero(s.label == v) for v in (1, 2, 4)] for s in (small, medium)]
    np.testing.assert_allclose(volumes[0], volumes[1], rtol=0.1)


def test_general_dataset_mixes_modalities(phantom_general_dir):
    data = read(phantom_general_dir)
    lows = [int(np.min(nib.load(phantom_general_dir / e["image"]).dataobj)) for e in everything(data)]
    assert min(lows) < -500 and max(lows) >= 0
    shared = {n for n in GENERAL.labels if sum(n in t.labels for t in TASKS) > 1}
    assert shared == set(GENERAL.labels)


# ---- written once, completely, or not at all -------------------------------------------------------------------


def small_root(tmp_path: Path, **options) -> Path:
    return write_phantom(tmp_path / "p", size="tiny", cases=1, parts=("general",), **options).with_name("p_general")


def test_second_call_writes_nothing(tmp_path):
    folder = small_root(tmp_path)
    before = {f: f.stat().st_mtime_ns for f in folder.rglob("*")}
    written = []
    small_root(tmp_path, progress=written.append)
    assert not written
    assert before == {f: f.stat().st_mtime_ns for f in folder.rglob("*")}


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_damaged_phantom_is_written_again(tmp_path, damage):
    folder = small_root(tmp_path)
    good = digest(folder)
    file = next(folder.rglob("*_0000.nii.gz"))
    file.unlink() if damage == "missing" else file.write_bytes(file.read_bytes()[:100])
    small_root(tmp_path)
    assert digest(folder) == good


def test_interrupted_writing_leaves_nothing_and_is_redone(tmp_path):
    def interrupt(case: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small_root(tmp_path, progress=interrupt)
    assert not list(tmp_path.iterdir())
    assert (small_root(tmp_path) / phantom_files.MARKER).exists()


def test_what_a_killed_writer_left_is_removed(tmp_path):
    host = phantom_files.socket.gethostname()
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    stale = tmp_path / f".p_general.partial-{host}-{dead.stdout.strip()}"
    stale.mkdir()
    other = tmp_path / f".p_general.partial-elsewhere-{dead.stdout.strip()}"
    other.mkdir()
    small_root(tmp_path)
    assert not stale.exists()
    assert other.exists(), "another machine may still be writing"


@pytest.mark.parametrize("name", ["[**", "*", "?", "**", "[a-z]"])
def test_a_folders_name_is_no_pattern(name, tmp_path):
    """Of what a killed writer left, nothing is removed that another folder's writer may have left."""
    host = phantom_files.socket.gethostname()
    for other in (tmp_path / f".p.partial-{host}-x", tmp_path / f".pp.partial-{host}-²"):
        other.mkdir()
    phantom_files._remove_stale(tmp_path / name)
    assert len(list(tmp_path.iterdir())) == 2
    own = tmp_path / f".{name}.partial-{host}-²"
    own.mkdir()
    phantom_files._remove_stale(tmp_path / name)
    assert not own.exists() and len(list(tmp_path.iterdir())) == 2
    phantom_files._remove_stale(tmp_path / "not there" / name)


def test_concurrent_writers_agree(tmp_path):
    code = (
        "from common.data.phantom.collection import write_phantom\n"
        f"write_phantom({str(tmp_path / 'p')!r}, size='tiny', cases=1, parts=('general',))"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])}
    running = [subprocess.Popen([sys.executable, "-c", code], env=env) for _ in range(3)]
    assert [p.wait(timeout=120) for p in running] == [0, 0, 0]
    assert [p.name for p in tmp_path.iterdir()] == ["p_general"]


def test_other_parameters_are_refused_unless_overwriting(tmp_path):
    folder = small_root(tmp_path)
    before = digest(folder)
    with pytest.raises(DataError, match="other parameters") as caught:
        small_root(tmp_path, seed=1)
    assert "--overwrite" in str(caught.value)
    assert digest(folder) == before
    small_root(tmp_path, seed=1, overwrite=True)
    assert digest(folder) != before


def test_phantom_of_an_older_generator_is_written_again(tmp_path):
    folder = small_root(tmp_path)
    good = digest(folder)
    marker = folder / phantom_files.MARKER
    marker.write_text(marker.read_text().replace(f'"format": {phantom_tasks.FORMAT}', '"format": 0'))
    next(folder.rglob("*_0000.nii.gz")).write_bytes(b"older")
    small_root(tmp_path)
    assert digest(folder) == good


@pytest.mark.parametrize("overwrite", [False, True])
def test_foreign_folder_is_never_touched(tmp_path, overwrite):
    (tmp_path / "p_general").mkdir()
    (tmp_path / "p_general" / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="no phantom"):
        small_root(tmp_path, overwrite=overwrite)
    assert (tmp_path / "p_general" / "thesis.txt").read_text() == "years of work"


def test_folder_names_with_spaces_and_umlauts(tmp_path):
    root = write_phantom(tmp_path / "Prüf körper", size="tiny", cases=1, parts=("general",))
    assert (root.with_name("Prüf körper_general") / "dataset.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "huge"}, "no such size"),
        ({"cases": 0}, "at least one training case"),
        ({"parts": ("tasks", "4d")}, "no such part"),
        ({"parts": ()}, "no such part"),
    ],
)
def test_illegal_arguments(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        write_phantom(tmp_path / "p", **{"size": "tiny", **options})
    assert not list(tmp_path.iterdir())


def test_counts():
    assert counts(6) == {"training": 6, "validation": 2, "test": 3, "unlabelled": 2}
    assert min(counts(1).values()) == 1


def test_preview_is_a_picture(tmp_path):
    folder = small_root(tmp_path, preview=True)
    picture_array = np.asarray(Image.open(folder / "preview.png").convert("RGB")).astype(int)
    assert picture_array.shape[1] > 1000
    colourful = (picture_array.max(-1) - picture_array.min(-1) > 60).mean()
    assert 0.005 < colourful < 0.6


# ---- the pictures ------------------------------------------------------------------------------------------------


def test_flat_datasets(phantom_2d_dir):
    for flat in FLAT:
        folder = phantom_2d_dir / flat.name
        data = read(folder)
        assert data["dim"] == 2
        subjects = {s: {e["subject"] for e in data[s]} for s in counts(4)}
        assert sum(map(len, subjects.values())) == len(set().union(*subjects.values())), "a subject is in two splits"
        for entry in everything(data):
            image = np.asarray(Image.open(folder / entry["image"]))
            assert image.dtype == np.uint8
            assert image.shape == ((64, 64, 3) if flat.contrast == "skin" else (64, 64))
            if "label" in entry:
                label = np.asarray(Image.open(folder / entry["label"]))
                assert label.shape == (64, 64)
                assert label.max() <= len(flat.labels)
        if flat.contrast == "skin":
            assert all(np.asarray(Image.open(folder / e["label"])).any() for e in data["training"])


def test_flat_collection_holds_the_grey_datasets(phantom_2d_dir):
    collection = json.loads((phantom_2d_dir / "collection.json").read_text(encoding="utf-8"))
    assert collection["datasets"] == ["phantom_2d_ct", "phantom_2d_mr"]


def test_flat_slices_show_the_liver_on_the_left_side_of_the_picture():
    label = picture(FLAT[0], subject=0, index=2, size="tiny")[1]
    columns = np.nonzero(label == 1)[1]
    assert columns.mean() < 32


def test_flat_illegal_size():
    with pytest.raises(ConfigError, match="no such size"):
        picture(FLAT[0], subject=0, index=0, size="huge")


# ---- the images ------------------------------------------------------------------------------------------------


def contrast_of(task, index=0):
    one = scan(task, index=index)
    return {n: one.image[one.label == v].astype(float) for v, n in enumerate(task.labels, 1) if (one.label == v).any()}


def test_contrast_inverts_between_modalities():
    ct, mr = contrast_of(TASKS[0]), contrast_of(TASKS[1])
    assert ct["aorta"].mean() > ct["liver"].mean() > ct["liver tumour"].mean()
    assert abs(ct["spleen"].mean() - ct["liver"].mean()) < 40
    assert mr["spleen"].mean() > 1.25 * mr["liver"].mean()
    assert mr["gallbladder"].mean() > 1.8 * mr["liver"].mean()
    values = CONTRASTS["T2"].values
    assert values["artery"] < values["liver"] < values["tumour"]
    assert CONTRASTS["T1"].values["bile"] < CONTRASTS["T1"].values["liver"]


def test_scar_is_bright_in_dark_muscle_and_lies_in_it():
    one = scan(TASKS[2], index=1)
    muscle, scar = (TASKS[2].labels.index(n) + 1 for n in ("myocardium", "scar"))
    assert one.image[one.label == scar].mean() > 1.5 * one.image[one.label == muscle].mean()
    whole = label_values(np.arange(len(STRUCTURES) + 1, dtype=np.uint8), ("myocardium",))
    assert whole[STRUCTURES.index("scar") + 1] == 1, "not annotated on its own, the scar is muscle"


def test_organs_cannot_be_had_by_thresholds():
    """The best interval of intensities scores far below what a network is expected to reach."""
    for task, limit in ((TASKS[0], 0.65), (TASKS[1], 0.65), (TASKS[2], 0.65)):
        one = scan(task, index=0)
        scores = []
        for value in range(1, len(task.labels) + 1):
            truth = one.label == value
            best = 0.0
            inner = np.percentile(one.image[truth], (5, 15, 30, 70, 85, 95))
            for low in inner[:3]:
                for high in inner[3:]:
                    guess = (one.image >= low) & (one.image <= high)
                    best = max(best, 2 * np.count_nonzero(guess & truth) / (guess.sum() + truth.sum()))
            scores.append(best)
        assert np.mean(scores) < limit, (task.name, scores)


def test_subjects_differ():
    volumes = [np.count_nonzero(scan(TASKS[0], index=i, size="tiny").label == 2) for i in range(6)]
    assert np.std(volumes) > 0.08 * np.mean(volumes)


def test_every_sixth_subject_is_healthy():
    for task, name in ((TASKS[0], "liver tumour"), (TASKS[2], "scar")):
        value = task.labels.index(name) + 1
        assert [bool((scan(task, index=i, size="small").label == value).any()) for i in (0, 1, 5)] == [
            True,
            True,
            False,
        ]


def test_targets_are_small():
    one = scan(TASKS[0], index=0)
    assert 0.0001 < np.mean(one.label == 6) < 0.02


def test_noise_is_rician_in_mr_air():
    """In air a magnitude image has a Rayleigh distribution: mean = sd * sqrt(pi / (4 - pi))."""
    points = np.zeros((3, 40**3), dtype=np.float32)
    image = acquire(
        np.zeros((40, 40, 40), dtype=np.uint8), points=points, contrast="T2", rng=np.random.default_rng(0)
    ).astype(float)
    assert image.min() >= 0
    assert image.mean() / image.std() == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), rel=0.03)


def test_every_tissue_has_a_value_in_every_contrast():
    for name, contrast in CONTRASTS.items():
        assert set(contrast.values) == set(TISSUES), name


def test_unknown_contrast_region_and_size_are_refused():
    with pytest.raises(ConfigError, match="no such contrast"):
        acquire(
            np.zeros((2, 2, 2), np.uint8),
            points=np.zeros((3, 8), np.float32),
            contrast="PET",
            rng=np.random.default_rng(0),
        )
    with pytest.raises(ConfigError, match="no such body region"):
        Subject("knee", (0,))
    with pytest.raises(ConfigError, match="no such size"):
        scan(TASKS[0], index=0, size="huge")
    with pytest.raises(ConfigError, match="every tissue"):
        from common.data.phantom.contrast import _values

        _values("air 0 fat 1")


# ---- the shapes --------------------------------------------------------------------------------------------------


def grid(reach=30.0, step=1.0):
    axis = np.arange(-reach, reach + step, step)
    return np.stack([a.ravel() for a in np.meshgrid(axis, axis, axis, indexing="ij")]).astype(np.float32)


def test_ellipsoid_has_its_volume():
    inside = Ellipsoid((2, -3, 4), (10, 14, 8), (30, 20, 10)).field(grid()) < 0
    assert inside.sum() == pytest.approx(4 / 3 * np.pi * 10 * 14 * 8, rel=0.03)


def test_tube_is_the_distance_to_its_axis():
    points = np.random.default_rng(0).uniform(-30, 30, (3, 500)).astype(np.float32)
    field = Tube(((0, 0, -100), (0, 0, 100)), (5, 5)).field(points)
    np.testing.assert_allclose(field, np.hypot(points[0], points[1]) - 5, atol=1e-4)


def test_cut_and_blend_bound_the_plain_set_operations():
    a, b = Ellipsoid((-6.3, 0.1, 0), (10, 10, 10)), Ellipsoid((6.2, 0, 0.3), (10, 10, 10))
    points = grid(20)
    ina, inb = a.field(points) < 0, b.field(points) < 0
    np.testing.assert_array_equal(Cut(a, b).field(points) < 0, ina & ~inb)
    blended = Blend(a, b, 4).field(points) < 0
    assert not (~blended & (ina | inb)).any()


@pytest.mark.parametrize(
    "shape",
    [
        Ellipsoid((5, 1, 2), (4, 9, 6), (40, 0, 10)),
        Tube(((0, 0, 0), (10, 5, 0), (12, 9, 8)), (3, 4, 2)),
        Placed(Tube(((0, 0, 0), (10, 5, 0)), (3, 4)), (5, 2, 0), (3, -4, 5), 1.3, (30, 40, 50)),
        Blend(Ellipsoid((0, 0, 0), (6, 6, 6)), Ellipsoid((8, 0, 0), (5, 5, 5)), 4),
    ],
)
def test_bounds_contain_the_shape(shape):
    points = grid()
    centre, reach = shape.bounds()
    inside = points[:, shape.field(points) < 0]
    assert inside.size
    assert np.linalg.norm(inside - np.reshape(centre, (3, 1)), axis=0).max() <= reach + 1e-3


def test_rotation_is_proper():
    matrix = rotation((20, -35, 70))
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-6)
    assert np.linalg.det(matrix) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(rotation((0, 0, 90)) @ [1, 0, 0], [0, 1, 0], atol=1e-6)


def test_warp_does_not_fold():
    points = grid(100, 20.0)
    for seed in range(20):
        warp = Warp.draw(np.random.default_rng(seed), scale=0.09, degrees=6.0, bend=4.0)
        moved = [(warp(points + np.eye(3, dtype=np.float32)[:, [i]]) - warp(points)) for i in range(3)]
        determinant = np.linalg.det(np.stack(moved).transpose(2, 1, 0).astype(np.float64))
        assert determinant.min() > 0.2


def test_anatomy_does_not_depend_on_the_grid():
    points = np.random.default_rng(3).uniform(-90, 90, (3, 4000)).astype(np.float32)
    for region in ("abdomen", "thorax"):
        subject = Subject(region, (1, 2))
        whole = sample(subject, points)
        half = sample(subject, points[:, ::2])
        np.testing.assert_array_equal(whole[1][::2], half[1])
        np.testing.assert_array_equal(whole[0][::2], half[0])


def test_left_is_left():
    """x grows towards the patient's right (RAS): the liver is right, spleen and heart are left."""
    one = scan(TASKS[0], index=0)
    x = np.arange(one.label.shape[0])[:, None, None] * np.ones(one.label.shape)
    middle = {n: x[one.label == v].mean() for v, n in enumerate(TASKS[0].labels, 1)}
    assert middle["spleen"] < middle["aorta"] < middle["liver"]
    assert middle["left kidney"] < middle["aorta"] < middle["right kidney"]


def test_format_is_part_of_the_marker(phantom_dir):
    marker = json.loads((phantom_dir / phantom_files.MARKER).read_text())
    assert marker["parameters"]["format"] == phantom_tasks.FORMAT
    assert phantom_files.MARKER not in marker["files"]
