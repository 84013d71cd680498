"""A made-up chain folder with everything that a report shows, and a toy bundle that runs in a second."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from common.engine.evaluation.score_summary import summary, write_case_csv, write_summary_json
from common.engine.monitor.case_pictures import draw_planes, three_planes
from common.labels import LabelSpace
from tests.tools.empty_dataset import empty_dataset

ROOT = Path(__file__).parents[2]
TASKS = {
    "phantom_ct": ("CT", ("liver", "spleen", "left kidney", "right kidney", "aorta", "tumour")),
    "phantom_mr": ("T2 MR", ("liver", "spleen", "left kidney", "right kidney", "gallbladder")),
    "phantom_lge": ("LGE MR", ("left atrium", "myocardium", "scar", "aorta")),
}
HARD = {"tumour": 0.25, "scar": 0.3, "gallbladder": 0.12, "aorta": 0.06}


def scores(rng, lift, tasks, cases):
    rows = []
    for task in tasks:
        for c in range(cases):
            quality = np.random.default_rng(c).normal(0, 0.05)
            for structure in TASKS[task][1]:
                base = 0.88 + lift - HARD.get(structure, 0) + quality
                dice = float(np.clip(base + rng.normal(0, 0.025), 0, 0.99))
                missed = structure in ("tumour", "scar") and rng.random() < 0.1
                dice = 0.0 if missed else dice
                far = math.nan if missed else 2 + 30 * (1 - dice) ** 1.5
                rows.append(
                    {
                        "case": f"{task}_{c:03d}",
                        "task": task,
                        "structure": structure,
                        "dice": dice,
                        "iou": dice / (2 - dice),
                        "hd95": far,
                        "hd": far * 1.6,
                        "surface_dice": min(1.0, dice * 1.05),
                        "volume_pred_ml": 0.0 if missed else 20.0,
                        "volume_label_ml": 20.0,
                    }
                )
    return rows


def history(folder, rng, epochs, top):
    with (folder / "history.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["epoch", "iteration", "seconds", "lr", "loss", "align", "val_mean_dice"])
        for e in range(1, epochs + 1):
            dice = top * (1 - math.exp(-e / (epochs / 5))) + rng.normal(0, 0.008)
            writer.writerow([e, e * 6, 4.1, 1e-3, 1.4 * math.exp(-e / 12) + 0.2, 0.1, dice if e % 2 == 0 else ""])


def overlays(folder, rows, rng):
    folder.mkdir(parents=True)
    listing = []
    for task in dict.fromkeys(r["task"] for r in rows):
        space = LabelSpace(TASKS[task][1])
        own = sorted((r for r in rows if r["task"] == task), key=lambda r: r["dice"])
        for kind, row in (("worst", own[0]), ("best", own[-1])):
            label = body(0)
            pred = np.roll(label, 0 if kind == "best" else 2, 0)
            image = label * 40.0 + rng.normal(0, 12, label.shape) + 60
            planes = three_planes(label, pred, np.diag([1.5, 1.5, 3.0, 1.0]), None, 1)
            turned = three_planes(image, pred, np.diag([1.5, 1.5, 3.0, 1.0]), None, 1)
            planes = [p._replace(image=q.label) for p, q in zip(planes, turned, strict=True)]
            name = f"{kind}_1_{task}_{row['case']}_{row['dice']:.3f}.png"
            draw_planes(planes, space, f"{row['case']} · {row['structure']} · Dice {row['dice']:.3f}", folder / name)
            keys = ("case", "task", "structure", "dice")
            listing.append({"file": name, "kind": kind, **{k: row[k] for k in keys}, "mean_dice": row["dice"]})
    (folder / "overlays.json").write_text(json.dumps(listing))


def body(shift):
    grid = np.indices((56, 48, 26)).astype(float)
    out = np.zeros((56, 48, 26), int)
    spots = (
        ((20, 24, 13), (13, 11, 8)),
        ((42, 20, 14), (6, 6, 5)),
        ((38, 34, 10), (4, 5, 5)),
        ((16, 36, 9), (4, 5, 5)),
    )
    for i, (centre, radius) in enumerate(spots, 1):
        inside = sum(((g - c - shift) / r) ** 2 for g, c, r in zip(grid, centre, radius, strict=True)) < 1
        out[inside] = i
    return out


def run(folder: Path, rng, lift, tasks, cases, epochs, pictures=True):
    (folder / "evaluation").mkdir(parents=True)
    rows = scores(rng, lift, tasks, cases)
    write_case_csv(rows, folder / "evaluation" / "cases.csv")
    head = {"format": 1, "empty_rule": "nan_skip", "surface_tolerance_mm": 2.0, "prompt_source": "none"}
    write_summary_json({**head, **summary(rows, n_boot=50)}, folder / "evaluation" / "summary.json")
    history(folder, rng, epochs, 0.86 + lift)
    if pictures:
        overlays(folder / "evaluation" / "overlays", rows, rng)


def write_chain(root: Path, *, seeds=(0, 1), cases=6, epochs=40, pictures=True, finished=True) -> Path:
    rng = np.random.default_rng(0)
    steps = []

    def step(identity, kind, title, folder, seconds, status="done", **more):
        command = f"python -m monai.bundle run --config_file bundles/ka2er/configs/train.json --output_dir {folder}"
        base = {"id": identity, "kind": kind, "title": title, "output_dir": folder, "seconds": seconds}
        steps.append({**base, "status": status, "command": command, "metrics": {}, **more})

    for task in TASKS:
        folder = f"experts/{task}"
        run(root / folder, rng, 0.02, [task], cases, epochs, pictures)
        step(f"expert:{task}", "expert", f"Expert {task}", folder, 71.0)
        step(f"evaluate:expert:{task}", "evaluate", f"Evaluation of {task}", folder, 8.0, subject=f"expert:{task}")
    (root / "experts/phantom_general").mkdir(parents=True)
    history(root / "experts/phantom_general", rng, epochs, 0.8)
    step(
        "external:phantom_general", "external", "Task-agnostic expert phantom_general", "experts/phantom_general", 80.0
    )
    for kind, title, lift in (("amalgamated", "KA2ER student", 0.025), ("alone", "Student alone, same budget", -0.03)):
        for seed in seeds:
            folder = f"{kind}/seed{seed}"
            late = not finished and (kind, seed) == ("alone", seeds[-1])
            if late:
                (root / folder).mkdir(parents=True)
            else:
                run(root / folder, rng, lift, list(TASKS), cases, epochs, pictures)
            status = "running" if late else "done"
            step(f"{kind}:seed{seed}", kind, f"{title} (seed {seed})", folder, None if late else 190.0, status)
    if pictures:
        (root / "amalgamated/seed0/pictures").mkdir()
        source = next((root / "amalgamated/seed0/evaluation/overlays").glob("*.png"))
        (root / "amalgamated/seed0/pictures/task_attention.png").write_bytes(source.read_bytes())
        captions = {"task_attention.png": "Attention from the student to the CT expert"}
        (root / "amalgamated/seed0/pictures/captions.json").write_text(json.dumps(captions))
    record = {
        "name": root.name,
        "bundle": "ka2er",
        "created": "2026-01-15T10:12:00+00:00",
        "command": "python -m tools chain run ka2er --dataset_dir data/phantom --preset demo",
        "commit": "a71775d",
        "hardware": {"cpu": "Some CPU", "cores": 2, "gpu": None, "memory_gb": 8},
        "packages": {"monai": "1.6.1", "torch": "2.14.1"},
        "seed": seeds[0],
        "seeds": list(seeds),
        "dataset_dir": "data/phantom",
        "tasks": {
            t: {"modality": [m], "structures": list(s), "cases": {"training": 6, "validation": 2, "test": cases}}
            for t, (m, s) in TASKS.items()
        },
        "steps": steps,
    }
    (root / "chain.json").write_text(json.dumps(record))
    return root


@pytest.fixture
def make_chain():
    """The function that writes a made-up chain."""
    return write_chain


@pytest.fixture(scope="session")
def full_chain(tmp_path_factory):
    """A finished chain with pictures; read only."""
    return write_chain(tmp_path_factory.mktemp("chain") / "demo", cases=4)


@pytest.fixture
def calls(monkeypatch):
    """The ids of a chain's steps as they are done; their commands only leave the files that they would leave."""
    from tools.chain import run as chain_run

    done = []

    def pretend(step, processes):
        done.append(step.id)
        step.output_dir.mkdir(parents=True, exist_ok=True)
        if step.kind == "evaluate":
            (step.output_dir / "evaluation").mkdir(exist_ok=True)
            (step.output_dir / "evaluation" / "summary.json").write_text("{}")
            (step.output_dir / "evaluation" / "cases.csv").write_text("case,dice\n")
            return
        (step.output_dir / "model.pt").write_text(step.id)
        if step.kind in ("expert", "external"):
            fold = step.output_dir / "nnunet" / "Dataset001" / "fold_0"
            fold.mkdir(parents=True, exist_ok=True)
            (fold / "checkpoint_final.pth").write_text(step.id)
            (step.output_dir / "expert.json").write_text(json.dumps({"name": step.id, "path": "model.pt"}))

    monkeypatch.setattr(chain_run, "_call", pretend)
    monkeypatch.chdir(ROOT)
    return done


LOAD = {"_target_": "LoadImaged", "keys": "image", "ensure_channel_first": True}
INFERENCE = {
    "bundle_root": ".",
    "dataset_dir": "data/phantom",
    "split": "test",
    "ckpt_dir": "$@bundle_root + '/models'",
    "model_path": "$@ckpt_dir + '/model.pt'",
    "output_dir": "runs/toy",
    "device": "$torch.device('cpu')",
    "imports": ["$import torch"],
    "network_def": {
        "_target_": "torch.nn.Conv3d",
        "in_channels": 1,
        "out_channels": "$len(@names) + 1",
        "kernel_size": 1,
    },
    "names": ["bright"],
    "network": "$@network_def.to(@device)",
    "weights": {"_target_": "common.weights.load_weights", "module": "@network", "source": "@model_path"},
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            LOAD,
            {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS", "labels": None},
            {"_target_": "common.data.transforms.transforms.SafeSpacingd", "keys": "image", "pixdim": [2.0, 2.0, 2.0]},
        ],
    },
    "dataset": {
        "_target_": "Dataset",
        "data": {"_target_": "common.data.datasets.datalist.items", "dataset_dir": "@dataset_dir", "split": "@split"},
        "transform": "@preprocessing",
    },
    "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1},
    "inferer": {"_target_": "common.engine.inference.windows.WindowInferer", "roi_size": [16, 16, 16]},
    "restore": [
        {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
        {"_target_": "common.data.transforms.restore.RestoreGridd", "keys": "pred", "transform": "@preprocessing"},
        {"_target_": "common.data.transforms.restore.SavePredictiond", "keys": "pred", "output_dir": "@output_dir"},
    ],
    "postprocessing": {"_target_": "Compose", "transforms": "@restore"},
    "handlers": [],
    "evaluator": {
        "_target_": "SupervisedEvaluator",
        "device": "@device",
        "val_data_loader": "@dataloader",
        "network": "@network",
        "inferer": "@inferer",
        "postprocessing": "@postprocessing",
        "val_handlers": "@handlers",
    },
    "run": ["$@weights", "$@evaluator.run()"],
}
EVALUATE = {
    "labels": {"_target_": "common.data.datasets.datalist.label_space", "dataset_dir": "@dataset_dir"},
    "names": "$@labels.names",
    "dataset": {
        "_target_": "Dataset",
        "data": {"_target_": "common.data.datasets.datalist.items", "dataset_dir": "@dataset_dir", "split": "@split"},
        "transform": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "label", "ensure_channel_first": True},
                {"_target_": "common.data.transforms.transforms.DescribeCased", "dataset_dir": "@dataset_dir"},
                {
                    "_target_": "common.data.transforms.transforms.MapLabelsd",
                    "keys": "label",
                    "dataset_dir": "@dataset_dir",
                },
                "@preprocessing",
            ],
        },
    },
    "restore": [*INFERENCE["restore"][:2]],
    "handlers": [
        {
            "_target_": "common.engine.evaluation.metrics.CaseMetrics",
            "output_dir": "@output_dir",
            "labels": "@labels",
            "n_boot": 20,
        }
    ],
}


def threshold_weights(path, classes=1, at=50.0):
    """A 1x1x1 convolution that calls every voxel above a threshold class 1."""
    weight, bias = torch.zeros(classes + 1, 1, 1, 1, 1), torch.full((classes + 1,), -1e4)
    weight[1], bias[0], bias[1] = 1.0, 0.0, -at
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"weight": weight, "bias": bias}, path)


@pytest.fixture
def collection(tmp_path):
    """Two tasks, ``a`` (liver) and ``b`` (liver, spleen), with a case in each split."""
    empty_dataset(tmp_path / "data" / "a", {"liver": 1})
    empty_dataset(tmp_path / "data" / "b", {"liver": 1, "spleen": 2})
    return tmp_path / "data"


@pytest.fixture
def toy_bundle(tmp_path):
    """A bundle whose network thresholds at 50; ``configs`` may be rewritten."""
    root = tmp_path / "töy bundle"
    (root / "configs").mkdir(parents=True)
    for name, content in (("inference", INFERENCE), ("evaluate", EVALUATE)):
        (root / "configs" / f"{name}.json").write_text(json.dumps(content))
    threshold_weights(root / "models" / "model.pt")
    return root


@pytest.fixture
def make_weights():
    """The function that writes the toy network's weights."""
    return threshold_weights
