"""The gate for paths that somebody wrote, and that everybody asks it."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from common.backbones.nnunet.network import read_results_folder
from common.contract import contract_of
from common.data.datasets.convert import write_dataset
from common.data.datasets.datalist import read_collection
from common.data.datasets.dataset import Dataset, read_dataset
from common.data.datasets.pairs import label_maps, paired
from common.data.dicom.slices import is_dicom
from common.data.io import read_volume
from common.data.phantom.files import publish
from common.data.slices.unlabelled import unlabelled_images
from common.engine.run.lock import RunLock
from common.engine.run.start import start_run
from common.errors import AmalgamationError, ConfigError, DataError
from common.experts.describe import kind_of
from common.experts.sources import open_source
from common.experts.spec import read_manifest
from common.experts.training_files import orientation_of
from common.integrity import file_hash, sealed_hash
from common.labels import LabelSpace
from common.paths import check_new, check_path, check_regular, is_path
from common.plain_json import read_object
from common.plain_yaml import check_plain_yaml
from common.weights import read_state_dict
from tools.amalgamate.command import amalgamate
from tools.bundle.zip import unpack
from tools.bundle_files import find_bundle
from tools.chain.record import alone_in
from tools.predict.scans import find_scans
from tools.run_files import inside, read_table

ODD = {
    "long": "x" * 300,
    "below a long one": "x" * 300 + "/y",
    "deep": "a/" * 3000 + "b",
    "nul": "a\0b",
    "half a character": "a\ud800b",
    "loop": "loop",
    "beside nothing": "nothing/../loop",
}


@pytest.fixture(params=list(ODD.values()), ids=list(ODD))
def odd(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A path that nothing can lie at, seen from the working folder."""
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.chdir(tmp_path)
    return str(request.param)


def test_a_path_that_cannot_be_followed_is_refused_by_name(odd: str) -> None:
    with pytest.raises(ConfigError, match="cannot be followed") as caught:
        check_path(odd, where="list.json, entry 3", error=ConfigError)
    assert str(caught.value).startswith("list.json, entry 3: ") and len(str(caught.value)) < 500
    with pytest.raises(DataError, match="this folder cannot be followed"):
        check_path(odd, what="folder")


def test_other_paths_pass_whether_something_lies_there_or_not(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("file", "file/below", "nothing", "nothing/below", "link", ".", "a b", "$x", "é" * 100):
        assert check_path(tmp_path / name) == tmp_path / name


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_a_closed_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(DataError, match="Permission denied"):
        check_path(tmp_path / "closed" / "file")


def test_is_path_judges_the_text_alone() -> None:
    assert is_path("a/b.nii.gz") and is_path("loop") and not is_path("") and not is_path(5)
    assert not any(map(is_path, [v for k, v in ODD.items() if k not in ("loop", "beside nothing")]))


CALLS: dict[str, Callable[[str], Any]] = {
    "dataset": read_dataset,
    "collection": read_collection,
    "collections": lambda path: read_collection(f"{path},b"),
    "task of a collection": lambda path: read_collection(f"{path}::liver"),
    "volume": lambda path: read_volume(f"{path}.nii.gz"),
    "picture": lambda path: read_volume(f"{path}.png", dim=2),
    "weights": read_state_dict,
    "weights with an ending": lambda path: read_state_dict(f"{path}.pt"),
    "kind of an expert": kind_of,
    "results of nnU-Net": read_results_folder,
    "bundle": find_bundle,
    "zip": lambda path: unpack(path, "out"),
    "scans": find_scans,
    "experts": read_manifest,
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_every_reader_refuses_it(call: Callable[[str], Any], odd: str) -> None:
    with pytest.raises(AmalgamationError):
        call(odd)


def test_weights_that_cannot_be_there_say_nothing(odd: str) -> None:
    assert not contract_of(odd).channels


@pytest.mark.parametrize("kind", ["nnunet", "bundle", "torchscript"])
def test_the_path_of_an_expert_is_refused_by_file_and_name(odd: str, kind: str, tmp_path: Path) -> None:
    entry = {"name": "liver", "kind": kind, "path": odd, "task": "liver", "channels": ["CT"], "features": "net",
             "labels": {"names": ["liver"], "values": [1]}}  # fmt: skip
    (tmp_path / "experts.json").write_text(json.dumps({"format": 1, "experts": [entry]}))
    with pytest.raises(AmalgamationError, match="liver"):
        open_source(read_manifest(tmp_path / "experts.json")[0])


@pytest.mark.parametrize("key", ["image", "label"])
def test_the_paths_of_a_dataset_are_refused_by_case(odd: str, key: str, tmp_path: Path) -> None:
    entry = {"id": "case7", "image": "a.nii.gz", "label": "b.nii.gz", key: odd}
    content = {"labels": {"background": 0, "liver": 1}, "channel_names": {"0": "CT"}, "training": [entry]}
    (tmp_path / "dataset.json").write_text(json.dumps({"name": "liver", **content}))
    with pytest.raises(DataError, match="loop" if "loop" in odd else "training"):
        case = read_dataset(tmp_path).cases()[0]
        read_volume(case.images[0] if key == "image" else str(case.label))
    (tmp_path / "collection.json").write_text(json.dumps({"datasets": [odd]}))
    with pytest.raises(DataError, match=r"collection\.json"):
        read_collection(tmp_path / "collection.json")


HEADERS = {
    "h.mhd": "ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementSpacing = 1 1 1\nElementType = MET_UCHAR\n"
    "ElementDataFile = {}\n",
    "list.mhd": "ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementSpacing = 1 1 1\nElementType = MET_UCHAR\n"
    "ElementDataFile = LIST\n{}\n",
    "h.nhdr": "NRRD0004\ntype: uchar\ndimension: 3\nspace: left-posterior-superior\nsizes: 2 2 2\n"
    "space directions: (1,0,0) (0,1,0) (0,0,1)\nkinds: domain domain domain\nencoding: raw\nspace origin: (0,0,0)\n"
    "data file: {}\n",
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_names_it_is_refused_by_its_own_name(odd: str, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(HEADERS[name].format(odd).encode("utf-8", "surrogatepass"))
    with pytest.raises(DataError, match=name):
        read_volume(tmp_path / name)


def test_names_of_what_will_be_written_are_judged_before(tmp_path: Path) -> None:
    assert check_new(tmp_path / "new" / ("é" * 120), ["", ".nii.gz"]) == tmp_path / "new" / ("é" * 120)
    for name, endings in (
        ("é" * 128, [""]),
        ("x" * 250, ["", ".nii.gz"]),
        ("x" * 300 + "/y", [""]),
        ("a/" * 2100, [""]),
    ):
        for folder in (tmp_path, tmp_path / "not there yet"):
            with pytest.raises(ConfigError, match="too long"):
                check_new(folder / name, endings, error=ConfigError)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a\0b", "\0", "\ud800", "a/\udfff\ud800/b"])
@pytest.mark.parametrize("endings", [("",), ("", ".sha256")])
def test_a_character_that_no_name_has_is_not_called_too_long(name: str, endings: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="a character that no name has"):
        check_new(name, endings, error=ConfigError)


@pytest.mark.parametrize("name", ["", ".", "/"])
def test_a_folder_is_no_name_of_a_file_with_files_beside_it(name: str) -> None:
    with pytest.raises(ConfigError, match="no name of a file"):
        check_new(name, ("", ".sha256"), error=ConfigError)
    assert check_new(name) == Path(name)


@pytest.fixture
def in_time() -> Iterator[None]:
    """Five seconds: opening a pipe that nobody writes to waits for ever."""

    def late(*_: object) -> None:
        raise TimeoutError("waits for a pipe")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(5)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


PIPES: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "volume": ("a.nii.gz", read_volume),
    "NRRD": ("a.nrrd", read_volume),
    "slice": ("a.dcm", read_volume),
    "picture": ("a.png", lambda path: read_volume(path, dim=2)),
    "scan": ("a.nii.gz", find_scans),
    "scan of a folder": ("a.nii.gz", lambda path: find_scans(path.parent)),
    "scans and maps": ("a.nii.gz", lambda path: paired(path.parent, {}, ("CT",))),
    "label maps": ("a_seg.nii.gz", lambda path: label_maps(path.parent)),
    "training files": ("a.nii.gz", lambda path: orientation_of(path.parent)),
    "images without labels": ("a.nii.gz", lambda path: unlabelled_images(path.parent, modality="MR")),
    "dataset": ("dataset.json", lambda path: read_dataset(path)),
    "experts": ("experts.json", read_manifest),
    "JSON": ("plans.json", lambda path: read_object(path, error=DataError)),
    "configuration": ("inference.yaml", check_plain_yaml),
    "weights": ("model.pt", read_state_dict),
    "table": ("cases.csv", read_table),
    "place of a record": ("a.png", lambda path: inside(path.parent, path.name, where=f"record, {path.name}")),
    "seal": ("model.pt.sha256", lambda path: sealed_hash(path.with_name("model.pt"))),
}


@pytest.mark.parametrize("name, call", PIPES.values(), ids=PIPES)
def test_a_pipe_is_refused_by_name_before_it_is_opened(
    name: str, call: Callable[[Path], Any], tmp_path: Path, in_time: None
) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(AmalgamationError) as caught:
        call(tmp_path / name)
    assert name in str(caught.value)


def test_a_pipe_is_no_slice_and_has_no_hash(tmp_path: Path, in_time: None) -> None:
    os.mkfifo(tmp_path / "a")
    assert not is_dicom(tmp_path / "a")
    with pytest.raises(OSError, match="pipe") as caught:
        file_hash(tmp_path / "a")
    assert caught.value.filename == str(tmp_path / "a")


def test_what_a_listing_gave_is_a_file_or_a_link_to_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dangling").symlink_to("nothing")
    assert [check_regular(tmp_path / n).name for n in ("file", "link")] == ["file", "link"]
    for path, got in ((tmp_path, "a folder"), (tmp_path / "dangling", "a link to nothing")):
        with pytest.raises(ConfigError, match="this scan is no file") as caught:
            check_regular(path, what="scan", error=ConfigError)
        assert caught.value.where == path and caught.value.got == got


@pytest.mark.parametrize("call", [lambda f: paired(f, {}, ("CT",)), find_scans, orientation_of])
def test_a_link_to_nothing_is_refused_and_not_left_out(call: Callable[[Path], Any], tmp_path: Path) -> None:
    (tmp_path / "q.nii.gz").symlink_to("nothing")
    with pytest.raises(AmalgamationError, match=r"q\.nii\.gz"):
        call(tmp_path)


NEW: dict[str, Callable[[str], Any]] = {
    "chain": lambda out: alone_in(Path(out)),
    "amalgamation": lambda out: amalgamate("expert", scans="ct=.", out=out),
    "lock": lambda out: RunLock(Path(out)).acquire(),
    "run": lambda out: start_run(output_dir=out),
    "dataset": lambda out: write_dataset(Dataset("a", Path(), ("CT",), LabelSpace(("liver",)), {}), out),
    "phantom": lambda out: publish(Path(out), {}, lambda _: None, overwrite=False),
}


@pytest.mark.parametrize("call", NEW.values(), ids=NEW)
def test_every_new_folder_has_a_name_that_a_disk_takes(call: Callable[[str], Any], tmp_path: Path) -> None:
    with pytest.raises(AmalgamationError, match="a character that no name has"):
        call(f"{tmp_path}/a\ud800b")
    assert not list(tmp_path.iterdir())


def test_scans_numbered_as_channels_are_not_asked_one_by_one(tmp_path: Path) -> None:
    for name in ("a_0000", "a_0001", "b_0000", "b_0001"):
        (tmp_path / f"{name}.nii.gz").touch()
    with pytest.raises(DataError, match="numbered as the channels"):
        find_scans(tmp_path, 1)
    assert [s.name for s in find_scans(tmp_path, 2)] == ["a", "b"]


def test_the_longest_names_and_paths(tmp_path: Path) -> None:
    assert is_path("x" * 255) and not is_path("x" * 256) and is_path("é" * 127) and not is_path("é" * 128)
    deep = "/".join(["x" * 63] * 63)  # 4031 bytes
    assert is_path(f"{deep}/{'y' * 63}") and not is_path(f"{deep}/{'y' * 64}") and not is_path("")
    assert not is_path("a\0b") and not is_path(5) and not is_path("\udc80\ud800")
    assert check_new(tmp_path / ("x" * 250), (".json",)).name == "x" * 250
    with pytest.raises(DataError, match=r"(?s)too long.*256 bytes.*255 bytes, 4095 with"):
        check_new(tmp_path / ("x" * 251), ("", ".json"))
    with pytest.raises(DataError, match="no name of a file"):
        check_new("/", (".json",))
