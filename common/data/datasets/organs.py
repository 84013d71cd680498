"""Which words of a structure's name say of what organ it is."""

from __future__ import annotations

import re

__all__ = ["names_an_organ"]

# How words of organs begin, their adjectives included; before them stand but the syllables below.
_STEMS = (
    "liver hepat kidney renal nephr spleen splen pancrea gallbladder bladder biliar bile stomach gastr duoden "
    "jejun ileum ileal ileo intestin bowel colon colic rectum rectal rectosig sigmoid caecum cecum appendix "
    "esophag oesophag pharyn laryn trache bronch lung pulmon pleura mediast thymus thymic thyroid adrenal "
    "suprarenal ureter urethra prostat seminal testic testis testes epididym penis penile uterus uterin cervix "
    "endometri myometri ovary ovari adnex vagina vulva fallopian placent fetal fetus foetal foetus breast mammar "
    "fibrogland heart cardi coronary mitral tricuspid aorta aortic vena cava postcava carotid subclav brachi "
    "jugular iliac iliop femor femur portal mesenter celiac coeliac popliteal vertebr brain cerebr cerebell "
    "encephal cranial cranium skull scalp oblong hippocamp amygdal thalam putamen caudate pallid accumbens "
    "striatum striatal callos insula fornix hypothal pituitar hypophys chiasm optic retina macula fovea choroid "
    "vitre cornea sclera eyeball eyelid orbit cochlea conjunctiv labyrinth auditor mastoid nasal nasophar maxill "
    "mandib zygoma palat tongue tonsil uvula dental tooth teeth molar incisor premolar canine gingiv parotid "
    "submand sublingual saliva lacrim buccal oral glott vocal arytenoid cricoid cricophar hyoid spine spinal "
    "spinous sacrum sacral sacroil coccyx lumbar cervical thora sternum sternal costal ribcage scapul clavic "
    "humer radius ulna carpal metacarp phalan finger thumb wrist elbow shoulder patell tibia fibula talus tarsal "
    "metatars calcane ankle knee pelvi pubic pubis ischi acetab glute psoas quadriceps hamstring autochthon "
    "trapezius deltoid abdom periton diaphragm subcutan visceral skelet bone osseous skin cutaneous dermis "
    "epiderm limbic temporal frontal parietal occipit cingul precuneus subthal leber niere lunge gehirn milz "
    "magen blase higado rinon corazon foie estomac poumon coeur umbilic inguin axilla forearm tympan meninge "
    "airway cartilage jaw uvea atrial auric"
)
_ALONE = (
    "eye rib ear lip hip arm leg toe foot hand gut fat air csf ivc svc lens iris pupil nose neck anus anal sma smv "
    "cord chest thigh calf heel rein herz hals kopf hirn becken cbd acl pcl pons midbrain atlas torso dura face"
)
_WORDS = set(_ALONE.split())
_NAMED = re.compile(r"[ctls]\d{1,2}(?:[ctls]\d{1,2})?")  # a vertebra, or the disc between two
_MATTER = re.compile(r"(?:white|gr[ae]y)[\W_]*matter")
_BEFORE = (
    "left|right|peri|retro|intra|extra|supra|infra|sub|para|endo|epi|myo|trans|hemi|inter|pre|post|oro|naso|costo|l|r"
)
_ORGAN = re.compile(rf"(?:{_BEFORE})?(?:{'|'.join(_STEMS.split())})")


def names_an_organ(name: str) -> bool:
    """Whether a word of a structure's name says of what organ, bone, vessel or tissue it is.

    Args:
        name: in any spelling: ``kidney tumor``, ``hepatic vein``, ``vertebrae_L1``.
    """
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).casefold()
    found = re.findall(r"[^\W_]+", text)
    told = [w for w in found if w not in ("t1", "t2") or len(found) == 1]  # "T2 lesion" is none of a vertebra
    known = any(w in _WORDS or w.rstrip("s") in _WORDS or _NAMED.fullmatch(w) or _ORGAN.match(w) for w in told)
    return known or bool(_MATTER.search(text))
