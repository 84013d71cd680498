"""Packs a bundle for the model zoo: a self-contained folder and a zip that is the same each time."""

from __future__ import annotations

import copy
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from common.backbones.nnunet.kept import check_kept
from common.backbones.nnunet.network import plan_managers
from common.card import ModelCard, save_weights
from common.contract import Contract
from common.engine.evaluation.score_record import read_scores
from common.engine.run.settings_form import checked_settings
from common.errors import AmalgamationError, ConfigError, WeightError
from common.experts.answers.beside import read_kept, write_kept
from common.integrity import copy_sealed, file_hash, remove_seal
from common.labels import BACKGROUND
from common.literals import check_file_name, inert
from common.paths import check_new
from common.weights import read_state_dict

from ..bundle_describe import (
    check_metadata_text,
    conditions,
    data_lines,
    describe_weights,
    score_lines,
    tiles_told,
    trained_on,
)
from ..bundle_files import find_bundle, read_json
from ..label.refine import SERVED_TARGETS
from ..workflow import config_files, read_config
from .checks import check_bundle
from .closure import SOURCE
from .docs import Weights, write_documents
from .libraries import check_libraries
from .vendor import package_name, vendor, write_json
from .zip import zip_folder

__all__ = ["Packed", "pack_bundle"]

FILES = ("LICENSE", "configs", "docs")
LEFT_OUT = ("chain.json",)  # names the collection's other bundles
MODEL = "models/model.pt"
UNSTATED = (
    "not stated by those who packed them; weights inherit the conditions of the data and experts they were trained on"
)


class Packed(NamedTuple):
    """What was written.

    Args:
        folder: the self-contained bundle.
        zip: the same as a file.
        modules: how many modules of ``common`` it holds.
        weights: how the weights travel.
    """

    folder: Path
    zip: Path
    modules: int
    weights: str


def pack_bundle(
    bundle: str | Path,
    out: Path | str = "dist",
    *,
    weights: Path | str | None = None,
    weights_url: str | None = None,
    weights_licence: str | None = None,
    torchscript: bool = False,
    force: bool = False,
    source: Path = SOURCE,
) -> Packed:
    """Write ``out/<bundle>/`` and ``out/<bundle>_v<version>.zip``.

    Args:
        bundle: a bundle of the collection, by name or folder.
        out: the folder to write into.
        weights: the weights; ``models/model.pt`` of the bundle by default, if it is there.
        weights_url: write ``large_files.yml`` with this address and the weights' hash in the place of the weights.
        weights_licence: one sentence for the documents.
        torchscript: also write ``models/model.ts``.
        force: replace a folder that is there.
        source: the folder of ``common``.

    Raises:
        ConfigError: when the bundle cannot be made self-contained, or what was made does not pass the checks.
        WeightError: when the weights do not fit the bundle's network.
        CheckpointError: when it cannot be TorchScript.
    """
    origin, out = find_bundle(bundle), Path(out)
    name = origin.resolve().name
    version = str(read_json(origin / "configs" / "metadata.json").get("version"))
    check_file_name(version, "bundle's version", where=origin / "configs" / "metadata.json", error=ConfigError)
    if not name.isidentifier():
        problem = "a bundle that is packed becomes a package of Python"
        raise ConfigError(problem, where=origin, got=ascii(name), expected="a folder's name of letters, digits and _")
    if (origin / "docs" / "VENDORED.json").exists():
        raise ConfigError("this is a packed bundle already", where=origin)
    given = Path(weights) if weights else origin / MODEL
    if weights is None and not given.is_file() and (weights_url or torchscript or weights_licence):
        raise ConfigError("there are no weights", where=given, hint="add --weights FILE")
    target = check_new(out / name, ["", f"_v{version}.zip"], error=ConfigError)
    if target.exists() and not force:
        raise ConfigError("the folder exists", where=target, hint="add --force to replace it, or give another --out")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".pack-") as temporary:
        folder = Path(temporary) / name
        _copy(origin, folder)
        told = None
        if given.is_file() or weights:
            told = _add_weights(folder, given, weights_licence or UNSTATED, weights_url)
        served = (origin / "configs" / "chain.json").is_file()  # stage 2
        needed = vendor(folder, name, source, also=SERVED_TARGETS if served else ())
        check_libraries(needed, read_json(folder / "configs" / "metadata.json"))
        script = _add_torchscript(origin, folder) if torchscript else ""
        write_documents(folder, bundle=name, package=package_name(name), weights=told, torchscript=script)
        _move_weights(folder, told)
        _prove(folder)
        if target.exists():
            shutil.rmtree(target)
        shutil.move(folder, target)
    zipped = zip_folder(target, out / f"{name}_v{version}.zip")
    return Packed(target, zipped, len(needed.modules), _summary(told))


def _copy(origin: Path, folder: Path) -> None:
    for entry in FILES:
        if (origin / entry).is_dir():
            shutil.copytree(origin / entry, folder / entry, ignore=shutil.ignore_patterns(*LEFT_OUT, "*.tmp"))
        elif (origin / entry).is_file():
            folder.mkdir(exist_ok=True)
            shutil.copyfile(origin / entry, folder / entry)
    (folder / "models").mkdir()


def _add_weights(folder: Path, file: Path, licence: str, url: str | None) -> Weights:
    """Put flat weights in place, prove that they fit, and make metadata and defaults say what they were trained on."""
    state, card = read_state_dict(file)
    target = folder / MODEL
    content = None if file.suffix == ".safetensors" else torch.load(file, map_location="cpu", weights_only=True)
    if isinstance(content, Mapping) and all(isinstance(v, torch.Tensor) for v in content.values()):
        copy_sealed(file, target)
    else:
        save_weights(target, state, card)
    if card is not None:
        write_kept(target, read_kept(file, card.labels.names))
    scores = read_scores(file)
    if card is not None:
        _describe(folder, card, scores, file)
    parser = read_config(config_files(folder, "inference"))
    parser.update(
        {"bundle_root": str(folder), "model_path": str(target), "device": "$__import__('torch').device('cpu')"}
    )
    try:
        parser.get_parsed_content("weights")
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, AmalgamationError):
            cause = cause.__cause__ or cause.__context__
        raise cause or error from None
    meta = read_json(folder / "configs" / "metadata.json")
    meta["licenses"] = {**meta.get("licenses", {}), "weights": licence}
    check_metadata_text(meta)
    write_json(folder / "configs" / "metadata.json", meta)
    structures = () if card is None else card.labels.names
    trained = "" if card is None else f", trained by {card.bundle} {card.version}"
    sha256 = file_hash(target)
    contract = Contract.of_card(card)
    tiles = "" if card is None else tiles_told(card, file)
    lines = (*data_lines(contract), *(["", f"A pass: {tiles}."] if tiles else []), "", *score_lines(scores))
    told = lines, trained_on(contract), conditions(contract)
    return Weights(sha256, target.stat().st_size, licence, structures, url or "", trained, *told)


def _describe(
    folder: Path, card: ModelCard, scores: Sequence[Mapping[str, Any]], file: str | Path = "the card"
) -> None:
    """Bring ``metadata.json`` and the defaults of ``inference.json`` to what the weights' card says."""
    settings = dict(card.extra.get("settings") or {})
    inference, meta = read_json(folder / "configs" / "inference.json"), read_json(folder / "configs" / "metadata.json")
    before: dict[str, Any] = copy.deepcopy(inference.get("model", {}).get("defaults", {}))
    checked_settings(settings, before, file)
    if before:
        said = {"structures": list(card.labels.names), "channels": list(card.channels), **settings}
        inference["model"]["defaults"] = inert({**before, **said, "exclusive": card.labels.exclusive})
        write_json(folder / "configs" / "inference.json", inference)
    if "plans" in settings:
        check_kept(settings, file)
    if "plans" in settings and "fallback" in inference.get("plan", {}):
        plans = {**settings["plans"], "configuration": settings["configuration"]}
        write_json(folder / "configs" / "plans" / "plans.json", plans)
        write_json(folder / "configs" / "plans" / "dataset.json", settings["dataset_json"])
        inference["plan"]["fallback"] = inert({k: settings[k] for k in ("plans", "dataset_json", "configuration")})
        write_json(folder / "configs" / "inference.json", inference)
    image, pred = (meta["network_data_format"][k][n] for k, n in (("inputs", "image"), ("outputs", "pred")))
    if pred.get("channel_def", {}).get("0") == BACKGROUND and card.labels.exclusive:
        pred["channel_def"], pred["num_channels"] = card.labels.channel_def(), card.labels.num_classes
    for tensor in (image, pred):
        tensor["spatial_shape"] = _shape(tensor["spatial_shape"], before, settings)
    describe_weights(meta, card, scores)
    write_json(folder / "configs" / "metadata.json", meta)


def _shape(shape: list[int], before: Mapping[str, Any], settings: Mapping[str, Any]) -> list[int]:
    """The window of a model: its own, or the metadata's with the image size replaced."""
    if settings.get("roi_size"):
        sides = settings["roi_size"]
        if not isinstance(sides, list | tuple) or not all(type(n) is int and n > 0 for n in sides):
            expected = "whole numbers above 0"
            raise WeightError("the card is damaged", where="settings.roi_size", got=f"{sides!a:.60}", expected=expected)
        return list(sides)
    if "plans" in settings:
        patch = plan_managers(settings["plans"], settings["configuration"])[1].patch_size
        return [int(n) for n in reversed(patch)]
    for was, now in ((before, settings), (before.get("network", {}), settings.get("network", {}))):
        old, new = was.get("image_size"), now.get("image_size")
        if isinstance(old, int) and isinstance(new, int):
            return [new if n in (old, max(shape)) else n for n in shape]
    return shape


def _add_torchscript(origin: Path, folder: Path) -> str:
    from ..export.command import export_bundle

    meta = (folder / "configs" / "metadata.json").read_text(encoding="utf-8")
    written = export_bundle(
        origin, folder / "models" / "model.ts", weights=folder / MODEL, extra={"metadata.json": meta}
    )
    return written


def _move_weights(folder: Path, told: Weights | None) -> None:
    if told is None or not told.url:
        return
    remove_seal(folder / MODEL)  # large_files.yml has the hash
    (folder / MODEL).unlink()
    entry = {"path": MODEL, "url": told.url, "hash_val": told.sha256, "hash_type": "sha256"}
    lines = "".join(f"{'  - ' if i == 0 else '    '}{k}: {json.dumps(v)}\n" for i, (k, v) in enumerate(entry.items()))
    (folder / "large_files.yml").write_text(f"large_files:\n{lines}", encoding="utf-8")


def _prove(folder: Path) -> None:
    wrong = [f for f in check_bundle(folder) if f.severity == "error"]
    if wrong:
        listing = "\n".join(f"{f.check}: {f.where}: {f.problem}" for f in wrong[:10])
        raise ConfigError("the packed bundle does not pass the checks", where=folder.name, got=listing)


def _summary(told: Weights | None) -> str:
    if told is None:
        return "no weights (the zoo prefers models/model.pt: add --weights FILE)"
    return f"weights {told.size / 1e6:.1f} MB " + (f"at {told.url}" if told.url else f"in {MODEL}")
