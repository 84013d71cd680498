"""``python -m tools label``: a trained model behind MONAI Label, for 3D Slicer and OHIF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common.errors import ConfigError

from ..bundle_files import find_bundle
from .config import kinds_of, modalities_of, read_model
from .layout import code_folder, copy_app, lay_out
from .server import Server, check_studies, dicomweb, find_python

__all__ = ["Label"]


class Label:
    """Serve trained models to annotation tools; nothing leaves this machine."""

    def layout(
        self, bundle: str, out: str, weights: str | None = None, kind: str | None = None, name: str | None = None,
        modality: str | None = None, head: str | None = None, fresh: bool = False,
    ) -> None:  # fmt: skip
        """Lay a bundle out for a MONAI Label app of your own, and print where.

        Args:
            bundle: name or folder.
            out: the ``model`` folder of the app.
            weights: a ``model.pt`` other than the bundle's own.
            kind: ``segmentation`` (automatic), ``deepgrow`` (clicks and a box for one structure) or ``deepedit``
                (clicks for all structures); several with commas. What suits the bundle when left out.
            name: base of the folder's name.
            modality: what the studies are, where a model knows several.
            head: which data set's structures to segment, for models with a head for each.
            fresh: take the weights again, also where the server's own training changed them.
        """
        for folder in _lay_out(bundle, Path(out), weights, kind, name, modality, head, fresh):
            print(folder)

    def start(
        self, bundle: str, studies: str, weights: str | None = None, kind: str | None = None, name: str | None = None,
        modality: str | None = None, head: str | None = None, fresh: bool = False, app: str | None = None,
        host: str = "127.0.0.1", port: int = 8000, python: str | None = None, dicom_modality: str | None = None,
    ) -> None:  # fmt: skip
        """Start a server and say what to do in the viewer; Ctrl-C ends it.

        Args:
            bundle: name or folder.
            studies: folder of NIfTI, NRRD, PNG, JPEG (``.jpg``) or TIFF (``.tif``) files (corrected label maps go to
                its ``labels``; an empty one is filled from the viewer), or a DICOMweb address.
            weights: a ``model.pt`` other than the bundle's own.
            kind: ``segmentation`` (automatic), ``deepgrow`` (clicks and a box for one structure) or ``deepedit``
                (clicks for all structures); several with commas. What suits the bundle when left out.
            name: base of the model's name.
            modality: what the studies are, where a model knows several.
            head: which data set's structures to segment, for models with a head for each.
            fresh: take the weights again, also where the server's own training changed them.
            app: folder for the laid-out models; ``runs/label/<bundle>`` when left out. They are kept.
            host: address to listen at; another one than this machine's own lets others in, without a password.
            port: TCP port.
            python: interpreter of an environment with MONAI Label other than ``.venv-label``.
            dicom_modality: DICOM's name of the series to look for on a DICOMweb service, such as ``MR``; what the
                model's modalities say when left out.
        """
        interpreter = find_python(python)
        notice = None if "://" in studies else check_studies(Path(studies))
        place = Path(app or f"runs/label/{find_bundle(bundle).name}").absolute()
        folders = _lay_out(bundle, place / "model", weights, kind, name, modality, head, fresh)
        copy_app(interpreter.parent.parent, place)
        remote = "://" in studies
        where = studies if remote else str(Path(studies).absolute())
        environment: dict[str, str] = {}
        if remote:
            known = [modality] if modality else modalities_of(read_model(find_bundle(bundle), weights))
            environment = dicomweb(place, dicom_modality, known)
        server = Server(python=interpreter, app=place, models=[f.name for f in folders], studies=where,
                        code=code_folder(), host=host, port=port, log=place / "server.log",
                        environment=environment)  # fmt: skip
        print(f"starting, usually within half a minute; the server's words go to {server.log}", flush=True)
        try:
            print(_directions(server.start(), server.url), flush=True)
            if notice:
                print(notice, flush=True)
            server.wait()
        finally:
            server.stop()


def _lay_out(
    bundle: str, models_dir: Path, weights: str | None, kind: str | None, name: str | None, modality: str | None,
    head: str | None, fresh: bool,
) -> list[Path]:  # fmt: skip
    model = read_model(find_bundle(bundle), weights)
    wanted = kind.split(",") if isinstance(kind, str) else list(kind or kinds_of(model.bundle)[:1])
    if not wanted:
        raise ConfigError("nothing to offer the bundle as", where=bundle)
    given = {"modality": modality, "head": head}
    return [lay_out(model, models_dir, k.strip(), given=given, name=name, fresh=fresh) for k in wanted]


_HOW = {
    "segmentation": "Auto Segmentation: Run",
    "deepgrow": "SmartEdit: choose a segment, click into it or draw a region around it, Update",
    "deepedit": "SmartEdit: choose segments, click into them, Update",
}


def _directions(info: dict[str, Any], url: str) -> str:
    models = {n: m for n, m in info["models"].items() if m["type"] in _HOW}
    rows = [f"  {name}  ({_HOW[m['type']]})" for name, m in models.items()]
    return "\n".join([
        f"ready: {url}", *rows, "",
        "3D Slicer:  install the extension MONAILabel, open its module, enter the address above, press the arrow",
        "            beside it, then Next Sample, and one of the above.",
        f"OHIF:       {url}/ohif/  (for studies on a DICOMweb server)",
        "Submit Label keeps a corrected label map; Train refines the model on all of them, and keeps what got better.",
        "Ctrl-C ends the server.",
    ])  # fmt: skip
