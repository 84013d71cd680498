"""Three kinds of expert on disk, opened the same way: nnU-Net folders, MONAI bundles and TorchScript files."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from ..backbones.nnunet.calls import asked
from ..backbones.nnunet.description import channel_names, labels_of
from ..backbones.nnunet.network import PLANAR, load_network, plan_managers, read_results_folder
from ..errors import AmalgamationError, ExpertError
from ..integrity import file_hash
from ..labels import LabelSpace
from ..literals import inert
from ..paths import check_path
from ..plain_json import read_object
from ..weights import load_weights
from .bundle_config import bundle_parser
from .features import Encoder, FoldMean, Part, Tap, check_module_path
from .frame import Frame, nnunet_order
from .normalise import Normalise, of_plans
from .script import check_script
from .spec import ExpertSpec, named
from .trust import WEIGHTS, check_trusted

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

__all__ = ["Opened", "bundle_metadata", "files_of", "hash_files", "open_source"]

logger = logging.getLogger(__name__)

_MOST_CHANNELS = 1000


class Opened(NamedTuple):
    """A network with everything that is needed to feed it.

    Args:
        network: the frozen network.
        encode: ``[B, C, a, b, c]`` (``[B, C, b, c]`` when the frame is planar) to feature maps, deepest last.
        frame: axes, spacing and divisibility.
        normalise: one entry per image channel.
        labels: what the files say that it predicts, None when they do not say it.
        channels: what the files say that it reads, None when they do not say it.
        patch: voxels in the frame's axes that it learned on, None when nobody knows.
    """

    network: nn.Module
    encode: Callable[[Tensor], list[Tensor]]
    frame: Frame
    normalise: tuple[Normalise, ...]
    labels: LabelSpace | None
    channels: tuple[str, ...] | None
    patch: tuple[int, ...] | None = None


def _open_nnunet(spec: ExpertSpec) -> Opened:
    with asked(f"expert {spec.name!a} ({spec.path})", error=ExpertError):
        return _opened_nnunet(spec)


def _opened_nnunet(spec: ExpertSpec) -> Opened:
    name = spec.checkpoint or "checkpoint_final.pth"
    folds = [read_results_folder(spec.path, spec.configuration, fold, name) for fold in spec.folds]
    networks, results = [load_network(fold) for fold in folds], folds[0]
    network = FoldMean(networks).eval() if len(networks) > 1 else networks[0]
    manager, config = plan_managers(results.plans, results.configuration)
    if spec.orientation is None and "NaturalImage2D" not in str(results.plans.get("image_reader_writer")):
        logger.warning("expert %r: nobody says how its training scans lay; it is asked in the crops' own directions "
                       "(tools experts describe ... --orientation)", spec.name)  # fmt: skip
    strides = torch.tensor([list(s) for s in config.pool_op_kernel_sizes]).prod(0).tolist()
    planar = len(config.patch_size) == PLANAR
    spacing = [float(s) for s in config.spacing]
    frame = Frame(
        spec.orientation,
        nnunet_order(manager.transpose_forward),
        (None, spacing[0], spacing[1]) if planar else (spacing[0], spacing[1], spacing[2]),
        (1, strides[0], strides[1]) if planar else (strides[0], strides[1], strides[2]),
        planar,
    )
    normalise = of_plans(
        config.normalization_schemes, config.use_mask_for_norm, manager.foreground_intensity_properties_per_channel
    )
    encode: Callable[[Tensor], list[Tensor]] = Encoder(network)
    if spec.features not in (None, "encoder"):
        check_module_path(network, str(spec.features), where=spec.name)
        encode = Tap(network, str(spec.features))
    described = results.folder / "dataset.json"
    labels = labels_of(results.dataset_json, where=described)
    channels = channel_names(results.dataset_json, where=described)
    patch = (1, *config.patch_size) if planar else tuple(config.patch_size)
    return Opened(network, encode, frame, normalise, labels, channels, patch)


def _frame_of_spec(spec: ExpertSpec) -> Frame:
    x, y, z = spec.spacing or (None, None, None)
    divisor = spec.extra.get("divisor", 32)
    sizes = divisor if isinstance(divisor, list | tuple) else [divisor] * 3
    return Frame(spec.orientation, (0, 1, 2), (x, y, z), (sizes[0], sizes[1], sizes[2]))


def _normalise_of_spec(spec: ExpertSpec, channels: int) -> tuple[Normalise, ...]:
    given = spec.extra.get("normalise", {"scheme": "zscore"})
    entries = list(given) if isinstance(given, list | tuple) else [given] * channels
    where = f"expert {spec.name!r}"
    if len(entries) != channels:
        problem, expected = "an expert has one normalisation per channel", f"{channels}, or one for all channels"
        raise ExpertError(problem, where=where, got=len(entries), expected=expected)
    try:
        return tuple(Normalise(**{**e, "out": tuple(e.get("out", (0.0, 1.0)))}) for e in entries)
    except TypeError as error:
        expected = "scheme, low, high, mean, std, out, masked"
        raise ExpertError("cannot read the normalisation", where=where, got=given, expected=expected) from error
    except ExpertError as error:
        raise named(spec, error) from error


def _open_bundle(spec: ExpertSpec) -> Opened:
    config, weights = _bundle_files(spec)
    weights_name = spec.checkpoint or WEIGHTS
    check_trusted(spec.path, spec.trusted, where=f"expert {spec.name!r}, {spec.path}", weights=weights_name)
    parser = bundle_parser(config, Path(spec.path))
    parser["bundle_root"] = inert(str(spec.path))
    network = _built(parser, where=f"expert {spec.name!r} ({config})")
    load_weights(network, weights, where=spec.name)
    check_module_path(network, spec.features or "", where=spec.name)
    labels, channels = bundle_metadata(Path(spec.path) / "configs" / "metadata.json")
    count = len(channels) if channels else len(spec.channels)
    return Opened(
        network.eval(),
        Tap(network, str(spec.features)),
        _frame_of_spec(spec),
        _normalise_of_spec(spec, count),
        labels,
        channels,
    )


def _built(parser: ConfigParser, where: str) -> nn.Module:
    """The network of a bundle, by the bundle's own code."""
    key = "network_def" if parser.get("network_def") is not None else "network"
    problem, expected = "the bundle's network cannot be built", f"{key!r} that is a torch.nn.Module"
    hint = "install what its metadata.json requires"
    try:
        with _no_leftovers():
            network = parser.get_parsed_content(key)
    except Exception as error:  # whatever that code raises
        got = f"{type(error).__name__}: {error!s:.200}"
        raise ExpertError(problem, where=where, got=got, expected=expected, hint=hint) from error
    if not isinstance(network, nn.Module):
        raise ExpertError(problem, where=where, got=type(network).__name__, expected=expected, hint=hint)
    return network


@contextlib.contextmanager
def _no_leftovers() -> Iterator[None]:
    """Python writes no __pycache__ into a bundle, which would make its code another one."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def _bundle_files(spec: ExpertSpec) -> tuple[Path, Path]:
    root = check_path(spec.path, where=f"expert {spec.name!r}", error=ExpertError)
    for name in ("inference.json", "inference.yaml", "inference.yml"):
        if (root / "configs" / name).is_file():
            return root / "configs" / name, root / (spec.checkpoint or WEIGHTS)
    raise ExpertError("this is no MONAI bundle", where=root, got="no configs/inference.json|yaml|yml")


def bundle_metadata(path: Path) -> tuple[LabelSpace | None, tuple[str, ...] | None]:
    """Structures and image channels that a bundle's ``metadata.json`` names; None for what it does not tell."""
    try:
        data = read_object(path, error=ExpertError)["network_data_format"]
        definition = data["outputs"]["pred"]["channel_def"]
        labels = LabelSpace.from_json(definition, where=path)
        image = data["inputs"]["image"]
        names = image.get("channel_def", {})
        count = image["num_channels"]
        if type(count) is not int or not 0 < count <= _MOST_CHANNELS:
            return None, None
        fallback = [f"channel {i}" for i in range(count)]
        return labels, tuple(str(names.get(str(i), fallback[i])) for i in range(len(fallback)))
    except (OSError, LookupError, TypeError, AttributeError, ValueError, RecursionError, AmalgamationError):
        return None, None


def _open_torchscript(spec: ExpertSpec) -> Opened:
    check_script(spec.path)
    try:
        network = torch.jit.load(spec.path, map_location="cpu")
    except (RuntimeError, ValueError) as error:
        raise ExpertError(
            "cannot read this TorchScript file", where=spec.path, got=ascii(str(error).strip())[1:200]
        ) from error
    check_module_path(network, spec.features or "", where=spec.name)
    normalise = _normalise_of_spec(spec, len(spec.channels))
    part = Part(network, str(spec.features))
    return Opened(network.eval(), part, _frame_of_spec(spec), normalise, None, None)


_OPEN = {"nnunet": _open_nnunet, "bundle": _open_bundle, "torchscript": _open_torchscript}


def open_source(spec: ExpertSpec) -> Opened:
    """Build the network of an expert, load its weights and read how it wants to be fed.

    Raises:
        ExpertError: when a file is missing, broken or does not fit, with the expert's name.
    """
    try:
        return _OPEN[spec.kind](spec)
    except ExpertError:
        raise
    except AmalgamationError as error:
        raise named(spec, error) from error


def files_of(spec: ExpertSpec) -> tuple[Path, ...]:
    """The files that decide what the expert computes."""
    if spec.kind == "nnunet":
        name = spec.checkpoint or "checkpoint_final.pth"
        found = [read_results_folder(spec.path, spec.configuration, fold, name) for fold in spec.folds]
        return (*found[0].files, *(r.checkpoint for r in found[1:]))
    return _bundle_files(spec) if spec.kind == "bundle" else (Path(spec.path),)


def hash_files(files: tuple[Path, ...]) -> str:
    """SHA-256 over the contents of several files, in order."""
    digest = hashlib.sha256()
    for path in files:
        try:
            digest.update(bytes.fromhex(file_hash(path)))
        except OSError as error:
            raise ExpertError("a file of the expert is missing", where=path, got=error.strerror) from error
    return digest.hexdigest()
