"""A comparison's folder that nobody trained: images, answers that are wrong by known amounts, costs."""

import json
from pathlib import Path

import nibabel
import numpy as np

from common.engine.evaluation.score_summary import summary, write_case_csv, write_summary_json

STRUCTURES = ("liver", "spleen")
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])
SHAPE = (26, 22, 14)


def write_dataset(folder, cases=8):
    """A dataset with two ball-shaped structures; returns the label maps by case."""
    rng = np.random.default_rng(0)
    labels, entries = {}, []
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for i in range(cases):
        grid = np.indices(SHAPE).astype(float)
        label = np.zeros(SHAPE, np.uint8)
        for value, (centre, radius) in enumerate((((9, 10, 7), 5), ((18, 12, 7), 4)), 1):
            label[sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) < (radius + 0.1 * i) ** 2] = value
        image = (label * 300.0 + rng.normal(0, 40, SHAPE)).astype(np.int16)
        name = f"case_{i}"
        nibabel.save(nibabel.Nifti1Image(image, AFFINE), folder / "images" / f"{name}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(label, AFFINE), folder / "labels" / f"{name}.nii.gz")
        entries.append({"image": f"images/{name}.nii.gz", "label": f"labels/{name}.nii.gz", "id": name})
        labels[name] = label
    description = {"name": "toy", "channel_names": {"0": "CT"}, "training": [], "validation": [], "test": entries}
    description["labels"] = {"background": 0, "liver": 1, "spleen": 2}
    (folder / "dataset.json").write_text(json.dumps(description))
    return labels


def write_run(folder, labels, shift, costs=True, missed=()):
    """A run whose answer is the label moved by ``shift`` voxels for case 0, one more for every second case."""
    rows = []
    (folder / "predictions" / "toy").mkdir(parents=True)
    (folder / "evaluation").mkdir()
    for i, (case, label) in enumerate(labels.items()):
        answer = np.roll(label, shift + i % 2, 0)
        answer[answer == 2] = 0 if case in missed else 2
        nibabel.save(nibabel.Nifti1Image(answer, AFFINE), folder / "predictions" / "toy" / f"{case}.nii.gz")
        for value, name in enumerate(STRUCTURES, 1):
            a, b = answer == value, label == value
            dice = 2.0 * (a & b).sum() / (a.sum() + b.sum())
            far = float("nan") if not a.any() else 2.0 * (shift + i % 2)
            row = {"case": case, "task": "toy", "structure": name, "dice": dice, "iou": dice / (2 - dice)}
            row |= {"hd95": far, "hd": far, "surface_dice": dice}
            rows.append({**row, "volume_pred_ml": a.sum() * 0.012, "volume_label_ml": b.sum() * 0.012})
    write_case_csv(rows, folder / "evaluation" / "cases.csv")
    head = {"format": 1, "empty_rule": "nan_skip", "labels": {"names": list(STRUCTURES)}}
    write_summary_json({**head, **summary(rows, n_boot=20)}, folder / "evaluation" / "summary.json")
    lines = "".join(f"{e},{e * 5},1.0,0.001,{2 / e}\n" for e in range(1, 5))
    (folder / "history.csv").write_text("epoch,iteration,seconds,lr,loss\n" + lines)
    if costs:
        write_costs(folder, seconds=60.0 + shift, case_s=0.5 + shift)
    return rows


def write_costs(folder, seconds, case_s):
    training = {"seconds": seconds, "steps": 20, "trained_parameters": 1500, "peak_mb": 900.0, "ended_by_clock": False}
    (folder / "evaluation").mkdir(parents=True, exist_ok=True)
    (folder / "training_costs.json").write_text(json.dumps(training))
    cases = [{"task": "toy", "case": "case_0", "seconds": 99.0, "peak_mb": 700.0, "multiply_adds_g": 12.5}]
    cases[0]["counted"] = True
    cases += [{"task": "toy", "case": f"case_{i}", "seconds": case_s, "peak_mb": 650.0 + i} for i in (1, 2)]
    evaluation = {"parameters": 2_000_000, "device": "cpu", "cases": cases}
    (folder / "evaluation" / "costs.json").write_text(json.dumps(evaluation))


def _step(identity, kind, title, folder, status="done", **more):
    row = {"id": identity, "kind": kind, "title": title, "output_dir": folder, "seconds": 70.0, "status": status}
    return {**row, "command": f"python -m monai.bundle run --output_dir {folder}", "metrics": {}, **more}


def _chain(folder, bundle, steps):
    folder.mkdir(parents=True, exist_ok=True)
    record = {"name": folder.name, "bundle": bundle, "created": "2026-01-15T10:12:00+00:00", "steps": steps}
    (folder / "chain.json").write_text(json.dumps(record))


def _trained(run, seeds, title, kind="variant"):
    steps = []
    for seed in seeds:
        folder = f"{run}/seed{seed}"
        steps.append(_step(f"{run}:seed{seed}", kind, f"{title} (seed {seed})", folder))
        about = {"subject": f"{run}:seed{seed}"}
        steps.append(_step(f"evaluate:{run}:seed{seed}", "evaluate", f"Evaluation of {title}", folder, **about))
    return steps


def member(name, title, bundle, run, **more):
    plain = {"name": name, "title": title, "bundle": bundle, "run": run, "prompted": False, "preset": "smoke"}
    return {**plain, "experts": [], **more}


def write_comparison(root: Path, cases=8) -> Path:
    """Two bundles: ``good`` and ``bad`` with two seeds, an expert, and ``late`` that was never run."""
    labels = write_dataset(root / "data" / "toy", cases)
    out = root / "compare"
    for seed in (0, 1):
        write_run(out / "one" / "amalgamated" / f"seed{seed}", labels, shift=seed)
        write_run(out / "one" / "alone" / f"seed{seed}", labels, shift=2 + seed, missed=("case_3",))
    write_run(out / "two" / "alone" / "seed0", labels, shift=1, costs=False)
    expert = _step("expert:toy", "expert", "Expert toy", "experts/toy")
    write_costs(out / "one" / "experts" / "toy", seconds=30.0, case_s=0.1)
    students = [*_trained("amalgamated", (0, 1), "Good", "amalgamated"), *_trained("alone", (0, 1), "Bad", "alone")]
    _chain(out / "one", "one", [expert, *students])
    late = _step("amalgamated:seed0", "amalgamated", "Late (seed 0)", "amalgamated/seed0", "failed")
    _chain(out / "two", "two", [late, *_trained("alone", (0,), "Plain", "alone")])
    record = {
        "format": 1,
        "name": "compare",
        "command": "python -m tools compare run --methods good,bad",
        "created": "2026-01-15T10:12:00+00:00",
        "commit": "a71775d",
        "dataset_dir": str(root / "data"),
        "split": "test",
        "seeds": [0, 1],
        "budget": {"steps": 20, "minutes": None, "words": "20 steps"},
        "reference": "good",
        "members": [
            member("good", "Good", "one", "amalgamated", experts=["expert:toy"]),
            member("bad", "Bad <b>", "one", "alone"),
            member("plain", "Plain", "two", "alone", prompted=True),
            member("late", "Late", "two", "amalgamated"),
        ],
        "left_out": {"flat": "takes 2-D pictures, the collection has volumes"},
        "failures": {"two": {"amalgamated:seed0": "ExpertError: no expert\nread the log"}},
    }
    (out / "compare.json").write_text(json.dumps(record))
    return out
