"""What a specification says about a network that does not say it itself."""

from __future__ import annotations

from typing import Any

import pytest

from common.errors import ExpertError
from common.experts.frame import Frame
from common.experts.normalise import Normalise
from common.experts.sources import _frame_of_spec, _normalise_of_spec
from common.experts.spec import ExpertSpec
from common.labels import LabelSpace


def spec(**given: Any) -> ExpertSpec:
    plain = {"name": "one", "kind": "torchscript", "path": "x", "labels": LabelSpace(("a",)), "channels": ("CT",)}
    return ExpertSpec(**{**plain, "role": "external", "features": "x", **given})


def test_the_frame_keeps_every_axis_in_its_place() -> None:
    told = spec(orientation="LPS", spacing=(1.0, 2.0, 3.0), extra={"divisor": [4, 8, 16]})
    assert _frame_of_spec(told) == Frame("LPS", (0, 1, 2), (1.0, 2.0, 3.0), (4, 8, 16))
    assert _frame_of_spec(spec(extra={"divisor": 2})).divisor == (2, 2, 2)
    untold = _frame_of_spec(spec())
    assert untold.divisor == (32, 32, 32), "what most networks halve five times"
    assert untold.spacing == (None, None, None)


def test_one_normalisation_is_for_all_channels_and_several_are_for_each() -> None:
    assert _normalise_of_spec(spec(), 2) == (Normalise("zscore"),) * 2
    window = {"scheme": "range", "low": -160, "high": 240, "out": [-1, 1]}
    try:
        found = _normalise_of_spec(spec(extra={"normalise": [window, {"scheme": "none"}]}), 2)
    except ExpertError:
        pytest.fail("both are schemes")
    assert [n.scheme for n in found] == ["range", "none"] and found[0].out == (-1, 1) and found[1].out == (0, 1)
    with pytest.raises(ExpertError, match="one normalisation per channel"):
        _normalise_of_spec(spec(extra={"normalise": [window]}), 2)
    with pytest.raises(ExpertError, match="cannot read the normalisation"):
        _normalise_of_spec(spec(extra={"normalise": {"scheme": "none", "colour": 1}}), 1)
