"""What will be taught is said before: who reads what, and what hardly a scan shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.data.datasets.datalist import Collection, read_collection
from common.errors import DataError, ExpertError
from tests.tools.amalgamate.made import expert, write_scans
from tests.tools.empty_dataset import empty_dataset
from tools.amalgamate.gather import gather
from tools.amalgamate.given import Folder
from tools.amalgamate.lessons import LABELS, check_taught, doubts, idle, lessons, lessons_table, unlearnt, unread

CT = expert("a", "liver", "femur")
BONES = expert("c", "femur", "rib")
MR = expert("b", "liver", "kidney", channels=("MR",))


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    scans = [Folder("ct", write_scans(tmp_path / "x", 6)), Folder("mr", write_scans(tmp_path / "y", 4))]
    return gather(scans, [], [CT, BONES, MR], tmp_path / "out")


def test_names_decide_who_reads_what(collection: Collection) -> None:
    ct, mr = collection.datasets
    assert unread(CT, ct) == "" and "it reads CT, they are MR" in unread(CT, mr)
    found = lessons([CT, MR], collection)
    assert len(found) == 8 and {(o.expert, o.task) for o in found if not o.why} == {("a", "ct"), ("b", "mr")}
    scans = {o.task: o.scans for o in found if not o.why}
    assert scans == {t.name: len(t.cases("unlabelled")) for t in collection.datasets}
    check_taught(found, collection)


def test_what_no_scan_shows_is_said_before(collection: Collection) -> None:
    many = len(collection.dataset("ct").cases("unlabelled"))
    seen = {"a": {"ct": {"liver": many}}, "c": {"ct": {"rib": 1}}, "b": {"mr": {"liver": 2, "kidney": 3}}}
    said = unlearnt(lessons([CT, BONES, MR], collection, seen))
    assert said == [
        f"femur: in 0 of {many} scans, the student will not learn it",
        f"rib: in 1 of {many} scans, the student will hardly learn it",
    ]
    table = lessons_table(lessons([CT, BONES, MR], collection, seen))
    assert [str(c.header) for c in table.columns] == ["structure", "a\non ct", "c\non ct", "b\non mr"]
    assert list(table.columns[1].cells) == [f"{many} of {many}", f"0 of {many}", "", ""]


def test_an_expert_without_scans_and_scans_without_expert_are_refused(collection: Collection) -> None:
    with pytest.raises(ExpertError, match="reads none of the scans"):
        check_taught(lessons([CT, MR, expert("d", "liver", channels=("PET",))], collection), collection)
    with pytest.raises(DataError, match="nobody teaches about these scans"):
        check_taught(lessons([CT], collection), collection)


def test_who_knows_nothing_that_others_do_not_is_named(collection: Collection) -> None:
    assert idle([CT, BONES, MR], collection) == []
    said, other = idle([CT, BONES, MR, expert("d", "rib", "femur")], collection)
    assert said.startswith("c knows nothing that others do not know of the same scans (a, d)")
    assert other.startswith("d ") and "(a, c)" in other
    parts = idle([CT, BONES, MR, expert("d", "rib", "liver")], collection)
    assert [line.split()[0] for line in parts] == ["a", "c", "d"] and "(a, c)" in parts[2]
    assert idle([CT, expert("e", "liver", "femur", channels=("MR",))], collection) == [], "of other scans"


def test_labels_teach_without_an_expert(tmp_path: Path) -> None:
    empty_dataset(tmp_path / "one", {"liver": 1})
    data = read_collection(tmp_path / "one")
    found = lessons([expert("b", "kidney", channels=("MR",))], data, {LABELS: {"one": {"liver": 1}}})
    told = [(o.expert, o.structure, o.scans, o.seen) for o in found]
    assert told == [(LABELS, "liver", 1, 1), ("b", "kidney", 0, None)]
    (line,) = unlearnt(found)
    assert line.startswith("kidney: nobody who knows it teaches on any of the scans")
    with pytest.raises(ExpertError, match="reads none of the scans"):
        check_taught(found, data)
    check_taught(found[:1], data)
    assert [(o.scans, o.why) for o in lessons([], data, labels_used="3")] == [(1, "")]
    (unused,) = lessons([], data, {}, labels_used="none")
    assert unused.scans == 0 and unlearnt([unused])[0].startswith("liver: nobody who knows it")
    with pytest.raises(DataError, match="nobody teaches about these scans"):
        check_taught([unused], data)


def test_one_structure_in_two_spellings_is_doubted(collection: Collection) -> None:
    assert doubts([CT, BONES], collection) == []
    (one,) = doubts([CT, expert("e", "Liver")], collection)
    assert one.got == "'liver' and 'Liver' are taken for two structures"
    assert one.hint.startswith("if they are one, call it otherwise in e")
    assert one.hint.endswith("experts describe nowhere expert.json --external True --map Liver=liver")
    (general,) = doubts([expert("f", "cyst"), expert("g", "cyst")], collection)
    assert general.hint.startswith("if they are not one, ") and "--map 'cyst=<its name>'" in general.hint
    (other,) = doubts([expert("f", "label 1"), expert("g", "label 1")], collection)
    assert other.severity == "error"
