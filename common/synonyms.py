"""What a name says in words of one spelling each, so that two names are taken for one only where both say the same."""

from __future__ import annotations

import re
from functools import cache
from itertools import groupby

from .modalities import alternatives, images, meanings
from .name_words import told_of, words
from .vocabulary import split_words
from .wording import contrary_signs, is_ordered, joins, listed, marks, several

__all__ = ["KINDS", "SYNONYMS", "said", "says_same"]

# True synonyms, each row under the words that stand for all of it; of a class alone no two words are in one row.
SYNONYMS: dict[str, tuple[str, ...]] = {row[0].strip(): tuple(w.strip() for w in row[1].split(",")) for row in (
    line.split(":") for line in """
ct: computertomographie, computertomografie, computertomogramm, tomodensitometrie, tomodensitometry, tdm, tac, ctscan
mr: mri, mrt, irm, rm, rmn, rnm, nmr, magnetic resonance, kernspintomographie, magnetresonanztomographie
us: usg, ultrasound, ultrasonography, sonography, sonographie, ultraschall, echographie, ecografia
pet: pt, tep
xr: xray, radiograph, radiography, radiographie, radiografia, rontgen, roentgen, rx
scintigraphy: szintigraphie, szintigrafie, scintigraphie
photo: photos, photograph, photographs, photography, foto, fotos
colour: color
pet ct: petct
pet mr: petmr
spect ct: spectct
ct without: ncct, nect, uect, nativect
ct contrast: cect, contrastct
cta: ctangio, angioct, angiotc
coronary cta: ccta, ctca
pulmonary cta: ctpa
cbct: dvt, conebeam, cone beam, cone beam ct
lowdose ct: ldct
ultralowdose ct: uldct
ctp: ct perfusion
synthetic ct: sct
heart mr: cmr, cmri
without: native, nativ, natif, natives, nativer, unenhanced, nonenhanced, precontrast, noncontrast, minusc, \
pre contrast, native phase, unenhanced phase, noncontrast phase
contrast: contraste, contrasto, kontrast, enhanced, km, kontrastmittel, plusc, postcontrast, post contrast, \
gd, gad, gado, \
gadolinium, postgd, postgado, post gd, post gadolinium, injecte, injectee, contrast enhanced, with contrast, mit km, \
mit kontrast, mit kontrastmittel, avec contraste, con contraste, con contrasto, com contraste
t1 without: t1 pre, t1w pre
t1 contrast: t1c, t1ce, t1wc, t1wce, t1gd, t1wgd, t1gad, t1gado, t1gadolinium, t1post, t1plusc, t1km, t1contrast, \
t1 c, t1 ce, t1w c, t1w ce, t1 post, t1w post, cet1, cet1w, ce t1, ct1w
t1: t1w, t1wi, t1 w, t1 weighted, t1 gewichtet, t1 pondere, t1n
t2: t2w, t2wi, t2 w, t2 weighted, t2 gewichtet, t2 pondere
pd: pdw, pdwi, pd w, pd weighted, proton density, proton density weighted
flair: t2f, t2 flair, t2w flair
dwi: diffusion weighted, diffusion weighted imaging
highb: hbv
swi: susceptibility weighted, susceptibility weighted imaging
dti: diffusion tensor, diffusion tensor imaging
lge: late gadolinium enhancement
dce: dynamic contrast enhanced
dsc: dynamic susceptibility contrast
asl: arterial spin labeling, arterial spin labelling
mra: mr angiography
bssfp: balanced ssfp
truefisp: trufi
tof: time of flight
fatsat: fs, fatsuppressed, fatsuppression
inphase: in, ip, inp
outphase: out, op, oop, opp, opposed, opposed phase, op phase
dixon water: dixon w
dixon fat: dixon f
arterial: art, arteriell, arterielle, arterial phase
latearterial: latearterial phase
earlyarterial: earlyarterial phase
portal: portalvenous, portovenous, portalvenos, pvp, portal phase, portalvenous phase
venous: venous phase
delayed: delayed phase
delayedvenous: delayedvenous phase
nephrographic: nephrogenic, nephrographic phase, nephrogenic phase
corticomedullary: corticomedullary phase
adc: adc map, adc maps
eadc: eadc map
fa: fa map
md: md map
cbf: cbf map
cbv: cbv map
mtt: mtt map
tmax: tmax map
ttp: ttp map
ktrans: ktrans map
axial: ax, tra, transversal, transverse
coronal: cor
sagittal: sag
sax: sa, shortaxis
lax: la, longaxis
abdomen: abdominal, abdome, abdominale
pelvis: pelvic
thorax: thoracic, chest
heart: cardiac
lung: lungs
kidney: renal
liver: hepatic
rectum: rectal
fdg: 18f fdg, f18 fdg, fdg 18f, fdg f18, 18ffdg, f18fdg, ffdg
suvlbm: sul
transrectal us: trus
transthoracic echocardiography: tte
transesophageal echocardiography: tee
intravascular us: ivus
contrast us: ceus, contrast enhanced us, contrast enhanced ultrasound
thorax xr: cxr
mammography: mg, mammo, mammogram, mammographie
dxa: dexa
angiography oct: octa
intravascular oct: ivoct
colour fundus: cfp, colour fundus photo
fundus autofluorescence: faf
fundus fluorescein angiography: ffa
icga: indocyanine green angiography
nbi: narrow band imaging
wli: white light imaging
wsi: whole slide image, whole slide imaging
dermoscopy: dermatoscopy
endoscopy: endoskopie
""".replace("\\\n", "").strip().splitlines())}  # fmt: skip
_EMPTY = {"image", "images", "scan", "scans", "imaging"}  # "MR imaging" is MR
KINDS = {"ct", "mr", "us", "pet", "xr", "photo", "dwi"}  # "T2 MR" is T2: the rest tells it, too
_ROW = {tuple(v.split()): tuple(own.split()) for own, row in SYNONYMS.items() for v in row}
_LONGEST = max(map(len, _ROW))


@cache
def said(name: str) -> frozenset[frozenset[str]]:
    """The words of a name in one spelling, without order: a set for each of its alternatives.

    Only what stands in :data:`SYNONYMS` is made alike, words for images are left out, and so is the kind where the rest
    tells it. Being of one class, sharing letters or ordering no channels makes no two words one.

    Args:
        name: of channels or of a modality.
    """
    return frozenset(frozenset[str]().union(*map(_words, images(part))) for part in alternatives(name))


@cache
def _written(name: str) -> tuple[object, ...]:
    """What a name says with the order of its words, where that tells something, and its signs: see :mod:`.wording`."""
    parts = re.split(r"\s*[,;]\s*", name)
    commas = len(parts) > 1 and listed(parts)
    whole = name if commas else " ".join(parts)
    found = [sorted(map(_image, images(part))) for part in alternatives(whole)]
    return commas, *map(tuple, sorted(found))


def _image(name: str) -> tuple[tuple[str, ...], ...]:
    found = tuple(word for word, _ in groupby(_words(name)))  # "C+" says contrast twice
    related = several(name, found) & {"sequences", "phases", "b-values"}  # "FDG PET/CT" is no quotient
    ordered = found if is_ordered(name, found) else tuple(sorted(set(found)))
    return ordered, marks(name), joins(name) if related else ()


def says_same(one: str, other: str) -> bool:
    """Whether two names are one but for their writing and true synonyms.

    The order of words counts where it tells something, and so do signs that separate nothing: ``CT to PET`` is not
    ``PET to CT``, ``T1-C`` not ``T1+C``, ``CT P`` not ``CTP``.

    Args:
        one: a name.
        other: another.
    """
    return one == other or (_written(one) == _written(other) and not contrary_signs(one, other))


def _bare(name: str) -> list[str]:
    found = list(split_words(name))
    if any(told_of(w) == "fatsat" for w in words(name)) and not any(told_of(w) == "fatsat" for w in found):
        found.append("nofatsat")  # "T1 non FS" orders no channels, and says something
    return found


def _words(name: str) -> list[str]:
    found = _in_one_spelling(_bare(name))
    left = [w for w in found if w not in _EMPTY] or found
    for word in sorted(KINDS.intersection(left)):
        rest = " ".join(w for w in left if w != word)
        if rest and meanings(rest) == meanings(" ".join(left)) != frozenset():
            left = [w for w in left if w != word]
    return left


def _in_one_spelling(bare: list[str]) -> list[str]:
    """Words with each run of them that stands in a row replaced by the row's own, until nothing changes."""
    found = list(bare)
    for _ in range(_LONGEST):
        before, left, found = found, found, []
        while left:
            size = next((n for n in range(min(_LONGEST, len(left)), 0, -1) if tuple(left[:n]) in _ROW), 0)
            found += _ROW[tuple(left[:size])] if size else left[:1]
            left = left[size or 1 :]
        if found == before:
            break
    return [re.sub(r"^b0+(?=\d)", "b", w) for w in found]
