"""What requests to the label server may hold, without a server: each kind of value, and everything else is refused."""

import tempfile
from pathlib import Path

import pytest

from common.errors import is_hidden
from tools.label import requests
from tools.label.requests import (
    Offer,
    RequestError,
    check_name,
    check_place,
    check_study,
    checked_infer,
    checked_train,
    is_inert,
)

RUN = "$__import__('os').system('touch /tmp/PWN')"
INFER = Offer(
    {"device": ["cpu"], "model_filename": ["model.pt"], "overlap": 0.5, "modality": ["CT", "T2 MR"], "clean": True,
     "steps": 4, "words": ""},
    ["background", "liver", "Left Kidney", "overlap"], ["a_segmentation", "b_deepedit"],
)  # fmt: skip
TRAIN = Offer(
    {"device": ["cpu"], "pretrained": True, "max_epochs": 50, "val_split": 0.2, "multi_gpu": True, "gpus": "all",
     "tracking": ["None", "mlflow"], "tracking_uri": "", "tracking_experiment_name": "", "run_id": "",
     "model_filename": ["model.pt"]},
    ["liver"], ["a_segmentation"],
)  # fmt: skip
SLICER = {"result_extension": ".nrrd", "result_dtype": "uint8", "client_id": "user-xyz"}
OHIF = {"result_extension": ".nrrd", "result_dtype": "uint8", "result_compress": False, "restore_label_idx": False}
HOSTILE = [RUN, "@model", "%x.json", "a#b", "a::b", "../x", "a\\b", "a\x00b", "a\u202eb", "x" * 200, {"_target_": "os"},
           ["a"], [RUN], {"a": RUN}, None, 1e999, float("nan"), object()]  # fmt: skip


@pytest.mark.parametrize(
    "request_",
    [
        {"model": "a_segmentation", "image": "ras", "device": "cpu", "model_filename": "model.pt", **SLICER},
        {"modality": "T2 MR", "overlap": 0.25, "clean": False, **OHIF},
        {"modality": ["CT", "T2 MR"], "device": ["cpu"], "words": ""},
        {"label": "liver", "foreground": [[1, 2, 3]], "background": [], "roi": [1, 2, 3, 4, 5, 6], "slice": None},
        {"liver": [[1, 2.5, 3]], "left kidney": [], "background": [[0, 0, 0]], "reset_state": True},
        {"label_info": [{"name": "liver", "color": "#ff0000", "description": {"a": [1, None]}}], "label": None},
        {"device": "cuda:1", "multi_gpu": True, "gpus": "0,1", "logging": "WARNING", "save_label": True,
         "label_tag": "original", "max_workers": 1, "max_batch_size": 0, "images": "all"},
    ],
)  # fmt: skip
def test_what_viewers_send_passes(request_):
    assert checked_infer(request_, INFER) == request_


def test_numbers_and_switches_that_a_browser_sent_as_text():
    found = checked_infer({"overlap": "0.25", "steps": "7", "clean": "true"}, INFER)
    assert found == {"overlap": 0.25, "steps": 7, "clean": True} and type(found["steps"]) is int


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize(
    "key",
    ["overlap", "modality", "device", "model_filename", "clean", "steps", "result_extension", "result_dtype", "liver",
     "foreground", "roi", "result_compress", "logging", "timeout", "gpus", "max_workers", "save_label"],
)  # fmt: skip
def test_hostile_values_of_every_key_are_refused(key, value):
    with pytest.raises(RequestError) as caught:
        checked_infer({key: value}, INFER)
    assert caught.value.key == key and "expected:" in str(caught.value) and "\x00" not in str(caught.value)


@pytest.mark.parametrize("value", [v for v in HOSTILE if v is not None])
@pytest.mark.parametrize("key", ["label", "label_tag", "words"])
def test_hostile_texts_are_refused(key, value):
    with pytest.raises(RequestError):
        checked_infer({key: value}, INFER)


def test_who_asks_may_be_an_address_of_mail():
    assert checked_infer({"client_id": "a@b.org"}, INFER) == {"client_id": "a@b.org"}
    for value in (RUN, "@model", "a\x00", "a#b", ["a"], {"a": 1}, 3):
        with pytest.raises(RequestError):
            checked_infer({"client_id": value}, INFER)


@pytest.mark.parametrize("entry", [RUN, "@a", "a\x00", "x" * 2000, float("nan"), [[[[[[1]]]]]], object()])
def test_hostile_segments_are_refused(entry):
    for info in ([{"name": entry}], [{"name": {"deep": [entry]}}], [entry], {"name": entry}):
        with pytest.raises(RequestError):
            checked_infer({"label_info": info}, INFER)


@pytest.mark.parametrize(
    ("key", "value"),
    [("overlap", 1.0), ("overlap", -0.1), ("overlap", True), ("overlap", "0.5)"), ("steps", 1.5), ("steps", "1.5"),
     ("steps", -1), ("timeout", 0), ("slice", "x"), ("roi", [1, float("inf")]), ("roi", [True]),
     ("foreground", [[1]]), ("foreground", [[1, 2, "3"]]), ("foreground", [[1, 2, 1e9]]), ("device", "cuda:999")],
)  # fmt: skip
def test_numbers_out_of_range_are_refused(key, value):
    with pytest.raises(RequestError, match="expected"):
        checked_infer({key: value}, INFER)


@pytest.mark.parametrize(
    "key",
    ["network_def", "bundle_root", "_meta_", "preprocessing", "model::path", "model#path", "a", "", "modalty",
     "prompts", "displayable_configs", "pred", "notes", "skip_writer", "roi_size", "use_click", "$x"],
)  # fmt: skip
def test_unknown_keys_are_refused_with_what_is_offered(key):
    for check, offer in ((checked_infer, INFER), (checked_train, TRAIN)):
        with pytest.raises(RequestError) as caught:
            check({key: 1}, offer)
        assert caught.value.key == key and "model_filename" in caught.value.expected


def test_a_training_as_viewers_ask_for_it():
    slicer = {k: v[0] if isinstance(v, list) else v for k, v in TRAIN.options.items()}
    for request in (slicer, dict(TRAIN.options), {**slicer, "max_epochs": 2, "val_split": -1, "run_id": "run"}):
        assert checked_train({"model": "a_segmentation", **request}, TRAIN)["device"] in ("cpu", ["cpu"])
    assert checked_train({"a_segmentation": {"max_epochs": "3"}}, TRAIN) == {"a_segmentation": {"max_epochs": 3}}


@pytest.mark.parametrize(
    ("key", "value"),
    [(k, v) for k in TRAIN.options if k != "tracking_experiment_name" for v in (RUN, "../x.pt", {"_target_": "os"})]
    + [("max_epochs", 0), ("max_epochs", 1.5), ("val_split", 1), ("tracking", "settings.json"), ("run_id", "evaluate"),
       ("tracking_uri", "http://elsewhere"), ("dataset", "torch.load"), ("tracking_experiment_name", RUN),
       ("train_batch_size", RUN), ("liver", []), ("bundle", {}), ("a_segmentation", {"max_epochs": RUN})],
)  # fmt: skip
def test_hostile_trainings_are_refused(key, value):
    with pytest.raises(RequestError):
        checked_train({key: value}, TRAIN)


@pytest.mark.parametrize("request_", [[], "x", None, 3])
def test_a_request_is_keys_and_values(request_):
    with pytest.raises(RequestError):
        checked_infer(request_, INFER)


def test_images_lie_among_the_studies_or_were_uploaded(tmp_path):
    studies, outside = tmp_path / "studies", tmp_path / "secret.nii.gz"
    (studies / "below").mkdir(parents=True)
    outside.write_text("x")
    (studies / "link.nii.gz").symlink_to(outside)
    for good in (studies / "a.nii.gz", studies / "below" / "b", Path(tempfile.gettempdir()) / "tmpab12cd_3.nii.gz"):
        assert check_place("image", str(good), [studies]) == str(good)
    bad = [outside, studies / ".." / "secret.nii.gz", studies / "link.nii.gz", "/etc/passwd", "../../etc/passwd", "",
           None, ["a"], f"{studies}/a\x00", Path(tempfile.gettempdir()) / "other.nii.gz", "~/x", RUN]  # fmt: skip
    for path in bad:
        with pytest.raises(RequestError):
            check_place("image", str(path) if isinstance(path, Path) else path, [studies])


def test_names_and_inert_texts():
    assert check_name("tag", "final") == "final" and check_name("tag", "", empty=True) == ""
    for name in ("", "..", " ", *[v for v in HOSTILE if isinstance(v, str)]):
        with pytest.raises(RequestError):
            check_name("tag", name)
    assert is_inert("/a b/$x.nii.gz") and not any(map(is_inert, ("$x", "@x", "%x", "/a#b", "x@::y", "x%::y")))


@pytest.mark.parametrize(("tag", "taught"), [("CT", ["CT"]), ("MR", []), ("MR", None), (None, ["CT"]), ("UNK", ["CT"])])
def test_studies_that_fit_or_of_which_nobody_knows(tag, taught):
    check_study(tag, taught)


def test_a_study_of_another_modality_is_refused():
    with pytest.raises(RequestError, match=r"(?s)MR.*CT"):
        check_study("MR", ["CT"])


BOTH = {"CT": ["CT"], "T2 MR": ["MR"], "scanner A": []}


@pytest.mark.parametrize("asked", ["CT", ["CT", "T2 MR", "scanner A"]])
def test_a_study_that_is_not_what_the_request_says_is_refused(asked):
    check_study("CT", ["CT", "MR"], asked, BOTH)
    with pytest.raises(RequestError, match=r"(?s)modality.*CT.*MR: T2 MR, scanner A"):
        check_study("MR", ["CT", "MR"], asked, BOTH)
    for free in ("scanner A", "unknown", None, []):
        check_study("MR", [], free, BOTH)
    check_study("UNK", ["CT", "MR"], asked, BOTH)
    check_study("MR", ["CT", "MR"], asked, None)


def test_the_server_hides_what_the_product_hides(tmp_path):
    """Two lists, since the server's file stands alone."""
    kinds = [c for c in map(chr, range(0x110000)) if not c.isalnum() or c in "\u115f\u1160\u3164\uffa0\u17b4"]
    assert [c for c in kinds if requests._hidden(c) != is_hidden(c)] == []
    assert sum(map(is_hidden, kinds)) > 4000
    joined = str(tmp_path / "\U0001f468\u200d\u2695\ufe0f.nii.gz")
    assert check_place("image", joined, [tmp_path]) == joined
    for wrong in ("a\u3164", "a\ufe0f"):
        with pytest.raises(RequestError):
            check_name("tag", wrong)
    with pytest.raises(RequestError):
        check_place("image", str(tmp_path / "a\u3164.nii.gz"), [tmp_path])


EDGES = [
    (checked_infer, INFER, "timeout", [1, 86_400], [0, 86_401, 0.5]),
    (checked_infer, INFER, "max_workers", [0, 256], [-1, 257, 0.5]),
    (checked_infer, INFER, "max_batch_size", [0, 10**9], [-1, 10**9 + 1]),
    (checked_infer, INFER, "overlap", [0, 0.99], [-0.01, 1.0]),
    (checked_infer, INFER, "steps", [0, 1_000_000], [-1, 1_000_001]),
    (checked_infer, INFER, "slice", [-1, 1_000_000, None], [-2, 1_000_001]),
    (checked_infer, INFER, "gpus", ["0", "10", ",".join("0" * 16)], ["100", ",".join("0" * 17), "", "0,"]),
    (checked_infer, INFER, "roi", [[], [1] * 12, [-9_999_999]], [[1] * 13, [1e7], [True]]),
    (checked_infer, INFER, "foreground", [[[1, 2]], [[1, 2, 3, 4]]], [[[1]], [[1] * 5], [[1, 2, True]], [1, 2]]),
    (checked_train, TRAIN, "max_epochs", [1, 100_000], [0, 100_001]),
    (checked_train, TRAIN, "val_split", [-1, 0.99], [-1.01, 1]),
    (checked_train, TRAIN, "train_batch_size", [1, 4096], [0, 4097, 1.5]),
    (checked_train, TRAIN, "val_batch_size", [1, 4096], [0, 4097, 1.5]),
    (checked_train, TRAIN, "local_rank", [0, 1024], [-1, 1025, 0.5]),
]  # fmt: skip


@pytest.mark.parametrize(("check", "offer", "key", "good", "bad"), EDGES, ids=[e[2] for e in EDGES])
def test_a_range_has_two_ends(check, offer, key, good, bad):
    for value in good:
        assert check({key: value}, offer) == {key: value}
    for value in bad:
        with pytest.raises(RequestError):
            check({key: value}, offer)


def test_what_a_viewer_tells_of_itself_is_no_longer_than_a_page():
    deep = [[[["x"]]]]
    for good in ({"label_info": [{"a": "x" * 1000, "b": {"c": [1e299]}}]}, {"label_info": [{"a": deep}]},
                 {"label_info": [{}] * 2}, {"client_id": "a" * 1000}, {"label_info": [{"color": "#abc"}]}):  # fmt: skip
        assert checked_infer(good, INFER) == good
    for bad in ({"label_info": [{"a": "x" * 1001}]}, {"label_info": [{"a": 1e300}]}, {"label_info": [{"a": [deep]}]},
                {"client_id": "a" * 1001}, {"label_info": [{"color": "#ab"}]}, {"label_info": [5]},
                {"label_info": {"a": 1}}, {"label_info": [{"color": "#123456789"}]}):  # fmt: skip
        with pytest.raises(RequestError):
            checked_infer(bad, INFER)


def test_one_choice_of_a_list_is_a_choice():
    assert checked_infer({"modality": ["T2 MR"]}, INFER) == {"modality": ["T2 MR"]}
    for bad in (["T2 MR", "CT"], [], ["PET"], ["CT", "CT"], "PET", ""):
        with pytest.raises(RequestError):
            checked_infer({"modality": bad}, INFER)
    for text, value in (("-1", -1.0), ("0.5", 0.5), ("5e-1", 0.5), ("1e-2", 0.01)):
        assert checked_train({"val_split": text}, TRAIN) == {"val_split": value}
    for bad in ("1e-1", "7.5", "7.0", "seven", "１"):
        with pytest.raises(RequestError):
            checked_infer({"steps": bad}, INFER)
