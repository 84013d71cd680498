"""Studies on a DICOMweb service (Orthanc, a real one): found, answered, and stored back as DICOM SEG."""

import io
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pydicom
import pytest

from common.errors import ConfigError
from tests.label.client import SLICER, Client
from tests.label.conftest import BUNDLES, free_port
from tests.label.toys import STRUCTURES
from tests.tools.predict.test_command import dicom
from tools.label.config import read_model
from tools.label.layout import code_folder, copy_app, lay_out
from tools.label.server import Server, dicomweb
from tools.predict.command import segment

pytestmark = [pytest.mark.label, pytest.mark.timeout(900)]
PLUGIN = next(Path("/usr").glob("**/libOrthancDicomWeb.so"), None) if shutil.which("Orthanc") else None
MODEL = "samora_segmentation"


def ask(url, body=None, headers=None):
    with urllib.request.urlopen(urllib.request.Request(url, data=body, headers=headers or {}), timeout=60) as answer:
        return answer.read()


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """An Orthanc with one MR and one CT series; its address and the MR's folder."""
    if PLUGIN is None:
        pytest.skip("needs Orthanc with its DICOMweb plugin: apt install orthanc orthanc-dicomweb")
    root, port = tmp_path_factory.mktemp("archive"), free_port()
    settings = {
        "StorageDirectory": str(root / "storage"), "IndexDirectory": str(root / "storage"), "HttpPort": port,
        "DicomServerEnabled": False, "AuthenticationEnabled": False, "RemoteAccessAllowed": False,
        "Plugins": [str(PLUGIN)], "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }  # fmt: skip
    (root / "orthanc.json").write_text(json.dumps(settings))
    rng = np.random.default_rng(0)
    for name in ("MR", "CT"):
        dicom(root / name, rng.integers(0, 200, (24, 20, 12)), modality=name)
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(["Orthanc", str(root / "orthanc.json")], stdout=log, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    until = time.monotonic() + 60
    while True:
        try:
            ask(f"{url}/system")
            break
        except (urllib.error.URLError, OSError):
            assert process.poll() is None and time.monotonic() < until, (root / "log").read_text()[-2000:]
            time.sleep(0.2)
    for file in sorted(root.glob("*/*.dcm")):
        ask(f"{url}/instances", file.read_bytes(), {"Content-Type": "application/dicom"})
    yield url, root / "MR"
    process.terminate()
    process.wait(30)


@pytest.fixture(scope="module")
def client(archive, served, python, tmp_path_factory):
    """A server whose studies are those of the archive."""
    root = tmp_path_factory.mktemp("label server of an archive")
    app = root / "app"
    copy_app(python.parent.parent, app)
    model = read_model(BUNDLES / "samora", served.weights["samora"])
    folder = lay_out(model, app / "model", "segmentation", given={})
    clicked = read_model(BUNDLES / "sam_med3d_moe", served.weights["sam_med3d_moe"])
    mask = lay_out(clicked, app / "model", "deepgrow", given={})
    server = Server(python=python, app=app, models=[folder.name, mask.name], studies=f"{archive[0]}/dicom-web",
                    code=code_folder(), port=free_port(), log=root / "log",
                    environment={"OMP_NUM_THREADS": "1", **dicomweb(app, None, ["T2 MR"])})  # fmt: skip
    server.start(300)
    yield Client(server.url)
    server.stop()
    assert list((app / "dicomweb").rglob("*.nii.gz")), "the series lies somewhere else"


def series_of(folder):
    return str(pydicom.dcmread(next(folder.glob("*.dcm"))).SeriesInstanceUID)


def wanted(served, folder, out):
    import nibabel as nib

    result = segment("samora", folder, out, weights=served.weights["samora"], result="nifti", overwrite=True)
    return np.asarray(nib.load(next(iter(result.values()))).dataobj)


def test_the_models_modality_is_what_is_looked_for(archive, client):
    assert client.json("POST", "/activelearning/first", {})["id"] == series_of(archive[1])


def test_a_series_is_answered_as_its_folder_is(archive, client, served, tmp_path):
    found = client.infer(MODEL, series_of(archive[1]), **SLICER).values
    assert np.array_equal(found, wanted(served, archive[1], tmp_path)) and len(np.unique(found)) > 1


def test_segments_have_their_own_names(archive, client, served, tmp_path):
    """In any order of the request, and with a structure that was not found: the server itself goes by position."""
    values = wanted(served, archive[1], tmp_path)
    there = {name for i, name in enumerate(STRUCTURES, start=1) if (values == i).any()}
    info = [{"name": n, "color": [i, 9, 9]} for i, n in enumerate(reversed(STRUCTURES), start=1)]
    query = urlencode({"image": series_of(archive[1]), "output": "dicom_seg"})
    _, data = client.form("POST", f"/infer/{MODEL}?{query}", {"params": json.dumps({"label_info": info})})
    seg = pydicom.dcmread(io.BytesIO(data))
    names = {int(s.SegmentNumber): str(s.SegmentLabel) for s in seg.SegmentSequence}
    assert seg.Modality == "SEG" and set(names.values()) == there
    frames = seg.pixel_array.reshape(-1, *seg.pixel_array.shape[-2:]) > 0
    counted = dict.fromkeys(names.values(), 0)
    for frame, place in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        counted[names[int(place.SegmentIdentificationSequence[0].ReferencedSegmentNumber)]] += int(frame.sum())
    assert counted == {name: int((values == STRUCTURES.index(name) + 1).sum()) for name in there}
    assert {str(s.SeriesInstanceUID) for s in seg.ReferencedSeriesSequence} == {series_of(archive[1])}


def test_a_mask_has_the_name_that_was_asked_for(archive, client):
    query = urlencode({"image": series_of(archive[1]), "output": "dicom_seg"})
    asked = {"label": "spleen", "foreground": [[12, 9, 6]], "label_info": [{"name": "spleen", "color": [1, 2, 3]}]}
    _, data = client.form("POST", f"/infer/sam_med3d_moe_deepgrow?{query}", {"params": json.dumps(asked)})
    (segment,) = pydicom.dcmread(io.BytesIO(data)).SegmentSequence
    assert segment.SegmentLabel == "spleen"


def test_a_submitted_label_map_is_in_the_archive(archive, client, tmp_path):
    import nibabel as nib

    url, folder = archive
    answer = client.infer(MODEL, series_of(folder))
    image = nib.load(answer.file)
    values = np.zeros(image.shape, np.uint8)
    values[5:12, 4:9, 3:8] = 1
    nib.save(nib.Nifti1Image(values, image.affine), tmp_path / "final.nii.gz")
    client.submit(series_of(folder), tmp_path / "final.nii.gz", label_info=[{"name": "liver"}])
    (found,) = json.loads(ask(f"{url}/dicom-web/series?Modality=SEG", headers={"Accept": "application/dicom+json"}))
    study = str(pydicom.dcmread(next(folder.glob("*.dcm"))).StudyInstanceUID)
    assert found["0020000D"]["Value"] == [study]


def test_a_modality_that_cannot_be_told_is_asked_for(tmp_path):
    with pytest.raises(ConfigError, match="CT, T2 MR"):
        dicomweb(tmp_path, None, ["CT", "T2 MR"])
    assert json.loads(dicomweb(tmp_path, "PT", [])["MONAI_LABEL_DICOMWEB_SEARCH_FILTER"]) == {"Modality": "PT"}
