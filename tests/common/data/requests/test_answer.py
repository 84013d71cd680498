"""What goes to an annotation server beside the label map."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.data.requests.answer import AskedObjectd, DescribeAnswerd
from common.errors import LabelError

NAMES = ("liver", "left kidney")


def label_map(shape=(1, 4, 4, 4)):
    found = torch.zeros(shape)
    found.flatten()[:10] = 1
    found.flatten()[10:13] = 2
    return MetaTensor(found, affine=np.diag([2.0, 5.0, 10.0, 1.0]))


def test_volumes_type_and_extension():
    found = DescribeAnswerd(NAMES)({"pred": label_map(), "notes": ["so"]})
    assert found["result"] == {"volumes_ml": {"liver": 1.0, "left kidney": 0.3}, "notes": ["so"]}
    assert (found["result_dtype"], found["result_extension"]) == ("uint8", ".nii.gz")
    assert found["pred"].shape == (1, 4, 4, 4)


def test_a_requests_wishes_stay():
    found = DescribeAnswerd(NAMES)({"pred": label_map(), "result_dtype": "int16", "result_extension": ".nrrd"})
    assert (found["result_dtype"], found["result_extension"]) == ("int16", ".nrrd")


def test_many_structures_need_two_bytes():
    assert DescribeAnswerd([str(i) for i in range(300)])({"pred": label_map()})["result_dtype"] == "uint16"


def test_a_mask_is_of_the_object_that_was_asked_for():
    found = DescribeAnswerd(NAMES, mask=True)({"pred": label_map() == 1, "label": "cyst"})
    assert found["result"]["volumes_ml"] == {"cyst": 1.0}


def test_a_picture_has_areas_and_no_channel():
    found = DescribeAnswerd(NAMES, extension=".png")({"pred": label_map((1, 8, 8))})
    assert found["result"] == {"areas_px": {"liver": 10.0, "left kidney": 3.0}}
    assert found["pred"].shape == (8, 8) and found["result_extension"] == ".png"


def test_logits_are_no_answer():
    with pytest.raises(LabelError, match="one map"):
        DescribeAnswerd(NAMES)({"pred": torch.zeros(3, 4, 4, 4)})


def test_one_structure_of_several():
    found = AskedObjectd(NAMES)({"pred": label_map(), "label": "Left_Kidney"})["pred"]
    assert found.sum() == 3 and set(found.unique().tolist()) == {0, 1}
    with pytest.raises(LabelError, match="no such structure"):
        AskedObjectd(NAMES)({"pred": label_map(), "label": "cyst"})
