"""Tiny KA2ER students that are nnU-Nets, with the card that their training writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Orientation

from common.backbones.nnunet.data import NNUNetPreprocessd
from common.backbones.nnunet.network import build_network
from common.backbones.nnunet.plan import Plan, plan_of_settings
from common.backbones.nnunet.window import NNUNetTiles
from common.card import save_weights
from common.engine.run.settings import model_card
from common.labels import LabelSpace
from common.methods.ka2er.begin import nnunet_settings
from tests.nnunet_folders import tiny_plans

STRUCTURES = ("liver", "spleen", "aorta")
TAUGHT = {"CT": ["liver", "spleen"], "MR": ["liver", "aorta"]}


def two_modalities(**plans: Any) -> Plan:
    """Plans of one network for CT and MR."""
    content = tiny_plans(norm="CTNormalization", **plans)
    content["configurations"]["3d_fullres_mr"] = {
        "inherits_from": "3d_fullres", "normalization_schemes": ["ZScoreNormalization"], "use_mask_for_norm": [False],
    }  # fmt: skip
    labels = {"background": 0, **{n: i for i, n in enumerate(STRUCTURES, 1)}}
    data = {"name": "both", "channel_names": {"0": "CT | MR"}, "labels": labels, "file_ending": ".nii.gz"}
    settings = {"plans": content, "dataset_json": data, "configuration": "3d_fullres",
                "by_modality": {"CT": "3d_fullres", "MR": "3d_fullres_mr"}}  # fmt: skip
    return plan_of_settings(settings, ".")


def write_student(path: Path, plan: Plan, scan: MetaTensor | None = None, **settings: Any) -> Path:
    """``model.pt`` with random weights; with a scan, heads that prefer each class somewhere in it."""
    torch.manual_seed(0)
    options = {"in_channels": len(plan.channels), "out_channels": plan.out_channels}
    network = build_network(plan.plans, plan.configuration, **options).eval()
    if scan is not None:
        turned = Orientation(axcodes=plan.orientation, labels=None)(scan)
        image = NNUNetPreprocessd(plan=plan, label=None)({"image": turned, "modality": "CT"})["image"]
        logits = NNUNetTiles(plan=plan)(image[None], network)[0].float()
        with torch.no_grad():
            network.decoder.seg_layers[-1].bias -= logits.flatten(1).median(1).values
    contract = {"format": 1, "taught": TAUGHT, "data": [],
                "modalities": {m: {"kind": m, "channels": [m], "dim": 3} for m in TAUGHT}}  # fmt: skip
    told = {**nnunet_settings(plan=plan, mirror_axes=(0, 2)), **settings}
    card = model_card("ka2er", LabelSpace(STRUCTURES), ["CT | MR"], told, contract=contract)
    return save_weights(path, network.state_dict(), card)
