"""What a user sees of a run: progress, history, pictures."""

from __future__ import annotations

import logging

import matplotlib.image
import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor

from common.engine.monitor.history import History, read_history, write_history
from common.engine.monitor.overlays import Overlays, class_colors, draw_overlay, radiological
from common.engine.monitor.progress import Progress, remaining_seconds
from common.engine.monitor.tracking import Tracking
from common.errors import DataError
from common.labels import LabelSpace


def engine(losses=(1.0, 3.0)) -> Engine:
    return Engine(lambda e, batch: {"loss": losses[batch] * e.state.epoch, "dice_term": 0.5, "image": torch.zeros(2)})


def test_remaining_time() -> None:
    assert remaining_seconds(10.0, 5, 20) == 40.0
    assert remaining_seconds(10.0, 0, 20) is None


def test_eta_counts_the_steps_of_this_process_only(caplog) -> None:
    now = [100.0]
    progress = Progress(terminal=False, clock=lambda: now[0])
    run, seen = engine(), []
    progress.attach(run)

    @run.on(Events.STARTED)
    def resume(e: Engine) -> None:
        e.state.epoch, e.state.iteration = 2, 4

    @run.on(Events.ITERATION_COMPLETED)
    def tick(e: Engine) -> None:
        now[0] += 10.0
        seen.append(progress.eta(e))

    with caplog.at_level(logging.INFO, "common"):
        run.run([0, 1], max_epochs=5)
    assert seen == [50.0, 40.0, 30.0, 20.0, 10.0, 0.0]
    assert "epoch 3/5: loss 6.0000, 00:40 left" in caplog.text


def test_bar_and_quiet(capsys) -> None:
    for quiet in (False, True):
        run = engine()
        Progress(terminal=True, quiet=quiet).attach(run)
        run.run([0, 1], max_epochs=3)
        text = capsys.readouterr().err
        assert ("epoch 3/3" in text and "6/6" in text and "loss 6.0000" in text) is not quiet


class Optimizer:
    param_groups = ({"lr": 0.25},)


def test_history_has_means_terms_and_metrics(tmp_path) -> None:
    run, evaluator = engine(), Engine(lambda e, b: None)
    evaluator.state.metrics = {"dice": torch.tensor(0.75), "table": torch.zeros(3)}

    @run.on(Events.EPOCH_COMPLETED(every=2))
    def validate(e: Engine) -> None:
        evaluator.state.epoch = e.state.epoch

    History(output_dir=tmp_path / "out", evaluator=evaluator, optimizer=Optimizer(), picture_every=2).attach(run)
    run.run([0, 1], max_epochs=4)
    rows = read_history(tmp_path / "out" / "history.csv")
    assert [r["epoch"] for r in rows] == [1, 2, 3, 4] and [r["loss"] for r in rows] == [2, 4, 6, 8]
    assert [r["val_dice"] for r in rows] == [None, 0.75, None, 0.75]
    assert rows[0]["lr"] == 0.25 and rows[0]["dice_term"] == 0.5 and "image" not in rows[0]
    assert matplotlib.image.imread(tmp_path / "out" / "curves.png").shape[0] > 100


def test_history_continues_and_starts_anew(tmp_path) -> None:
    write_history(tmp_path / "history.csv", [{"epoch": i, "iteration": 2 * i, "loss": -1.0} for i in (1, 2, 3)])
    run = engine()

    @run.on(Events.STARTED)
    def resume(e: Engine) -> None:
        e.state.epoch, e.state.iteration = 2, 4

    History(output_dir=tmp_path).attach(run)
    run.run([0, 1], max_epochs=4)
    assert [r["loss"] for r in read_history(tmp_path / "history.csv")] == [-1, -1, 6, 8]
    fresh = engine()
    History(output_dir=tmp_path).attach(fresh)
    fresh.run([0, 1], max_epochs=1)
    assert len(read_history(tmp_path / "history.csv")) == 1
    assert len(read_history(tmp_path / "history_previous.csv")) == 4


LABELS = LabelSpace(("liver", "left kidney", "aorta"))


def volume():
    x, y, z = np.meshgrid(*(np.arange(n) for n in (48, 40, 12)), indexing="ij")
    label = np.zeros((48, 40, 12), dtype=np.int64)
    label[(x - 16) ** 2 + (y - 20) ** 2 + (4 * (z - 6)) ** 2 < 130] = 1
    label[(x - 36) ** 2 + (y - 24) ** 2 + (4 * (z - 5)) ** 2 < 50] = 2
    label[(x - 28) ** 2 + (y - 8) ** 2 < 9] = 3
    image = label * 40.0 + np.random.default_rng(0).normal(0, 12, label.shape)
    return image, label, np.roll(label, 2, axis=0)


def test_overlay_of_a_volume_has_three_planes_and_colours(tmp_path) -> None:
    image, label, pred = volume()
    path = tmp_path / "overlays" / "case.png"
    draw_overlay(path, image=image, label=label, pred=pred, labels=LABELS, spacing=(1, 1, 4), title="case, epoch 3")
    pixels = matplotlib.image.imread(path)[..., :3]
    assert pixels.shape[1] > 2 * pixels.shape[0]
    for color in class_colors(3):
        rgb = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        assert (np.abs(pixels - rgb).max(axis=-1) < 0.03).sum() > 50, f"{color} is not in the picture"


@pytest.mark.parametrize(("with_label", "with_pred"), [(True, True), (False, True), (True, False), (False, False)])
def test_overlay_in_two_dimensions_with_whatever_is_there(tmp_path, with_label, with_pred) -> None:
    image, label, pred = (a[:, :, 5] for a in volume())
    path = tmp_path / "slice.png"
    draw_overlay(
        path, image=image, label=label if with_label else None, pred=pred if with_pred else None, labels=LABELS
    )
    assert path.stat().st_size > 1000


def test_overlay_of_empty_and_constant_images(tmp_path) -> None:
    empty = np.zeros((8, 8, 8), dtype=np.int64)
    draw_overlay(tmp_path / "a.png", image=np.zeros((8, 8, 8)), label=empty, pred=empty, labels=LABELS)
    draw_overlay(tmp_path / "b.png", image=np.full((8, 8, 8), np.nan), label=empty, pred=empty, labels=LABELS)
    with pytest.raises(DataError, match="pred and image differ in shape"):
        draw_overlay(tmp_path / "c.png", image=np.zeros((8, 8, 8)), label=None, pred=empty[1:], labels=LABELS)


@pytest.mark.parametrize("decollated", [False, True])
def test_overlays_handler_draws_the_first_cases(tmp_path, decollated) -> None:
    image, label, pred = (torch.as_tensor(a)[None, None] for a in volume())
    one_hot = torch.nn.functional.one_hot(pred[:, 0], 4).permute(0, 4, 1, 2, 3).float()

    def batch(i: int):
        values = {"image": MetaTensor(image[0].float()), "label": label[0].float(), "case": f"scan {i}/a"}
        return (
            [values] if decollated else {**{k: v[None] for k, v in list(values.items())[:2]}, "case": [values["case"]]}
        )

    run = Engine(lambda e, b: [{"pred": one_hot[0]}] if decollated else {"pred": one_hot})
    Overlays(output_dir=tmp_path, labels=LABELS, cases=2).attach(run)
    run.run([batch(i) for i in range(3)], max_epochs=1)
    assert sorted(p.name for p in (tmp_path / "overlays").iterdir()) == [
        "scan_0_a_c7e135c0.png",
        "scan_1_a_9146e8a1.png",
    ]


def test_tracking_without_a_tracked_run_does_nothing(tmp_path) -> None:
    run = engine()
    Tracking(output_dir=tmp_path).attach(run)
    run.run([0, 1], max_epochs=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "ASR", "SLP"])
def test_every_orientation_is_shown_alike(axcodes) -> None:
    from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform

    volume = np.arange(24.0).reshape(2, 3, 4)  # axes towards left, anterior, superior
    affine = np.diag([-1.0, 2.0, 5.0, 1.0])
    turn = ornt_transform(axcodes2ornt("LAS"), axcodes2ornt(axcodes))
    stored = apply_orientation(volume, turn)
    (shown, nothing), spacing = radiological((stored, None), torch.as_tensor(affine @ inv_ornt_aff(turn, volume.shape)))
    assert np.array_equal(shown, volume) and nothing is None and spacing == (1.0, 2.0, 5.0)
    assert radiological((stored[0],), torch.eye(4))[1] == (1.0, 1.0, 1.0)
