"""Tiny general models, experts and mixtures of SAM-Med3D for tests."""

import copy
from pathlib import Path
from typing import Any

import torch

from common.backbones.sam3d.network import sam3d_network
from common.card import save_weights
from common.engine.run.settings import model_card
from common.labels import LabelSpace
from common.methods.sam_med3d_moe.start import general_model, mixture, read_decoders


class Sam3DFiles:
    """Tiny files of SAM-Med3D as its two bundles leave them, with random weights."""

    labels = LabelSpace(("liver", "spleen", "liver tumour"))

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def general(self, name: str = "general", *, seed: int = 0, boxes: bool = True) -> Path:
        """A general model's ``model.pt``."""
        network = sam3d_network("tiny", seed=seed, boxes=boxes)
        settings = {"variant": "tiny", "image_size": 32, "rel_pos": "intended", "boxes": boxes}
        return self._write(name, network.state_dict(), settings, ["liver", "spleen"], 4.0)

    def expert(
        self, name: str, *structures: str, of: Path, seed: int = 7, encoder: bool = False, spacing: float = 4.0
    ) -> Path:
        """A decoder's ``model.pt``, fine-tuned (at random) on a general model, whose encoder may move, too."""
        general = general_model(of)
        torch.manual_seed(seed)
        for key, parameter in general.network.named_parameters():
            if key.startswith("mask_decoder.") or encoder:
                parameter.data.add_(0.05 * torch.randn_like(parameter))
        return self._write(name, general.network.state_dict(), general.settings, list(structures), spacing)

    def mixture(
        self,
        name: str = "mixture",
        *,
        general: Path,
        experts: dict[str, Path],
        bias: list[float] | None = None,
        **options: Any,
    ) -> Path:
        """A mixture's ``model.pt``; ``bias`` is added to the gate's last one, so that it asks whom a test wants."""
        base = general_model(general)
        found = read_decoders(experts, base.network)
        network = mixture(base, found, hidden=16, **options)
        if bias is not None:
            network.gate.head[-1].bias.data.add_(torch.tensor(bias))
        settings = {
            "network": network.settings,
            "expert_structures": [list(e.structures) for e in found.values()],
            "expert_hashes": [e.sha256 for e in found.values()],
            "gate_at": "every",
            "prompts": "points",
            "spacing": 4.0,
            "clip": {"CT": [-1000, 1000]},
            "modalities": ["CT", "LGE MR", "T2 MR"],
        }
        card = model_card("sam_med3d_moe", self.labels, ["image"], settings).with_extra(epoch=3)
        return save_weights(self.folder / name / "model.pt", copy.deepcopy(network).state_dict(), card)

    def _write(
        self, name: str, state: dict[str, Any], network: dict[str, Any], structures: list[str], spacing: float
    ) -> Path:
        settings = {
            "network": network,
            "name": name,
            "structures": structures,
            "train_what": "decoder",
            "prompts": "points",
            "spacing": spacing,
            "clip": {"CT": [-1000, 1000]},
            "modalities": ["CT", "LGE MR", "T2 MR"],
        }
        card = model_card("sam_med3d_moe_expert", self.labels, ["image"], settings)
        return save_weights(self.folder / name / "model.pt", state, card)
