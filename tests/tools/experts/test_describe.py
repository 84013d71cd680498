"""`tools experts describe` writes what a chain takes in the place of a training."""

import pytest

from common.errors import AmalgamationError, ConfigError
from common.experts.spec import read_manifest
from tools.experts.command import Experts


def test_an_nnunet_folder_becomes_a_file_for_the_chain(nnunet_folder, tmp_path, capsys):
    folder, out = str(nnunet_folder()), tmp_path / "a.json"
    Experts().describe(folder, str(out), task="a")
    (spec,) = read_manifest(out)
    said = capsys.readouterr().out
    assert spec.task == "a" and spec.kind == "nnunet" and spec.labels.names[0] in said and f"--given a={out}" in said
    with pytest.raises(AmalgamationError, match=r"(?s)file of this name already.*--overwrite"):
        Experts().describe(folder, str(out), task="a")
    Experts().describe(folder, str(out), external=True, name="general", overwrite=True)
    (spec,) = read_manifest(out)
    assert spec.role == "external" and spec.name == "general" and f"--external {out}" in capsys.readouterr().out


@pytest.mark.parametrize("given", [{}, {"task": "a", "external": True}])
def test_it_must_be_said_whose_expert_it_is(given, nnunet_folder, tmp_path):
    folder = str(nnunet_folder())
    with pytest.raises(ConfigError, match="whose expert is it"):
        Experts().describe(folder, str(tmp_path / "a.json"), **given)
    with pytest.raises(AmalgamationError, match="is a JSON file"):
        Experts().describe(folder, str(tmp_path / "a.yaml"), task="a")
