"""A name that is taken for another is silent only where both say the same; the vocabulary need not be complete."""

import re

import pytest

from common.channel_doubt import _tells_less, _timed, remark, remarks, taught_elsewhere
from common.contract import Contract
from common.errors import DataError

SAME = """CT CT scan|CTA CT angiography|CTA Angio-CT|CTP;CT perfusion|T1 T1w|T1 t1n|FLAIR t2f|FLAIR T2 FLAIR
T1c T1Gad|T1c gadT1|T1ce T1-weighted contrast-enhanced|T1c CT1w|T1c;T1 with|T1c;T1 with contrast|T2;T2 MR|MR MRI
T2 fs;T2 fatsat|NCCT native CT|NCCT CT w/o|CECT;CT w/|CECT;CT with|CT portal;portal venous phase CT|CTPA pulmonary CTA
FDG-PET 18F-FDG|PET PT|ADC apparent diffusion coefficient|ADC;ADC map|T1 opposed phase;T1 OP|US ultrasound
CFP color fundus photograph|CBCT DVT|CBCT;cone-beam CT|T1 Dixon water;T1 DIXON W|CT nephrographic;nephrogenic CT
arterial CT;CT, arterial|CT cor;CT coronal|FDG PET/CT;FDG-PET CT|CT + PET;PET + CT|b800 DWI_b-800|LDCT low-dose CT
b800 b-value 800|b800 bval=800|b800 DWI 800|b800 DWI b=800 s/mm^2|b1000 b=1000 s/mm2|b50 b0050|b50 b=50.0|b0 DWI b=0
b0 B0|HBV;high b-value DWI
PET kBq/mL;PET kBq/cc|HBV;DWI high b|CXR chest X-ray|mammography MG|TRUS transrectal ultrasound|X-ray;radiograph
CT abdomen W;abdominal CT with contrast|T1 + C;T1c|CT arterial;CT art phase|CT or MR;MR or CT
T1 post;T1c|T1 pre;native T1|echo A4C;echo apical 4-chamber|PDFF proton density fat fraction
CT w and w/o;CT with and without"""
TOLD = """US ultrasound with contrast|X-ray fluoroscopy|X-ray;contrast X-ray
CT zscore|CT noNorm|CT image|T1 scanner|CT DRR|CT RTDOSE|CT VNC|CT MPR|DESS CT7x
CT virtual non-contrast CT|CT CT MIP|CT lung window CT|CT PET/CT|PET PET/MR|CT SPECT/CT|CT sCT
CT CT projection|CT corticomedullary;CT nephrographic|CT 70keV;CT VMI 40|CT PVP;CT HAP|CT NCCT_x7|NCCT CT
CT arterial;CT|T1 MR|T2 MR|FDG PET|CXR hand X-ray|X-ray mammography|US TEE|US doppler US
US CEUS|histology H&E;histology IHC|T1 T1 subtraction|T1 T1 hepatobiliary|FLAIR FLAIR post contrast
DWI DWI 0|DWI DWI 50|SWI SWI phase|MR DWI b0|cine SAX;cine LAX|cine short axis;cine long axis
echo A4C;echo A2C|PET PET counts|PET Bq/ml PET|CT abdomen;CT thorax|A B
PET-CT;FDG PET-CT|FDG PET-CT;PET-CT|CT CTV|CT pCT|CT MVCT|CT CTP|CT qCT|CT XCT|CT DECT|CT GTV|CT CTDIvol|CT ctrl
T2 T2 GRE|SWI;T2 GRE|T1 MR T1 GRE|SWI;MR GRE|T1c;T1c FLAIR|T1 T1 T2|T2 PD T2|PD PD/T2|FLAIR FLAIR SWI|MRA MRA T2
CT HU x10|CT HU+1024|CT HU + 1024|CT HU - 1000|CT CT (HU/10)|CT HU/2|CT HU*10|CT CT g/ml|CT CT %|CT CT mm/s
CT CT 0-1|CT T2CT|CT CT 0..255|SUV PET %
PET kBq/ml PET|ADC ADC *10^-6|b800 b1000|b1000;b1000 b2000|DWI DWI b0.5|b800 DWI 0|MRA MRA phase contrast
T2 T2 TSE|CT CTA|CT abdominal CT|CT low-dose CT|CT CTres|T1 MPRAGE|T1 T1 w/o contrast|T1c T1 Gadovist|MR T1 FS
T1c T1 Primovist|T2 IRM de prostate T2|T2 fs;T2 SPAIR|CT arterial;CT HAP|SUV SUVbw|PET SUV|DWI b1000|T1 out;OutPhase
CFP fundus|US B-mode;ultrasound|T1 Dixon water;T1 mDIXON W|cine cine SAX|CT HRCT|CT CTPA|CT kVCT|T1 T1 FLAIR|DWI TRACEW
CT with;CT without|CT w/;CT w/o|FLAIR with;FLAIR without|CT abdomen W;CT abdomen WO|MR brain W;MR brain WO
transrectal US;transvaginal US|transthoracic US;transrectal US|coronary CTA;coronal CTA|T2 cervix;T2 cervical
intracranial MRA;intraoral MRA|MR cerebral;MR cerebellar|T2 temporal;T2 temporomandibular|micro-ultrasound;microscopy US
intraoperative US;intravenous US|DWI b1000;DWI|DWI b1000;trace|HBV DWI|DWI DTI|DTI DWI|CTA CT portal|CTA CT delayed
CT portal;CTA|CTPA CTA|CTA CTPA|CTPA;CT portal|CECT CTA|MRA MRV|TOF MRA;TOF MRV|LGE PSIR|PSIR LGE|LGE;PSIR spine
ASL DSC|DSC ASL|PWI ASL|T2* map;T2*|T2* map;SWI|T1rho map;T1rho|PD map;PD|DSA XA|XA DSA|colonoscopy gastroscopy
endoscopy colonoscopy|colonoscopy WLI|histology microscopy|histopathology microscopy|WSI phase-contrast microscopy
cine SSFP|bSSFP;FIESTA brain|dADC ADC|MRI MRS|MRI MRSI|CT portal;CT pulmonary vein|CT portal;CT renal vein
CT portal;CT hepatic vein|CT portal;CT head venous|US portal vein;US vein|CT low-dose;CT full-dose|CT 0-1;CT 0..255
zscore zscore|noNorm noNorm|rescale_to_0_1 rescale_to_0_1|rgb_to_0_1 rgb_to_0_1|CT or MR;CT
T1 T1 pre-op|T1 pre-op T1|T1;T1w intra-op|T1;T1 in vivo|T1c;T1c post-op|FLAIR with FS;FLAIR without FS
FLAIR FS no contrast;FLAIR contrast no FS|PDFF;fat fraction|echo 4-chamber;echo apical 4-chamber
CT with and without contrast;CT with or without contrast|T1 pre or post;T1 pre and post
CT post;contrast CT|CECT;CT post|T2 pre;native T2|MR post;enhanced MR"""
OTHER = """CT CBF;CT CBV|CBF CBV|rCBF rCBV|CT Tmax;CBF|CT CT CBF|DTI FA;DTI MD|DWI DTI FA|DWI eADC
DWI apparent diffusion coefficient|DWI low b;DWI high b|b50 HBV|Dixon water;Dixon fat|mDIXON W;mDIXON F
T1 InPhase;T1 OutPhase|T1 IP;T1 OP|SWI magnitude;SWI phase|T1 T1 Gadovist|T1 T1 Primovist|T1 gadT1
T1 T1Gad|CT CT scout|CT topogram CT|CT CT sinogram|CT CT mask|CT dose CT|CT DECT Zeff
CT electron density CT|SUV PET Bq/ml|SUV PET counts|SUV Ki PET|SUV PET sinogram|cine 4D flow
fundus fluorescein angiography|fundus FA fundus|mammography tomosynthesis|T2 CTgated|T2 CTres|T2 MDCT
T2 HRCTlung|T2 ctvenous|T2 XCT|T2 angioCT|T2 CTmitKM|CT T2SPIR|CT T1DUAL|CT T1DIXON|CT PDFS|CT gadoT1
CT DESS|DWI DWI b0|DWI b0|DWI b=0|DWI DWI (b=0)|b50 b0|T2 b0|ADC DWI b 0 s/mm2|b0 B0 field map
DWI b1000;DWI 50|FDG PET-CT;PSMA PET-CT|FDG-PET/MR;PSMA PET/MR|CT + FDG PET;CT + PSMA PET|T1 + FLAIR;T1 + T2
T1 + T2 + FLAIR;T1 + T1c + FLAIR|SWI MR T1 GRE|PET Bq/ml;PET kBq/ml|SUV kBq/ml|SUV;SUVlbm g/ml|CT CT1w|US IVUS
IVUS US|CT QSM|T1c;T1 post-op|T1c;post-op T1w
CT TSE|CT EPI|CT BOLD|CT RNM|CT STIRw|ADC MR b0"""


def pairs(table: str) -> list[tuple[str, str]]:
    """``model data`` by ``|`` and line; ``;`` stands between them where the model's name has several words."""
    rows = [row for line in table.splitlines() for row in line.split("|")]
    return [tuple(row.split(";") if ";" in row else row.split(" ", 1)) for row in rows]  # type: ignore[misc]


def notes(own: str, given: str) -> tuple[str, ...]:
    return Contract((own,), {own: {"channels": [own]}}).fit((given,), given).notes


@pytest.mark.parametrize(("own", "given"), pairs(SAME))
def test_names_that_say_the_same_are_silent(own: str, given: str) -> None:
    assert remark(own, given) == "" and notes(own, given) == ()


@pytest.mark.parametrize(("own", "given"), pairs(TOLD))
def test_names_that_may_differ_are_told(own: str, given: str) -> None:
    (note,) = notes(own, given)
    assert own in note and given in note


@pytest.mark.parametrize(("own", "given"), pairs(OTHER))
def test_names_that_surely_differ_are_refused(own: str, given: str) -> None:
    with pytest.raises(DataError, match="not what the model was trained on"):
        notes(own, given)


@pytest.mark.parametrize("name", [
    "image", "volume", "scan", "img", "data", "input", "modality0", "channel_1", "0000", "0", "unknown", "c1",
    "abdomen",
    "the image", "3D", "n/a", "?", "Bild", "series 3", "axial", "image_0000",
])  # fmt: skip
def test_a_name_that_tells_nothing_is_no_match_though_it_is_the_same(name: str) -> None:
    (note,) = notes(name, name.upper())
    assert name.upper() in note and "tells nothing" in note
    assert len(remarks("x", ("T1", name), ("T1", name), "y")) == 1
    assert remarks("CT", (name,), (name,), "CT") == [] != remarks("CT", (name,), (name,), "CTA")


def test_names_that_somebody_gave_are_equal() -> None:
    for name in ("my scanner", "A", "x", "CT volume", "T1", "b0"):
        assert notes(name, name) == ()


def test_the_modality_speaks_for_a_channel_that_tells_nothing() -> None:
    assert remarks("CT", ("image",), ("image",), "CT") == [] == remarks("CT", ("CT",), ("image",), "CT")
    for channel, modality in (("image", "image"), ("image", "abdomen")):
        assert "nothing" in remarks("CT", ("image",), (channel,), modality)[0]
    assert len(remarks("x", ("T1", "FLAIR"), ("T1", "image"), "y")) == 1 and remarks("x", ("T1",), None, "") == []


@pytest.mark.parametrize(("name", "own", "given", "modality", "word"), [
    ("fundus", "R G B", "R G B", "", "fundus"), ("fundus", "R G B", "R G B", "photo", "fundus"),
    ("fundus", "R G B", "R G B", "RGB", "fundus"), ("brain MR", "T1 T2", "T1 T2", "prostate MR", "prostate"),
    ("head neck PET-CT", "PET CT", "PET CT", "lung PET-CT", "lung"), ("A", "cine", "cine", "B", "a, b"),
    ("PET-CT arterial", "PET CT", "PET CT", "PET-CT", "arterial"), ("brain", "T1 T2", "T1 T2", "MR", "brain"),
    ("abdominal CT", "CT", "", "CT", "abdom"), ("A", "cine", "", "cine", "a"), ("brain", "T1 T2", "", "MR", "brain"),
    ("CT", "CT", "CT", "CTA", "cta"), ("CTA", "CT", "CT", "CT", "CTA"), ("CT", "siemens", "philips", "CT", "philips"),
    ("CT", "siemens", "image", "CT", "siemens"), ("CTPA", "CT PET", "CT PET", "CTA", "pulmonary"),
    ("brain", "T1 T2", "", "brain", "t1, t2"), ("MR", "T1", "", "MRI", "t1"), ("PET", "SUV", "", "PT", "suv"),
    ("CT to PET", "a b", "a b", "PET to CT", "order"),
    ("brain", "T1 T2", "T1 T2", "prostate", "prostate"), ("abdominal CT", "CT", "CT", "CT", "abdom"),
])  # fmt: skip
def test_the_words_of_the_modality_are_told_of_one_channel_and_of_several(
    name: str, own: str, given: str, modality: str, word: str
) -> None:
    (note,) = remarks(name, own.split(), given.split() or None, modality)
    assert word in note


@pytest.mark.parametrize(("name", "own", "given", "modality"), [
    ("fundus", "R G B", "red green blue", "fundus"), ("T1 + T2", "T1 T2", "T1w T2w", "MR"),
    ("brain", "T1 T2", "T1w T2w", "brain MRI"), ("MR", "T1 T2", "T1 T2", "T1 + T2"), ("PET-CT", "CT PET", "CT PT", ""),
    ("brain T1 + T2", "T1 T2", "", "brain T1 + T2"), ("abdomen CT", "CT", "", "abdominal CT"),
    ("A", "cine", "cine", "a"),
])  # fmt: skip
def test_the_modality_of_the_same_words_is_silent(name: str, own: str, given: str, modality: str) -> None:
    assert remarks(name, own.split(), given.split() or None, modality) == []


PARTS = [{"channels": ["T1"], "structures": ["a"]}, {"channels": ["FLAIR"], "structures": ["a", "b"]}]
ON = "; taught on T1: a; FLAIR: a, b"


@pytest.mark.parametrize(
    ("own", "parts", "given", "modality", "told"),
    [
        ("CT | MR", [], ["CT"], "", "the model learned from CT | MR, and its card does not say what on which"),
        ("CT", [], ["CT"], "", ""),
        ("CT arterial | CT portal", [], None, "CT", ""),  # nothing surely apart
        ("T1 | FLAIR", PARTS, ["T1"], "", "nobody taught b on T1" + ON),
        ("T1 | FLAIR", PARTS, ["FLAIR"], "", ""),
        ("T1 | FLAIR", PARTS, ["T1"], "FLAIR", "nobody taught b on T1" + ON),  # the channel is nearer than the name
        ("T1 | FLAIR", PARTS, None, "FLAIR", ""),
        ("T1 | FLAIR", PARTS, None, "MR", "nobody taught b on MR" + ON),
        ("T1 | FLAIR", PARTS, ["T1 MPRAGE"], "MR", "nobody taught b on T1 MPRAGE" + ON),
        ("T1 | FLAIR", PARTS, ["FLAIR SPACE"], "MR", ""),
        ("T1 | FLAIR", PARTS, ["T1", "FLAIR"], "", "nobody taught b on T1, FLAIR" + ON),
        ("T1 | FLAIR", [*PARTS, {"channels": ["CT"], "structures": []}], ["T1"], "",
         "nobody taught b on T1" + ON + "; CT: nothing"),
    ],
)  # fmt: skip
def test_what_was_taught_on_other_channels(own, parts, given, modality, told) -> None:
    assert taught_elsewhere([own], parts, given, modality) == told


@pytest.mark.parametrize(
    ("own", "given", "words"),
    [
        ("T1 | FLAIR", "FLAIR", ""),
        ("T1 | FLAIR", "t2f", ""),
        ("CT | CT portal", "CT portal", ""),
        ("T1 | CT", "PET", "PET is taken for T1"),  # none fits: the first
        ("CT | CT arterial", "CT delayed", "nobody says|taken for CT arterial: another phase|taken for CT"),
        ("MR | T1", "T2", "T2 is taken for MR"),
    ],
)
def test_of_several_names_one_is_enough(own: str, given: str, words: str) -> None:
    assert remark(own, given) == "" if not words else re.search(words, remark(own, given))


@pytest.mark.parametrize(
    ("own", "given", "less", "timed"),
    [
        ("T1", "MR", True, False), ("MR", "T1", False, False), ("MR", "MR", False, False), ("T1", "T2", False, False),
        ("US B-mode", "US", False, False), ("US", "US doppler", True, False), ("CT", "CTA", False, False),
        ("X-ray", "CXR", True, False), ("CT arterial", "CT", False, True), ("CT", "CT arterial", False, False),
        ("T1c", "T1 pre", False, True), ("T1 post", "T1", False, False), ("T1c", "T1c post", False, False),
        ("US", "US contrast", False, True), ("MR post", "MR", False, True), ("MR", "MR post", False, False),
        ("T1", "T1 pre", False, False),
    ],
)  # fmt: skip
def test_who_tells_less_and_whose_time_is_untold(own: str, given: str, less: bool, timed: bool) -> None:
    assert (_tells_less(own, given), _timed(own, given)) == (less, timed)
