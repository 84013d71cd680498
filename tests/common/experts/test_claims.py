"""A description that contradicts the expert's own files is refused, by what the files say."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from common.errors import ExpertError
from common.experts.claims import check_claims
from common.experts.spec import ExpertSpec
from common.labels import LabelSpace

LABELS = LabelSpace(("liver", "spleen"))
SPEC = ExpertSpec("e", "bundle", "place", LABELS, ("CT", "PET"), task="t")


def files(*channels, labels=LABELS):
    return SimpleNamespace(channels=channels or None, labels=labels)


@pytest.mark.parametrize("channels", [("CT", "PET"), ("NCCT", "SUV"), ("image", "channel 1"), ()])
def test_what_agrees(channels):
    check_claims(SPEC, files(*channels))


@pytest.mark.parametrize("channels", [("PET", "CT"), ("CT",), ("CT", "T2 MR"), ("CT", "PET", "PET"), ("T1", "PET"),
                                      ("T1", "image"), ("image", "CT"), ("image", "T1")])  # fmt: skip
def test_other_channels(channels):
    with pytest.raises(ExpertError, match="different image channels") as caught:
        check_claims(SPEC, files(*channels), hint="so")
    assert caught.value.got == f"files: {', '.join(channels)}" and caught.value.hint == "so"


def test_an_nnunet_s_channels_are_compared_word_by_word():
    check_claims(replace(SPEC, kind="nnunet"), files("ct", "pet"))
    with pytest.raises(ExpertError, match="different image channels"):
        check_claims(replace(SPEC, kind="nnunet"), files("NCCT", "PET"))


def test_other_structures_and_values():
    for other in (LabelSpace(("spleen", "liver")), LabelSpace(("liver",)), LabelSpace(("Liver", "spleen"))):
        with pytest.raises(ExpertError, match="different structures"):
            check_claims(SPEC, files("CT", "PET", labels=other))
    with pytest.raises(ExpertError, match="different values") as caught:
        check_claims(SPEC, files("CT", "PET", labels=LabelSpace(("liver", "spleen"), (1, 3))))
    assert caught.value.got == "files: liver=1, spleen=3"
    check_claims(SPEC, files("CT", "PET", labels=None))
