"""Evaluation through a bundle's own configuration: scores on the cases' own grids."""

import json

import nibabel as nib
import numpy as np
import pytest

from common.data.datasets.datalist import items, label_space
from common.engine.evaluation.score_summary import read_case_csv
from common.engine.evaluation.scores import case_metrics
from common.errors import AmalgamationError, ConfigError
from tools.evaluate import evaluate, run_evaluation, table


@pytest.fixture
def scored(toy_bundle, phantom_dir, tmp_path, make_weights):
    space = label_space(phantom_dir)
    make_weights(toy_bundle / "models" / "model.pt", classes=len(space), at=20.0)
    return toy_bundle, phantom_dir, tmp_path / "run", space


def test_scores_are_measured_on_the_original_grid(scored):
    bundle, data, out, space = scored
    path = bundle / "configs" / "evaluate.json"
    content = json.loads(path.read_text())
    saving = {"_target_": "common.data.transforms.restore.SavePredictiond", "keys": "pred", "output_dir": "@output_dir"}
    path.write_text(json.dumps({**content, "restore": [*content["restore"], saving]}))
    folder = run_evaluation(bundle, dataset_dir=data, output_dir=out)
    rows = read_case_csv(folder / "cases.csv")
    assert {r["task"] for r in rows} == {"phantom_ct", "phantom_mr", "phantom_lge"}
    one = items(data, "test")[0]
    label = nib.load(one["label"])
    pred = nib.load(out / one["task"] / f"{one['case']}.nii.gz")
    np.testing.assert_allclose(pred.affine, label.affine, atol=1e-4)
    own = label_space(data / one["task"])
    mapped = np.zeros(label.shape, int)
    for value, index in space.lookup(own).items():
        mapped[np.asarray(label.dataobj) == value] = index
    spacing = nib.affines.voxel_sizes(label.affine)
    expected = case_metrics(np.asarray(pred.dataobj), mapped, space, space.annotated(own), spacing)
    got = [r for r in rows if r["case"] == one["case"] and r["task"] == one["task"]]
    assert [r["structure"] for r in got] == list(own.names)
    for g, e in zip(got, expected, strict=True):
        np.testing.assert_allclose([g["dice"], g["hd95"]], [e["dice"], e["hd95"]], rtol=1e-4)


def test_command_prints_a_table_and_refuses_typos(scored, capsys):
    bundle, data, out, _ = scored
    evaluate(str(bundle), str(data), split="validation", output_dir=str(out))
    shown = capsys.readouterr().out
    assert "phantom_ct" in shown and "mean of structures" in shown and str(out / "evaluation") in shown
    with pytest.raises(ConfigError, match="did you mean --dataset_dir"):
        run_evaluation(bundle, output_dir=out, overrides={"dataset_dri": "x"})


def test_a_failed_run_leaves_no_old_summary(scored, tmp_path):
    bundle, data, out, _ = scored
    folder = run_evaluation(bundle, dataset_dir=data, output_dir=out)
    assert (folder / "summary.json").is_file()
    with pytest.raises(AmalgamationError):
        run_evaluation(bundle, dataset_dir=data, output_dir=out, weights=tmp_path / "none.pt")
    assert not (folder / "summary.json").exists()


def test_needs_the_handler_and_a_folder(scored):
    bundle, data, out, _ = scored
    path = bundle / "configs" / "evaluate.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "handlers": []}))
    with pytest.raises(ConfigError, match="without a summary"):
        run_evaluation(bundle, dataset_dir=data, output_dir=out)
    path.write_text(json.dumps({**json.loads(path.read_text()), "output_dir": "$1"}))
    with pytest.raises(ConfigError, match="where the evaluation goes"):
        run_evaluation(bundle, dataset_dir=data)


def test_table_shows_unknown_as_dash():
    nothing = {"mean": None, "median": None, "low": None, "high": None, "n": 0}
    block = {"structures": {"liver": {"missed": 1, "dice": nothing, "hd95": nothing}}}
    block["mean"] = {"dice": {**nothing, "mean": 0.5, "low": 0.4, "high": 0.6, "n": 3}, "hd95": nothing}
    text = table({"tasks": {"ct": block}})
    assert "–" in text and "0.500 [0.400, 0.600]" in text
