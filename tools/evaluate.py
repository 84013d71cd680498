"""``python -m tools evaluate``: score a bundle's model on a dataset or collection."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.errors import ConfigError
from common.paths import check_new
from common.plain_json import read_object

from .bundle_files import find_bundle
from .chain.trained import require_model
from .workflow import config_files, read_config, run_bundle

__all__ = ["evaluate"]


def evaluate(
    bundle: str,
    dataset_dir: str | None = None,
    split: str = "test",
    weights: str | None = None,
    output_dir: str | None = None,
    ignore_card: bool = False,
    **overrides: Any,
) -> None:
    """Score a bundle's model on labelled cases and print the table.

    Runs ``inference.json`` with ``evaluate.json`` on top; cases.csv, summary.json and overlays of the best and worst
    cases go to ``<output_dir>/evaluation``.

    Args:
        bundle: name or folder, for example ``ka2er``.
        dataset_dir: dataset or collection; the bundle's default when omitted.
        split: ``training``, ``validation`` or ``test``.
        weights: a ``model.pt`` other than the bundle's own.
        output_dir: folder that receives ``evaluation/``; the bundle's default when omitted.
        ignore_card: score data of other channels or modalities than the model's card says; ``summary.json`` records it.
        overrides: ``--key value`` pairs that replace values of the configuration.
    """
    if ignore_card:
        overrides["ignore_card"] = True
    folder = run_evaluation(
        bundle, dataset_dir=dataset_dir, split=split, weights=weights, output_dir=output_dir, overrides=overrides
    )
    print(table(read_object(folder / "summary.json", error=ConfigError, finite=False)))
    print(f"\n{folder}")


def run_evaluation(
    bundle: str,
    *,
    dataset_dir: str | Path | None = None,
    split: str = "test",
    weights: str | Path | None = None,
    output_dir: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Path:
    """What :func:`evaluate` does without the table; returns the evaluation's folder.

    Raises:
        ConfigError: for an unknown bundle or setting, or a run that left no summary.
        WeightError: when the bundle has no model, with those that its runs left.
    """
    root = find_bundle(bundle)
    names = ["evaluate"]
    files = config_files(root, *names)
    if "network_def" not in read_config(files).get():
        files = config_files(root, "inference", *names)
    known = read_config(files).get()
    require_model(root, known, weights, overrides or {})
    given = {"dataset_dir": dataset_dir, "split": split, "model_path": weights, "output_dir": output_dir}
    literals: dict[str, Any] = {k: str(v) for k, v in given.items() if v is not None}
    if "bundle_root" in known:
        literals["bundle_root"] = str(root.resolve())
    typed = dict(overrides or {})
    target = typed.get("output_dir", literals.get("output_dir", known.get("output_dir")))
    if not isinstance(target, str) or (target.startswith("$") and "output_dir" not in literals):
        raise ConfigError("say where the evaluation goes", where=files[-1], got=target, hint="--output_dir FOLDER")
    folder = check_new(Path(target) / "evaluation", what="folder", error=ConfigError)
    (folder / "summary.json").unlink(missing_ok=True)
    run_bundle(files, typed, literals)
    if not (folder / "summary.json").is_file():
        raise ConfigError(
            "the run ended without a summary", where=folder, hint="evaluate.json needs the handler CaseMetrics"
        )
    return folder


def table(summary: Mapping[str, Any]) -> str:
    """Dice and HD95 per task and structure as text, with intervals and counts."""
    lines = [f"{'task':<16} {'structure':<24} {'n':>4}  {'Dice [95 % interval]':<24} {'HD95 mm':>8} {'missed':>7}"]
    for task, block in summary["tasks"].items():
        for name, scores in block["structures"].items():
            lines.append(_line(task, name, scores, scores["missed"]))
        lines.append(_line(task, "mean of structures", block["mean"], ""))
    return "\n".join(lines)


def _line(task: str, name: str, scores: Mapping[str, Any], missed: object) -> str:
    dice, far = scores["dice"], scores["hd95"]["mean"]
    shown = "–" if dice["mean"] is None else f"{dice['mean']:.3f} [{dice['low']:.3f}, {dice['high']:.3f}]"
    return f"{task:<16} {name:<24} {dice['n']:>4}  {shown:<24} {'–' if far is None else f'{far:.1f}':>8} {missed!s:>7}"
