"""What the gates of a mixture of modality experts choose while volumes are evaluated."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
import torch.nn.functional as F
from ignite.engine import Engine, Events
from monai.data import MetaTensor, decollate_batch
from monai.engines.utils import IterationEvents
from monai.transforms import InvertibleTransform
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ...backbones.swin_unet.network import SwinUnet
from ...data.io import write_volume
from ...data.transforms.restore import RestoreGridd
from ...engine.monitor.gate_pictures import GateSlice, add_captions, draw_gate_slice, draw_usage, forget_pictures
from ...errors import ConfigError, DataError
from ...layers.gating.mlp_mixture import Mixed, MLPMixture
from ...literals import file_name, file_names
from .gate_usage import PARTS, CaseUse, block_use, idle_experts, usage_rows, usage_summary, write_usage

__all__ = ["GateMaps"]

logger = logging.getLogger(__name__)


class GateMaps:
    """Handler of MONAI's SupervisedEvaluator that records how the gates share out each modality's tokens.

    At the end there are, in ``output_dir``: ``evaluation/gate_usage.csv`` and ``gate_usage.json`` (see
    :func:`~.gate_usage.usage_rows`; the JSON is written last and names idle experts), ``pictures/gate_usage.png`` and,
    for the first cases of each modality, ``pictures/gate_<task>_<case>.png``. Those of an earlier evaluation are
    removed when a run starts. Hooks are on the network only while the evaluator runs.

    Maps are the mean over the blocks that choose per token, upsampled bilinearly, and need a network that gets the
    whole slices of the volume in their order; otherwise, and for gates that choose per image or by modality, there are
    only tables. A network without gates over experts is left alone.

    Each batch is one volume with ``modality`` (a name, or a position in ``modalities``), ``case`` and ``task``.

    Args:
        network: contains a :class:`~common.backbones.swin_unet.network.SwinUnet` with mixtures.
        output_dir: the run's folder.
        modalities: names of the experts, in their order.
        every: record each n-th case of a modality, >= 1.
        cases: how many recorded cases of each modality are drawn, >= 0.
        volumes: also write ``evaluation/gate_maps/<task>/<case>_expert-<name>.nii.gz``, float32 weights 0..1, mean over
            the encoder's and the decoder's blocks.
        transform: the preprocessing whose inverse (linear) puts these volumes on the image's own grid; without it they
            lie on the network's grid, with the affine of the preprocessed image.
        image_key: of the batch.

    Raises:
        ConfigError: for counts out of range, a network without a Swin-Unet, another number of experts than names, or
            several volumes in one batch.
        DataError: for a case without a modality.
    """

    def __init__(
        self,
        *,
        network: nn.Module,
        output_dir: str | Path,
        modalities: Sequence[str],
        every: int = 1,
        cases: int = 1,
        volumes: bool = False,
        transform: InvertibleTransform | None = None,
        image_key: str = "image",
    ) -> None:
        if every < 1 or cases < 0:
            got = f"every {every}, cases {cases}"
            raise ConfigError("cases are counted from the first", got=got, expected="every >= 1, cases >= 0")
        self.network, self.experts, self.image_key = network, list(modalities), image_key
        self.every, self.cases, self.volumes = every, cases, volumes
        self.folder, self.pictures = Path(output_dir) / "evaluation", Path(output_dir) / "pictures"
        self.restore = transform and RestoreGridd("gate", transform, image_key, interpolate=True)
        self.backbone = next((m for m in network.modules() if isinstance(m, SwinUnet)), None)
        if self.backbone is None:
            raise ConfigError("the network has no Swin-Unet with experts", where="network", got=type(network).__name__)
        self._hooks: list[RemovableHandle] = []
        self._forget()

    def _forget(self) -> None:
        self.uses: list[CaseUse] = []
        self.slices: list[GateSlice] = []
        self.learned, self._warned, self._counts = False, False, dict[str, int]()
        self._now: tuple[str, str, str] | None = None
        self._clear()

    def _clear(self) -> None:
        self._weights: dict[str, list[Tensor]] = {}
        self._tokens: dict[str, int] = {}
        self._inputs: list[tuple[int, ...]] = []

    def attach(self, engine: Engine) -> None:
        """Follow an evaluator."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_STARTED, self.begin)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self.collect)
        engine.add_event_handler(Events.TERMINATE, self.close)
        engine.add_event_handler(Events.COMPLETED, self.finish)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self.fail)

    def start(self, _engine: Engine) -> None:
        """Remove what an earlier evaluation left and listen to the network."""
        self.close()
        self._forget()
        if idist.get_rank() == 0:
            for name in ("gate_usage.json", "gate_usage.csv"):
                (self.folder / name).unlink(missing_ok=True)
            shutil.rmtree(self.folder / "gate_maps", ignore_errors=True)
            forget_pictures(self.pictures)
        blocks = {n: m for n, m in _mixtures(self.backbone) if m.kind != "channel_official"}
        if not blocks:
            logger.info("the network has no gates that choose between experts: there is nothing to record")
            return
        counts = {m.experts.experts for m in blocks.values()}
        if counts != {len(self.experts)}:
            raise ConfigError("one name per expert", where="modalities", got=self.experts, expected=f"{counts} names")
        for name, module in blocks.items():
            self._hooks.append(module.register_forward_hook(partial(self._hear, name)))
        assert self.backbone is not None
        self._hooks.append(self.backbone.patch_embed.register_forward_pre_hook(self._see))

    def close(self, _engine: Engine | None = None) -> None:
        """Take the hooks off the network."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self._now = None
        self._clear()

    def fail(self, _engine: Engine, error: BaseException) -> None:
        """Take the hooks off and let the error go on; with this handler ignite would swallow it."""
        self.close()
        raise error

    def _see(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if self._now is not None:
            self._inputs.append(tuple(inputs[0].shape))

    def _hear(self, name: str, _module: nn.Module, _inputs: Any, output: Mixed) -> None:
        if self._now is None or output.routing is None:
            return
        self._weights.setdefault(name, []).append(output.routing.weights.detach())
        self._tokens[name] = output.tokens.shape[1] * output.tokens.shape[2]
        self.learned |= output.routing.logits is not None

    def begin(self, engine: Engine) -> None:
        """Decide whether the batch's case is recorded."""
        self._clear()
        self._now = None
        if not self._hooks:
            return
        batch: Any = engine.state.batch
        if len(batch[self.image_key]) != 1:
            got = f"{len(batch[self.image_key])} in a batch"
            expected = "a dataloader with batch_size 1"
            raise ConfigError("gates are recorded one volume at a time", got=got, expected=expected)
        case, task, modality = (_first(batch.get(k)) for k in ("case", "task", "modality"))
        if modality is None:
            where = f"case {case}"
            expected = "a key `modality`, as common.data.datasets.datalist.items gives it"
            raise DataError("the case does not say its modality", where=where, got=sorted(batch), expected=expected)
        known = isinstance(modality, str)
        if not known and not 0 <= int(modality) < len(self.experts):
            problem = "the case's modality has no expert"
            raise DataError(problem, where=f"case {case}", got=modality, expected=", ".join(self.experts))
        name = modality if known else self.experts[int(modality)]
        number = self._counts[name] = self._counts.get(name, 0) + 1
        if (number - 1) % self.every == 0:
            self._now = (str(case if case is not None else f"case{engine.state.iteration}"), str(task or ""), name)

    @torch.no_grad()
    def collect(self, engine: Engine) -> None:
        """Sum up the case that went through the network."""
        if self._now is None or not self._weights:
            return
        case, task, modality = self._now
        weights = {name: torch.cat(parts).float() for name, parts in self._weights.items()}
        uses = {name: block_use(w, self._tokens[name]) for name, w in weights.items()}
        self.uses.append(CaseUse(case, task, modality, uses))
        drawn = sum(s.modality == modality for s in self.slices)
        maps = {n: w for n, w in weights.items() if w.ndim == 4}
        if maps and (drawn < self.cases or self.volumes) and self._whole_slices(engine):
            if drawn < self.cases:
                self.slices.append(self._slice(engine, maps))
            if self.volumes:
                self._write_volumes(engine, maps)
        self._now = None
        self._clear()

    def _image(self, engine: Engine) -> Tensor:
        batch: Any = engine.state.batch
        image: Tensor = batch[self.image_key]
        return image

    def _whole_slices(self, engine: Engine) -> bool:
        shape = tuple(self._image(engine).shape)
        depth = sum(s[0] for s in self._inputs)
        if len(shape) == 5 and depth == shape[4] and {s[2:] for s in self._inputs} == {shape[2:4]}:
            return True
        if not self._warned:
            logger.warning("no gate maps: the network did not get the volume's %s slices as they are, but %d of %s",
                           shape[2:], depth, sorted({s[2:] for s in self._inputs}))  # fmt: skip
        self._warned = True
        return False

    def _slice(self, engine: Engine, weights: Mapping[str, Tensor]) -> GateSlice:
        image = self._image(engine)
        output: Any = engine.state.output
        pred = output.get("pred") if isinstance(output, dict) else None
        foreground = torch.zeros(image.shape[2:], dtype=torch.bool)
        if isinstance(pred, Tensor) and pred.shape[2:] == image.shape[2:]:
            foreground = _plain(pred[0].argmax(0) if pred.shape[1] > 1 else pred[0, 0]) > 0
        area = foreground.sum((0, 1))
        at = int(area.argmax()) if bool(area.any()) else image.shape[4] // 2
        size = tuple(image.shape[2:4])
        maps = {}
        for part in PARTS:
            own = [_larger(w[at : at + 1], size)[0] for n, w in weights.items() if n.startswith(part)]
            if own:
                maps[part] = torch.stack(own).mean(0).cpu().numpy()
        affine = decollate_batch(image)[0].affine if isinstance(image, MetaTensor) else torch.eye(4)
        spacing = np.linalg.norm(np.asarray(affine.cpu())[:3, :2], axis=0)
        assert self._now is not None
        plane = _plain(image[0, 0, ..., at]).float().numpy()
        return GateSlice(*self._now, plane, foreground[..., at].numpy(), maps, (float(spacing[0]), float(spacing[1])))

    def _write_volumes(self, engine: Engine, weights: Mapping[str, Tensor]) -> None:
        assert self._now is not None
        case, task, _ = self._now
        image = decollate_batch(self._image(engine))[0]
        total: Any = 0
        for weight in weights.values():
            total = total + _larger(weight, tuple(image.shape[1:3]))
        volume = (total / len(weights)).cpu().permute(1, 2, 3, 0)
        gate = MetaTensor(volume).copy_meta_from(image) if isinstance(image, MetaTensor) else MetaTensor(volume)
        if self.restore:
            gate = self.restore({self.image_key: image, "gate": gate, "case": case})["gate"].cpu()
        folder = self.folder / "gate_maps" / file_name(task)
        own = file_names(self.experts)
        for name, one in zip(self.experts, gate, strict=True):
            path = folder / f"{file_name(Path(case).name)}_expert-{own[name]}.nii.gz"
            write_volume(MetaTensor(_plain(one)[None], affine=gate.affine), path)

    def finish(self, _engine: Engine) -> None:
        """Write tables and pictures."""
        listened = bool(self._hooks)
        self.close()
        uses, slices, learned = self._gather()
        if not listened or not uses or idist.get_rank() != 0:
            return
        rows = usage_rows(uses, self.experts)
        idle = idle_experts(usage_summary(rows)) if learned else []
        for one in idle:
            logger.warning(one["message"])
        captions = {"gate_usage.png": "What the gates choose: the share of each modality's weight that an expert gets"}
        draw_usage(self.pictures / "gate_usage.png", {part: usage_summary(rows, part) for part in PARTS})
        for modality in dict.fromkeys(s.modality for s in slices):
            for part in [s for s in slices if s.modality == modality][: self.cases]:
                file = f"gate_{file_name(part.task, Path(part.case).name)}.png"
                draw_gate_slice(self.pictures / file, part, self.experts)
                captions[file] = f"{part.task}, case {part.case} ({part.modality}): the experts' weights, 0 to 1"
        add_captions(self.pictures, captions)
        write_usage(self.folder, rows, {"learned": learned, "warnings": idle})
        logger.info("what the gates choose, from %d cases: %s", len(uses), self.folder / "gate_usage.csv")

    def _gather(self) -> tuple[list[CaseUse], list[GateSlice], bool]:
        """Records of all processes; a case that a padded sampler gave twice counts once."""
        if idist.get_world_size() == 1:
            return self.uses, self.slices, self.learned
        parts: list[Any] = [None] * idist.get_world_size()
        torch.distributed.all_gather_object(parts, (self.uses, self.slices, self.learned))
        uses = {(u.task, u.case): u for own, _, _ in parts for u in own}
        slices = {(s.task, s.case): s for _, own, _ in parts for s in own}
        return list(uses.values()), list(slices.values()), any(learned for _, _, learned in parts)


def _mixtures(backbone: SwinUnet | None) -> Iterator[tuple[str, MLPMixture]]:
    """Name (``encoder 0.1``, numbers as in the parameters' names) and mixture of each block that has one."""
    if backbone is None:
        return
    for part, stages in zip(PARTS, (backbone.layers, backbone.layers_up), strict=True):
        for s, stage in enumerate(stages):
            for b, block in enumerate(getattr(stage, "blocks", ())):
                if isinstance(block.mlp, MLPMixture):
                    yield f"{part} {s}.{b}", block.mlp


def _larger(weights: Tensor, size: tuple[int, ...]) -> Tensor:
    """``[n, E, h, w] -> [n, E, H, W]``."""
    return F.interpolate(weights, size=size, mode="bilinear", align_corners=False)


def _plain(tensor: Tensor) -> Tensor:
    tensor = tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor
    return tensor.detach().cpu()


def _first(value: Any) -> Any:
    """The only entry of a collated value."""
    if isinstance(value, Tensor):
        return value.flatten()[0].item()
    return value[0] if isinstance(value, (list, tuple)) else value
