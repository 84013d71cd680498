"""A train.json with which MONAI Label refines the model that it serves, on the label maps corrected in a viewer."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from common.literals import inert

from .config import Model

__all__ = ["SERVED_TARGETS", "served_training"]

SERVED_TARGETS = (
    "common.data.prompts.objects",
    "common.data.requests.answer",
    "common.data.requests.card",
    "common.data.requests.submitted",
    "common.data.transforms.loading",
    "common.data.transforms.transforms",
    "common.engine.evaluation.metrics",
    "common.engine.run.best",
    "common.engine.run.settings",
    "common.engine.training.click_training",
    "common.engine.training.refine",
    "common.engine.training.steps",
    "common.losses.refine",
)
"""Modules that a server's configurations name beside the bundle's own; a bundle that is self-contained brings them."""

# what makes the network and its input, and nothing of answering
_SHARED = frozenset((
    "model", "plan", "labels", "modalities", "network_def", "slice_network", "picture_network", "preprocessing",
    "inferer", "modality", "head", "slices", "overlap", "mirror", "sw_batch_size", "box_source", "box", "device",
))  # fmt: skip
_OBJECTS = frozenset(("model", "labels", "modality", "device"))
_KWARGS = {"m4oe": {"modality": "modality_id", "head": "head_id"}}
_CROPS: dict[str, Any] = {"ka2er": "$@model['roi_size']", "m4oe": [-1, -1, 8], "samora": [-1, -1, 8]}
_PARAMETERS = {
    "samora": "$@network.network.trainable()",
    "ic_moe": "$@network.network.trainable()",
    "sam_med3d_moe": "$@training.trainable()",
}


def served_training(model: Model, inference: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration for ``configs/train.json`` of a laid-out bundle.

    It has the network and the very preprocessing of ``inference``, and refines the network that is served: experts that
    a method asks in its own training are not asked any more. A viewer's default request evaluates the whole file, so
    nothing in it may cost anything or need data that are not there; handlers are dictionaries, because the server looks
    into them.

    Args:
        model: from :func:`~.config.read_model`.
        inference: from :func:`~.config.served_inference`.
    """
    method = model.card.bundle
    wanted = _OBJECTS if method == "sam_med3d_moe" else _SHARED
    shared = {k: copy.deepcopy(v) for k, v in inference.items() if k in wanted}
    for key, value in inference.get("displayable_configs", {}).items():
        shared[key] = value[0] if isinstance(value, list) else value
    config = {"bundle_root": ".", "learning_rate": 1e-4, **shared, "network": "$@network_def.to(@device)"}
    config["card"] = _card(model)
    kwargs = _KWARGS.get(method, {})
    parts = _objects(model) if method == "sam_med3d_moe" else _maps(model, kwargs)
    parameters = _PARAMETERS.get(method, "$[p for p in @network.parameters() if p.requires_grad]")
    config |= parts["top"]
    config["train"] = {**parts["train"], **_loop(parameters, parts.get("network", "@network"))}
    config["validate"] = parts["validate"]
    config["run"] = ["$@train::trainer.run()"]
    return config


def _card(model: Model) -> dict[str, Any]:
    card = model.card
    return {"_target_": "common.engine.run.settings.model_card", "bundle": card.bundle, "labels": "@labels",
            "channels": inert(list(card.channels)), "settings": inert(dict(model.settings)),
            "version": inert(card.version), "contract": inert(dict(card.extra.get("contract") or {}))}  # fmt: skip


def _loop(parameters: str, network: str) -> dict[str, Any]:
    """Optimizer, handlers and trainer; ``max_epochs`` is the server's to set."""
    stats = {"_target_": "monai.handlers.from_engine", "keys": ["loss"], "first": True}
    return {
        "optimizer": {
            "_target_": "torch.optim.AdamW",
            "params": parameters,
            "lr": "@learning_rate",
            "weight_decay": 1e-5,
        },
        "keeper": {
            "_target_": "common.engine.run.best.KeepBest",
            "path": "$@bundle_root + '/models/model.pt'",
            "network": "@network",
            "card": "@card",
        },
        "handlers": [
            {
                "_target_": "common.engine.training.refine.RefineServed",
                "keeper": "@train::keeper",
                "validator": "@validate::evaluator",
            },
            {"_target_": "StatsHandler", "tag_name": "loss", "output_transform": stats},
        ],
        "trainer": {
            "_target_": "SupervisedTrainer",
            "max_epochs": 50,
            "device": "@device",
            "network": network,
            "train_data_loader": "@train::dataloader",
            "optimizer": "@train::optimizer",
            "loss_function": "@train::loss",
            "inferer": {"_target_": "SimpleInferer"},
            "prepare_batch": "@train::prepare_batch",
            "iteration_update": {"_target_": "common.engine.training.steps.TermsStep"},
            "train_handlers": "@train::handlers",
        },
    }


def _maps(model: Model, kwargs: Mapping[str, str]) -> dict[str, Any]:
    """Data, loss and validation of networks that give a map of all structures."""
    method = model.card.bundle
    heads = {str(name): list(own) for name, own in model.settings.get("heads") or ()}
    annotated = {"_target_": "common.data.requests.submitted.annotated_by", "heads": inert(heads), "head": "@head"}
    label = {"_target_": "common.data.requests.submitted.ServerLabeld", "labels": "@labels",
             "annotated": annotated if heads else None}  # fmt: skip
    keys = ["image", "label"]
    crop = {"_target_": "RandCropByPosNegLabeld", "keys": keys, "label_key": "label", "pos": 2.0, "neg": 1.0,
            "spatial_size": _CROPS.get(method), "num_samples": 1, "allow_smaller": True}  # fmt: skip
    steps = [label, *([crop] if method in _CROPS else []),
             {"_target_": "RandScaleIntensityd", "keys": "image", "factors": 0.1, "prob": 0.5},
             {"_target_": "EnsureTyped", "keys": keys, "track_meta": False}]  # fmt: skip
    prepare = {
        "_target_": "common.engine.training.steps.PrepareKeys",
        "kwargs": dict(kwargs),
        "targets": ["label", "annotated"],
    }
    batch = 4 if model.flat else 1
    return {
        "top": {},
        "train": {
            "transforms": {"_target_": "Compose", "transforms": steps},
            "dataset": _dataset("$list(@preprocessing.transforms) + list(@train::transforms.transforms)"),
            "dataloader": _loader("@train::dataset", batch, shuffle=True),
            "loss": {"_target_": "common.losses.refine.RefineLoss", "exclusive": "@labels.exclusive"},
            "prepare_batch": prepare,
        },
        "validate": {
            "label": {"_target_": "Compose", "transforms": [label]},
            "dataset": _dataset("$list(@preprocessing.transforms) + list(@validate::label.transforms)"),
            "dataloader": _loader("@validate::dataset", 1),
            "key_metric": {
                "mean_dice": {"_target_": "common.engine.evaluation.metrics.AnnotatedDice", "labels": "@labels"}
            },
            "evaluator": _evaluator("@network", "@inferer", {**prepare, "targets": []}),
        },
    }


def _objects(model: Model) -> dict[str, Any]:
    """Data, loss and validation of a promptable mixture: every structure an object, clicked at until the end."""
    keys = ["image", "label"]
    steps = [
        {"_target_": "common.data.transforms.loading.LoadCased", "keys": "image"},
        {
            "_target_": "common.data.prompts.objects.ClampModalityd",
            "keys": "image",
            "bounds": "$@model['clip']",
            "default": "@modality",
            "modalities": "$@model['modalities']",
        },
        {"_target_": "common.data.requests.submitted.ServerLabeld", "labels": "@labels", "match": False},
        {"_target_": "Orientationd", "keys": keys, "axcodes": "RAS", "labels": None},
        {
            "_target_": "common.data.transforms.transforms.SafeSpacingd",
            "keys": keys,
            "pixdim": "$[@model['spacing']] * 3",
            "mode": ["bilinear", "nearest"],
        },
        {"_target_": "EnsureTyped", "keys": keys},
    ]
    crops = {"_target_": "common.data.prompts.objects.ObjectCrops", "data": [], "preprocessing": "@objects",
             "size": "$@network_def.image_size", "labels": "@labels", "min_voxels": 1, "allow_empty": True}  # fmt: skip
    prepare = {
        "_target_": "common.engine.training.steps.PrepareKeys",
        "kwargs": ["label", "box"],
        "targets": ["expert"],
    }
    metric = {"_target_": "monai.handlers.from_engine", "keys": ["pred", "label"]}
    clicked = {"_target_": "common.engine.training.click_training.ClickTraining", "network": "@network", "train": None,
               "gate_at": "$@model['gate_at']",
               "prompts": "$'both' if @model['network']['boxes'] else 'points'"}  # fmt: skip
    return {
        "top": {
            "objects": {"_target_": "Compose", "transforms": steps},
            "network_def": {"_target_": "common.methods.sam_med3d_moe.start.trained_mixture",
                            "settings": "$@model['network']", "train": "joint"},
            "training": clicked,
        },
        "train": {
            "dataset": {**crops, "experts": "$@model['expert_structures']"},
            "dataloader": _loader("@train::dataset", 2, shuffle=True),
            "loss": {"_target_": "common.methods.sam_med3d_moe.loss.SessionLoss", "mean": True},
            "prepare_batch": prepare,
        },
        "network": "@training",
        "validate": {
            "dataset": crops,
            "dataloader": _loader("@validate::dataset", 1),
            "network": {"_target_": "common.engine.training.click_training.ClickValidation", "network": "@network"},
            "key_metric": {"mean_dice": {"_target_": "MeanDice", "output_transform": metric}},
            "evaluator": _evaluator("@validate::network", {"_target_": "SimpleInferer"},
                                    {**prepare, "kwargs": ["label", "box", "case", "name"], "targets": []}),
        },
    }  # fmt: skip


def _dataset(transform: str) -> dict[str, Any]:
    return {"_target_": "Dataset", "data": [], "transform": {"_target_": "Compose", "transforms": transform}}


def _loader(dataset: str, batch_size: int, *, shuffle: bool = False) -> dict[str, Any]:
    return {
        "_target_": "DataLoader",
        "dataset": dataset,
        "batch_size": batch_size,
        "shuffle": shuffle,
        "num_workers": 0,
    }


def _evaluator(network: str, inferer: Any, prepare: Mapping[str, Any]) -> dict[str, Any]:
    return {"_target_": "SupervisedEvaluator", "device": "@device", "val_data_loader": "@validate::dataloader",
            "network": network, "inferer": inferer, "prepare_batch": dict(prepare),
            "key_val_metric": "@validate::key_metric"}  # fmt: skip
