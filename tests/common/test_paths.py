"""The gate for paths that somebody wrote, and that everybody asks it."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.backbones.nnunet.network import read_results_folder
from common.contract import contract_of
from common.data.datasets.datalist import read_collection
from common.data.datasets.dataset import read_dataset
from common.data.io import read_volume
from common.errors import AmalgamationError, ConfigError, DataError
from common.experts.describe import kind_of
from common.experts.sources import open_source
from common.experts.spec import read_manifest
from common.paths import check_new, check_path, is_path
from common.weights import read_state_dict
from tools.bundle.zip import unpack
from tools.bundle_files import find_bundle
from tools.predict.scans import find_scans

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
