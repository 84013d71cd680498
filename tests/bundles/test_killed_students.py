"""An expert of nnU-Net and a student of KA2ER, killed and started again with other workers, end as undisturbed ones."""

from __future__ import annotations

import pytest

from tests.bundles.commands import killed_and_resumed


@pytest.mark.slow
@pytest.mark.selected
def test_killed_trainings_end_with_the_same_weights(phantom_dir, tmp_path):
    data = {"dataset_dir": phantom_dir / "phantom_mr", "max_epochs": 3, "val_interval": 3}
    own = {"name": "phantom_mr", "role": "task", "spacing": [8, 8, 8]}
    _, expert = killed_and_resumed("ka2er_expert", ("train", "smoke"), {**data, **own}, tmp_path / "expert")
    learns = {"experts": expert / "expert.json", "use": ["task"]}
    killed_and_resumed("ka2er", ("train", "smoke"), {**data, **learns}, tmp_path / "student")
