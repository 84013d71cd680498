import pytest

from common.data.datasets.datalist import items
from common.data.datasets.part_labelled import part_labelled
from common.errors import ConfigError


def drawn(found):
    return {c["case"] for c in found if "label" in c}


def test_a_part_of_the_labels_of_each_task(phantom_dir):
    whole = items(phantom_dir, "training")
    free = items(phantom_dir, "unlabelled")
    found = part_labelled(phantom_dir)
    assert [c["case"] for c in found] == [c["case"] for c in (*whole, *free)]
    assert drawn(found) == {c["case"] for c in whole} and found[: len(whole)] == whole
    assert len(part_labelled(phantom_dir, unlabelled=False)) == len(whole)
    one, two = (part_labelled(phantom_dir, labels_used=n) for n in (1, 2))
    assert len(one) == len(found) and len(drawn(one)) == 3 and drawn(one) < drawn(two)
    assert {c["task"] for c in one if "label" in c} == {"phantom_ct", "phantom_mr", "phantom_lge"}
    assert not any(drawn(part_labelled(phantom_dir, labels_used=n)) for n in ("none", 0))
    assert drawn(part_labelled(phantom_dir, labels_used=99)) == drawn(found)
    assert any(drawn(part_labelled(phantom_dir, labels_used=1, seed=s)) != drawn(one) for s in range(1, 5))


@pytest.mark.parametrize("wrong", ["some", -1, 0.5, True])
def test_another_part_is_refused(phantom_dir, wrong):
    with pytest.raises(ConfigError, match="labels_used"):
        part_labelled(phantom_dir, labels_used=wrong)
