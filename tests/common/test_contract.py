"""Data are compared with what a model was taught on: by name, in order, with synonyms; old cards say less."""

from typing import Any

import pytest

from common.card import ModelCard, save_weights
from common.contract import OVERRIDE, Contract, contract_of
from common.errors import DataError, WeightError
from common.intensity_range import Range
from common.labels import LabelSpace

STATS = {"lows": [-1024, -1000], "highs": [150, 300]}


def entry(*channels: str, stats: Any = STATS) -> dict[str, Any]:
    return {"kind": "", "channels": list(channels), "intensities": [stats] * len(channels)}


def contract(**modalities: Any) -> Contract:
    card = ModelCard(LabelSpace(("liver", "gallbladder")), ("x",), extra={"contract": {
        "modalities": {k.replace("_", " "): v for k, v in modalities.items()},
        "taught": {"CT": ["liver"], "T2 MR": ["liver", "gallbladder"]}}})  # fmt: skip
    return Contract.of_card(ModelCard.from_json(card.to_json()), "model.pt")


PAIR = contract(brain=entry("T1", "FLAIR"))
BOTH = contract(CT=entry("CT"), T2_MR=entry("T2 MR"))


@pytest.mark.parametrize(("given", "order"), [
    (("T1", "FLAIR"), (0, 1)), (("FLAIR", "T1"), (1, 0)), (("t2-flair", "T1w"), (1, 0)), (("x", "y"), (0, 1)),
    (None, (0, 1)), (("MR", "FLAIR"), (0, 1)),
])  # fmt: skip
def test_channels_are_taken_by_name(given: Any, order: tuple[int, ...]) -> None:
    found = PAIR.fit(given, "brain")
    open_ = given in (None, ("x", "y"), ("MR", "FLAIR"))
    assert found.order == order and bool(found.notes) == (order == (1, 0) or open_)


@pytest.mark.parametrize(
    "given", [("T2", "FLAIR"), ("T1ce", "FLAIR"), ("CT", "FLAIR"), ("FLAIR", "T2"), ("FLAIR", "b")]
)
def test_other_channels_are_refused(given: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="not what the model was trained on") as error:
        PAIR.fit(given, where="case 3")
    assert OVERRIDE in str(error.value) and "T1, FLAIR" in str(error.value) and "case 3" in str(error.value)
    ignored = PAIR.fit(given, ignore=True)
    assert ignored.order == (0, 1) and "in the place of" in ignored.notes[0]


@pytest.mark.parametrize(("own", "given", "order"), [
    (("CT arterial", "CT portal"), ("portal CT", "arterial CT"), (1, 0)),
    (("CT arterial", "CT portal"), ("CT late", "CT portal"), None),
    (("CT arterial", "CT portal"), ("CT x", "CT y"), None), (("CT arterial", "CT portal"), ("CT 0", "CT 1"), (0, 1)),
    (("CT arterial", "CT portal"), ("CT-art", "pv CT"), (0, 1)),
    (("NCCT", "CTA"), ("contrast CT", "native CT"), (1, 0)),
    (("b50", "b1000"), ("DWI b=1000", "DWI b 50"), (1, 0)), (("b50", "b1000"), ("DWI b800", "DWI b400"), None),
    (("DCE pre", "DCE post"), ("post-contrast DCE", "DCE"), (1, 0)), (("T1", "T1+"), ("T1+", "T1"), (1, 0)),
    (("T1-", "T1+"), ("T1ce", "T1w"), (1, 0)), (("T1 (-)", "T1 (+)"), ("T1 +", "T1 -"), (1, 0)),
    (("t1n", "t1c", "t2w", "t2f"), ("FLAIR", "T1w", "t1gd", "T2w"), (1, 2, 3, 0)),
    (("CT", "PET"), ("SUV", "CT"), (1, 0)), (("CT | T1", "CT"), ("CT", "T1"), (1, 0)),
    (("CT", "CT"), ("CT", "CT"), (0, 1)), (("image", "image 2"), ("a", "b"), (0, 1)),
])  # fmt: skip
def test_several_channels_of_one_kind(own: Any, given: Any, order: Any) -> None:
    made = contract(m=entry(*own))
    if order is not None:
        assert made.fit(given).order == order
        return
    with pytest.raises(DataError, match="not what the model was trained on"):
        made.fit(given)


def test_unknown_names_in_another_order() -> None:
    made = contract(m=entry("a", "b"))
    assert made.fit(("b", "a")).order == (1, 0) and made.fit(("B", "A")).order == (1, 0)
    with pytest.raises(DataError):
        made.fit(("b", "c"))


@pytest.mark.parametrize("ignore", [False, True])
def test_a_missing_channel_is_an_error_of_ours(ignore: bool) -> None:
    with pytest.raises(DataError, match="missing channel FLAIR"):
        PAIR.fit(("T1",), ignore=ignore)
    with pytest.raises(DataError, match="too many"):
        PAIR.fit(("T1", "FLAIR", "T2"), ignore=ignore)


@pytest.mark.parametrize(("channels", "modality", "names"), [
    (("CT",), "", ("CT",)), (("CTA",), "CTA", ("CT",)), (("T2w",), "", ("T2 MR",)), (None, "MR", ("T2 MR",)),
    (None, "CT", ("CT",)), (("image",), "", ("CT", "T2 MR")), (("image",), "CT", ("CT",)),
    (("image",), "CT or MR", ("CT", "T2 MR")), (None, "PET-CT", ("CT",)), (None, "CT, MR", ("CT", "T2 MR")),
    (None, "", ("CT", "T2 MR")),
])  # fmt: skip
def test_which_modality_it_is(channels: Any, modality: str, names: tuple[str, ...]) -> None:
    assert BOTH.fit(channels, modality).modalities == names


@pytest.mark.parametrize(("channels", "modality"), [(("T1",), ""), (None, "US"), (None, "PT"), (("image",), "T1")])
def test_other_modalities_are_refused(channels: Any, modality: str) -> None:
    with pytest.raises(DataError, match="not what the model was trained on"):
        BOTH.fit(channels, modality)


def test_what_was_taught() -> None:
    assert BOTH.taught_on(["CT"]) == {"liver"} and BOTH.taught_on(["CTA"]) == {"liver"}
    assert BOTH.taught_on(["MR"]) == {"liver", "gallbladder"} == BOTH.taught_on(["CT", "T2 MR"])
    assert BOTH.taught_on(["US"]) is None and BOTH.taught_on([]) is None and Contract().taught_on(["CT"]) is None


def test_intensities_that_the_model_never_saw() -> None:
    ct, mr = Range(-1010, 200, -1024, 900), Range(0, 900, 0, 1500)
    made = contract(CT=entry("CT"), MR=entry("MR", stats={"lows": [0, 0], "highs": [700, 1200]}))
    assert made.odd([ct]) is None and made.odd([mr], ["MR"]) is None and made.odd([mr]) is None
    assert "offset" in str(made.odd([mr], ["CT"])) and "rescaled" in str(made.odd([Range(0, 1, 0, 1)], ["CT"]))
    assert "CT: " in str(made.odd([Range(0, 1, 0, 1)])) and "MR: " in str(made.odd([Range(0, 1, 0, 1)]))
    assert Contract().odd([ct]) is None and BOTH.odd([ct, ct]) is None


def test_ct1_beside_other_weightings_is_in_no_hu() -> None:
    mr = Range(0, 900, 0, 1500)
    assert contract(brain=entry("T1", "CT1", stats=None)).odd([mr, mr]) is None
    assert "offset" in str(contract(both=entry("PET", "CT1", stats=None)).odd([mr, mr]))


def test_the_tracer_that_only_a_modality_names_is_told() -> None:
    model = Contract(("CT", "PET"), {"FDG PET-CT": {"channels": ["CT", "PET"]}})
    (note,) = model.fit(("CT", "PET"), "PET-CT").notes
    assert "FDG" in note and model.fit(("CT", "PET"), "FDG-PET/CT").notes == ()
    with pytest.raises(DataError, match="not what the model was trained on"):
        model.fit(("CT", "PET"), "PSMA PET-CT")


def test_a_ct_is_in_hu_whatever_the_card_says_of_it() -> None:
    for made in (contract(CT=entry("CT", stats=None)), contract(CT={"channels": ["NCCT"]}), Contract(("CT",)),
                 Contract(("CT",), {"CT": {}})):  # fmt: skip
        assert "rescaled" in str(made.odd([Range(0, 1, 0, 1)])) and made.odd([Range(-1010, 200, -1024, 900)]) is None
        assert "rescaled" in str(made.odd([Range(-2.2, 2.8, -2.4, 9.1)]))  # z-scores
    taught = contract(CT=entry("CT", stats={"lows": [0, 0], "highs": [1, 1]}))
    assert taught.odd([Range(0, 1, 0, 1)]) is None and Contract(("MR",)).odd([Range(0, 1, 0, 1)]) is None


def test_cards_of_earlier_versions(tmp_path: Any, caplog: Any) -> None:
    card = ModelCard(LabelSpace(("a",)), ("CT | T2 MR",), extra={"settings": {"modalities": ["CT", "T2 MR"]}})
    old = contract_of(save_weights(tmp_path / "model.pt", {"w": __import__("torch").zeros(1)}, card))
    assert contract_of(tmp_path / "model.pt") is old
    assert not old.complete and caplog.text.count("before cards held") == 1
    assert old.fit(("CTA",)).modalities == ("CT",) or old.fit(("CTA",)).order == (0,)
    assert old.fit(("image",)).order == (0,) and old.taught_on(["CT"]) is None and old.odd([Range(0, 1, 0, 1)]) is None
    with pytest.raises(DataError, match="T1"):
        old.fit(("T1",))
    nothing = contract_of(tmp_path / "none.pt")
    assert nothing.fit(("T1", "T2"), "US").order == (0, 1) and nothing.fit(None).order == ()
    (tmp_path / "broken.pt").write_bytes(b"no weights")
    assert contract_of(tmp_path / "broken.pt").channels == ()


@pytest.mark.parametrize(("content", "key"), [
    ({"modalities": {"CT": None}}, "modalities.CT"), ({"modalities": {"CT": "CT"}}, "modalities.CT"), (5, "contract"),
    ({"modalities": ["CT"]}, "contract.modalities"), ({"modalities": {"CT": {"channels": None}}}, "CT.channels"),
    ({"modalities": {"CT": {"channels": "CT"}}}, "CT.channels"), ({"modalities": {}, "taught": ["a"]}, "taught"),
    ({"modalities": {"CT": {"channels": ["CT", 5]}}}, "CT.channels"), ({"modalities": {}, "taught": None}, "taught"),
    ({"modalities": {}, "taught": "liver"}, "taught"), ({"modalities": {}, "taught": {"CT": "liver"}}, "taught.CT"),
    ({"modalities": {}, "taught": {"CT": None}}, "taught.CT"), ({"modalities": {}, "data": 5}, "contract.data"),
    ({"modalities": {}, "data": "CT"}, "contract.data"), ({"modalities": {}, "data": [5]}, "data[0]"),
    ({"modalities": {"CT": {"channels": ["CT"], "intensities": 5}}}, "CT.intensities"),
])  # fmt: skip
def test_damaged_cards_are_refused_by_file_and_key(content: Any, key: str) -> None:
    card = ModelCard(LabelSpace(("a",)), ("CT",), extra={"contract": content})
    with pytest.raises(WeightError, match="the card is damaged") as error:
        Contract.of_card(card, "model.pt")
    assert str(error.value.where).startswith("model.pt, ") and str(error.value.where).endswith(key)


@pytest.mark.parametrize("said", [5, "CT", [5]])
def test_damaged_settings_of_earlier_cards(said: Any) -> None:
    for key in ("modalities", "intensities"):
        card = ModelCard(LabelSpace(("a",)), ("CT",), extra={"settings": {key: said}})
        with pytest.raises(WeightError, match=key):
            Contract.of_card(card, "model.pt")


@pytest.mark.parametrize("name", ["ES", "OP", "GM"])
def test_a_data_sets_own_word_is_no_dicom_tag(name):
    """ACDC's end systole, the opposed phase and grey matter are called as tags for photographs are."""
    cine = Contract(("cine MR",), {"cine MR": {"kind": "MR", "channels": ["cine MR"]}})
    assert cine.fit(("cine MR",), name).order == (0,)
    with pytest.raises(DataError):
        cine.fit(None, tag=name)
    assert cine.fit(None, tag="MR").modalities == ("cine MR",)


def test_xa_is_cone_beam_ct_for_a_model_of_it() -> None:
    assert contract(CBCT=entry("CBCT")).fit(None, tag="XA").modalities == ("CBCT",)
    for other in (contract(CT=entry("CT")), BOTH):
        with pytest.raises(DataError, match="not what the model"):
            other.fit(None, tag="XA")
    assert contract(DSA=entry("DSA")).fit(None, tag="XA").modalities == ("DSA",)


def test_dicoms_tag_of_each_channel() -> None:
    model = contract(both=entry("CT", "PET"))
    straight, swapped = model.fit(("CT", "PET")), model.fit(("PET", "CT"))
    model.check_tags(("CT", "PT"), straight)
    model.check_tags(("PT", "CT"), swapped)
    model.check_tags(("", "PT"), straight)
    glio = contract(both=entry("T1", "CT1"))
    glio.check_tags(("MR", "MR"), glio.fit(("T1", "T1c")))
    contract(both=entry("image", "PET")).check_tags(("MR", "PT"), straight)
    for tags, fit in ((("PT", "CT"), straight), (("CT", "PT"), swapped), (("CT", "MR"), straight)):
        with pytest.raises(DataError, match="a channel is something else"):
            model.check_tags(tags, fit, where="d, case a")


@pytest.mark.parametrize(("own", "given", "words"), [
    ("PET", "FDG", "FDG"), ("FDG-PET", "SUV", "FDG"), ("CT arterial", "CT portal", "another phase"),
    ("NCCT", "CTA", "another phase"), ("DWI b800", "DWI b1000", "b-value"), ("CT", "CTA", "cta"),
    ("FDG", "FDG PET", ""),
    ("T2 axial", "T2 sagittal", "view"), ("XR AP", "XR lateral", "view"), ("T2", "T2 fat sat", "another"),
    ("CT", "CBCT", "another"), ("T1 FS", "T1 fatsat", ""), ("MR", "T1 FS", "t1"),
    ("CT portal", "contrast CT", "portal"), ("CT native | CT portal", "portal CT", ""),
])  # fmt: skip
def test_what_is_taken_for_the_same_and_may_differ_is_told(own: str, given: str, words: str) -> None:
    model = contract(**{own: entry(own)})
    for notes in (model.fit((given,), given).notes, Contract((own,), {own: {}}).fit(None, given).notes):
        assert len(notes) == bool(words) and all(words in note and given in note for note in notes)


def test_another_tracer_or_b_value_is_refused() -> None:
    for own, given in (("FDG", "PSMA PET"), ("DWI b50", "DWI b1000"), ("CT", "iodine CT"), ("FLAIR", "T1 FLAIR")):
        with pytest.raises(DataError, match="not what the model"):
            contract(a=entry(own)).fit((given,))


def test_pictures_are_no_volumes() -> None:
    volumes, pictures = (contract(a={**entry("CT"), "dim": dim}) for dim in (3, 2))
    volumes.check_dim(3)
    pictures.check_dim(2)
    for unknown in (Contract(), contract(a=entry("CT")), contract(a={**entry("CT"), "dim": 3}, b=entry("MR"))):
        unknown.check_dim(2)
    with pytest.raises(DataError, match="learned from volumes") as caught:
        volumes.check_dim(2, where="d")
    assert caught.value.got == "pictures" and caught.value.where == "d"
    for number in (2, 2.0):  # JSON has no whole numbers of its own
        with pytest.raises(DataError, match="learned from pictures"):
            contract(a={**entry("CT"), "dim": number}).check_dim(3)
    for wrong in ("3", 4, None, True):
        with pytest.raises(WeightError) as damaged:
            contract(a={**entry("CT"), "dim": wrong})
        assert str(damaged.value.where).endswith("contract.modalities.a.dim")


PHASES = {"CT arterial": ("liver",), "CT portal": ("liver", "tumor")}


def several(taught: Any, **stats: Any) -> Contract:
    entries = {n: entry(n, stats=stats.get(n.split()[0], STATS)) for n in taught}
    return Contract(("x",), entries, {n: t for n, t in taught.items() if t is not None})


@pytest.mark.parametrize(("name", "modalities"), [
    ("arterial CT", ("CT arterial",)), ("CT-art", ("CT arterial",)), ("CT arterial phase", ("CT arterial",)),
    ("late arterial CT", ("CT arterial",)), ("PVP CT", ("CT portal",)), ("CT", tuple(PHASES)), ("NCCT", tuple(PHASES)),
])  # fmt: skip
def test_the_nearest_of_several_modalities_of_one_meaning(name: str, modalities: tuple[str, ...]) -> None:
    model = several(PHASES)
    found = model.fit((name,), name)
    assert found.modalities == modalities == model.fit((name,), "abdomen").modalities
    assert model.taught_on([name]) == set().union(*(PHASES[m] for m in modalities))
    assert any("on CT portal only: tumor" in note for note in found.notes) == (len(modalities) > 1)


@pytest.mark.parametrize(("taught", "name"), [
    ({"T1 MR": ("a",), "T2 MR": ("a", "b")}, "MR"), ({"FDG PET": ("a",), "PSMA PET": ("b",)}, "PET"),
    ({"DWI b50": ("a",), "DWI b1000": ("b",)}, "DWI"), ({"CT": ("a",), "T2 MR": ("b",)}, "CT or MR"),
])  # fmt: skip
def test_what_only_some_of_the_modalities_can_have_is_told(taught: Any, name: str) -> None:
    assert any("only: b" in n for n in several(taught).fit((name,), name).notes)
    equal = several(dict.fromkeys(taught, ("a",)))
    assert not any("only: " in n for n in equal.fit((name,), name).notes) and equal.unsettled(list(taught)) == []


def test_a_modality_without_annotations_was_taught_nothing() -> None:
    grown = several({"T2 MR": ("liver",), "CT": None})
    assert grown.taught_on(["CT"]) == frozenset() == grown.taught_on(["CTA"]) and grown.taught_on(["MR"]) == {"liver"}
    assert grown.taught_on(["US"]) is None and several({"CT": None}).taught_on(["CT"]) is None
    assert Contract(("CT",), {"CT": {}}, {"T2 MR": ("liver",)}).taught_on(["CT"]) is None  # an earlier card


@pytest.mark.parametrize("tag", ["ST", "MA", "TG", "BMD", "RTIMAGE"])
def test_rare_tags_of_dicom_are_no_ct(tag: str) -> None:
    with pytest.raises(DataError):
        BOTH.fit(None, tag=tag) if tag == "ST" else several({"CT": ("a",)}).fit(None, tag=tag)


@pytest.mark.parametrize("tag", ["OT", "SC", "RTDOSE", "SEG"])
def test_tags_that_tell_nothing_are_told(tag: str) -> None:
    (note,) = several({"CT": ("a",)}).fit(None, tag=tag).notes
    assert tag in note and several({"CT": ("a",)}).fit(None, tag="CT").notes == ()


def test_units_are_compared_where_numbers_have_one() -> None:
    pet = contract(PET=entry("SUV", stats={"lows": [0, 0], "highs": [5, 12]}))
    for low, high in ((0, 90), (0, 40), (-6, 2.4), (0, 1)):
        assert "PET: " in str(pet.odd([Range(low, high, low, high)]))
    assert pet.odd([Range(0, 20, 0, 60)]) is None and pet.odd([Range(-0.1, 3, -0.1, 9)]) is None


def test_maps_have_units_and_no_mr_is_in_hu() -> None:
    for name in ("PDFF", "T2* map", "T1rho map", "CT iodine", "CT dose"):
        made = contract(m=entry(name, stats={"lows": [0, 0], "highs": [40, 90]}))
        assert "another unit" in str(made.odd([Range(0, 700, 0, 900)])) and made.odd([Range(0, 60, 0, 90)]) is None
    mr = contract(MR=entry("T1", stats={"lows": [0, 0], "highs": [403, 2432]}))
    assert "below 0" in str(mr.odd([Range(-1000, 900, -1024, 2000)])) and mr.odd([Range(-60, 900, -90, 1500)]) is None
    signed = contract(MR=entry("T1", stats={"lows": [-900, -700], "highs": [403, 2432]}))
    assert signed.odd([Range(-1000, 900, -1024, 2000)]) is None


T1 = {"channels": ["T1"], "structures": ["liver", "spleen"]}
T2 = {"channels": ["T2"], "structures": ["prostate"]}


def test_what_was_taught_on_other_channels_of_the_modality_is_told() -> None:
    taught = {"MR": ("liver", "spleen", "prostate")}
    model = Contract(("T1 | T2",), {"MR": {"channels": ["T1 | T2"], "taught": [T1, T2]}}, taught)
    for channel, untaught in (("T1", "prostate"), ("T2w", "liver, spleen")):
        for modality in ("MR", channel):
            assert any(f"nobody taught {untaught} on {channel}" in n for n in model.fit((channel,), modality).notes)
    assert any("liver, prostate, spleen" in n for n in model.fit(None, "MR").notes) and not model.fit(None).notes
    alike = Contract(
        ("T1 | T2",), {"MR": {"channels": ["T1 | T2"], "taught": [T1, {**T1, "channels": ["T2"]}]}}, taught
    )
    assert alike.fit(("T1",), "MR").notes == ()
    old = Contract(("T1 | T2",), {"MR": {"channels": ["T1 | T2"]}}, taught)
    assert any("does not say what on which" in n for n in old.fit(("T1",), "MR").notes)
    for channels in ("T1 | T1w", "CT native | CT portal"):
        one = Contract((channels,), {"MR": {"channels": [channels]}}, taught)
        assert not any("what on which" in n for n in one.fit((channels[:9].split(" |")[0],)).notes)


def test_what_synonyms_were_taught_is_united() -> None:
    model = Contract(("T2 | T2w",), {n: {"channels": [n]} for n in ("T2", "T2w", "T2 FS")},
                     {"T2": ("prostate",), "T2w": ("lesion",), "T2 FS": ("cyst",)})  # fmt: skip
    for name in ("T2", "T2w", "T2-weighted", "T2 MR"):
        assert model.taught_on([name]) == {"prostate", "lesion"} and model.taught_on(["T2 FS"]) == {"cyst"}


@pytest.mark.parametrize("taught", [5, [5], [{}], [{"channels": "T1", "structures": []}], [{"channels": ["T1"]}]])
def test_what_a_damaged_card_says_of_channels_is_refused(taught: Any) -> None:
    with pytest.raises(WeightError) as damaged:
        contract(MR={"channels": ["T1"], "taught": taught})
    assert "contract.modalities.MR.taught" in str(damaged.value.where)
