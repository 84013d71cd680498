"""Names of ordinary organs are known as such, in the spellings of public data sets; what has no organ's word is not."""

import json
from pathlib import Path

import pytest

from common.data.datasets.naming import is_general, is_nameless
from common.data.datasets.organs import names_an_organ

PROFILE = Path(__file__).parents[4] / "tools" / "experts" / "profiles" / "totalsegmentator.json"
ORGANS = """spleen|right kidney|gall bladder|oesophagus|postcava|IVC|right adrenal gland
prostate/uterus|left head of femur
Intestine|myocardium|BrainStem|OpticChiasm|OpticNerve_L|Parotid_L|SpinalCord|Cochlea_L|Eye_R|Lens_L|Oral cavity|Lips
Lacrimal gland L|Glnd_Submand_L|A_Carotid_L|Bone_Mandible|Cricopharyngeus|hippocampus anterior|cerebral white matter
white matter|hepatic vessel|lung nodule|pleural effusion|aortic valve|L1|T12|T1
vertebrae_C3|rib_left_1|hip_left|skull|autochthon_left
skin lesion|optic disc|tooth 11|lower jawbone|fetal head|corpus callosum|subcutaneous fat|costal_cartilages
patellar cartilage|seminal vesicle|bowel bag|small bowel|airways|kidneys|Leber|iliac_vena_left
liver tumour|myocardial scar"""
OTHERS = """malignancy|mets|stone|disc|gland|peritumoral edema|hypermetabolic lesion|FDG-avid lesion|a|thing|stroke
incidental lesion|external|contour|instrument|cell|nuclei|growth|blob|catheter|ulcer|exudate
true lumen|suspicious region
disease|opacity|PI-RADS 4|grade 4|T2 lesion|T1 enhancing lesion|enhancing|testing area"""


def listed(table: str) -> list[str]:
    return [name for line in table.splitlines() for name in line.split("|")]


@pytest.mark.parametrize("name", listed(ORGANS))
def test_a_name_with_an_organ_s_word_says_what_it_is(name: str) -> None:
    assert names_an_organ(name) and not is_general(name)


@pytest.mark.parametrize("name", listed(OTHERS))
def test_a_name_without_one_may_be_of_anything(name: str) -> None:
    assert not names_an_organ(name) and is_general(name) and not is_nameless(name)


def test_all_that_a_large_expert_knows_are_organs() -> None:
    known = [n for part in json.loads(PROFILE.read_text())["parts"] for n in part["structures"]]
    assert len(known) > 100 and [n for n in known if is_general(n)] == []
