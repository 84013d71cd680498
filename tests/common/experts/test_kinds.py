"""Descriptions of experts whose fields are of a wrong kind."""

import json

import pytest

from common.errors import ConfigError, ExpertError
from common.experts.sources import bundle_metadata
from common.experts.spec import ExpertSpec, read_manifest, write_manifest
from common.labels import LabelSpace
from tools.data import read_structures

EXTRA = {"divisor": [16, 16, 8], "normalise": {"scheme": "range", "low": -57, "high": 164}}
SPEC = ExpertSpec(
    "e", "torchscript", "/x/e.ts", LabelSpace(("liver",)), ("CT",), task="ct", spacing=(1, 2.5, 3), extra=EXTRA
)
PROFILE = {"program": "p", "version": "2", "orientation": "LPS", "spacing": [1.5, 1.5, 3.0]}
WRONG = {
    "name": (None, 5, ["a"], ""),
    "kind": ([], 5, "x"),
    "path": ("a\0b", "", 5, None),
    "labels": (None, [], "liver", {"names": "liver"}, {"names": ["a"], "exclusive": "false"}),
    "channels": ("CT", None, 5, [5], [None], {"CT": 1}),
    "role": (5, "x"),
    "task": (5, None, ["a"]),
    "spacing": ([1], 0, "123", [1, 1, 0], [1, 1, -1], [1, 1, "1"], [True, 1, 1], [1, 1, 10**400], {"x": 1}, []),
    "orientation": ("$x", "RRR", 5, "RA", "ras", "RLS", ["R", "A", "S"], ""),
    "features": (5, [], "a\0"),
    "configuration": (5, {}),
    "fold": (-1, 1.5, None, True, "../x", "", [], [0, 0], [0, "0"], [0, [1]], [-1], [0, "../x"], {"0": 1}),
    "renamed": (None, [], 5, {"a": 5}, {"a": "spleen"}, {"a": "liver", "b": "liver"}),
    "profile": ({}, [], 5, "totalsegmentator", {"program": "p", "version": "1", "orientation": "RAS"}),
    "checkpoint": (5, [], "../x.pt"),
    "sha256": (5, None, []),
    "trusted": (5, None),
    "extra": (
        [],
        None,
        5,
        {"normalise": {"scheme": "range", "low": 9, "high": 5}},
        *({"normalise": {"scheme": s, **n}} for s in ("range", "ct") for n in ({"low": 5}, {"high": -10}, {"low": 1})),
        *({"divisor": d} for d in ("x", 0, [1, 2], -1, 1.5, None, True, [1, 2, 0], 10**9)),
        *({"normalise": n} for n in ("x", [], None, {}, {"scheme": 5}, {"scheme": "ct", "low": "a"})),
        {"normalise": {"scheme": "range", "out": [1]}},
        {"normalise": {"scheme": "zscore", "masked": 1}},
    ),
    "unknown": (1,),
}


@pytest.mark.parametrize(("field", "value"), [(k, v) for k, values in WRONG.items() for v in values])
def test_a_wrong_field_is_refused(field, value, tmp_path):
    file = tmp_path / "expert.json"
    file.write_text(json.dumps({**SPEC.to_dict(), field: value}))
    with pytest.raises(ExpertError) as caught:
        read_manifest(file)
    assert str(caught.value.where).startswith(str(file))


def test_one_bound_of_a_range_is_held_against_the_other_s_default():
    for one in ({"scheme": "range", "high": 5}, {"scheme": "range", "low": -5}, {"scheme": "zscore", "low": 5}):
        assert ExpertSpec.from_dict({**SPEC.to_dict(), "extra": {"normalise": one}}).extra["normalise"] == one


@pytest.mark.parametrize("content", [[], 5, None, {"experts": 5}, ["a"], [None], {"experts": [None]}, {"experts": {}}])
def test_what_is_no_list_of_experts(content, tmp_path):
    file = tmp_path / "experts.json"
    file.write_text(json.dumps(content))
    with pytest.raises(ExpertError):
        read_manifest(file)
    for left_out in ("name", "labels"):
        with pytest.raises(ExpertError, match=f"missing: {left_out}"):
            ExpertSpec.from_dict({k: v for k, v in SPEC.to_dict().items() if k != left_out})


def test_a_right_one_comes_back(tmp_path):
    whole = {"fold": [0, 2, "all"], "renamed": {"Leber": "liver"}, "profile": PROFILE, "role": "external"}
    for more in ({"role": "external", "orientation": None}, whole):
        other = ExpertSpec("n", "nnunet", "/x", SPEC.labels, ("CT",), **more)
        assert read_manifest(write_manifest(tmp_path / "experts.json", [other])) == [other]
    assert other.folds == (0, 2, "all") and SPEC.folds == (0,)
    assert not {"renamed", "profile"} & set(SPEC.to_dict()), "older descriptions stay as they are"
    assert read_manifest(write_manifest(tmp_path / "experts.json", [SPEC])) == [SPEC]
    assert SPEC.spacing == (1.0, 2.5, 3.0)
    assert ExpertSpec("n", "nnunet", "/x", SPEC.labels, ("CT",), task="ct", fold="all").fold == "all"


def test_a_bundles_metadata_of_a_wrong_kind_tells_nothing(tmp_path):
    file = tmp_path / "metadata.json"

    def told(structures, channels=1):
        outputs = {"pred": {"channel_def": structures}}
        data = {"network_data_format": {"inputs": {"image": {"num_channels": channels}}, "outputs": outputs}}
        file.write_text(json.dumps(data))
        return bundle_metadata(file)

    assert told({"0": "background", "1": "liver"}) == (LabelSpace(("liver",)), ("channel 0",))
    for structures in ({"0": "tumour core", "1": "tumour"}, {"1": ["a"]}, {"1": None}, [], "liver"):
        assert told(structures) == (None, None)
    file.write_text("[" * 100_000)
    assert bundle_metadata(file) == (None, None)


def test_structures_are_given_once():
    assert read_structures("a=1,b=2") == {"a": 1, "b": 2}
    with pytest.raises(ConfigError, match="twice"):
        read_structures("a=1,a=2")
