"""What a packed bundle's documents must have, and what the packer adds to them."""

from __future__ import annotations

import re
from pathlib import Path

from common.bundle_words import shown_knob
from common.errors import ConfigError
from common.tables import markdown_text

from ..bundle_files import read_json

__all__ = ["NOTHING_SHIPPED", "REQUIRED_SECTIONS", "Weights", "missing_sections", "write_documents"]

from typing import NamedTuple

REQUIRED_SECTIONS = ("Authors", "Tags", "Model Description", "Data", "Performance", "System Configuration")
NOTHING_SHIPPED = "No data and no trained weights are shipped with this bundle."
COMMANDS = "## Commands"
RUN = "python -m monai.bundle run --config_file"
ONE_SCAN = """The first line takes scans where they lie: an entry for each, with a list of files where each channel has
one of its own. Capitals stand for names of yours; one that the model does not know is refused with those that it knows,
and a model of one modality needs none. Scans that are none of what the model was taught on are refused or warned of;
an entry may say what its scan is (`'modality': 'CT'`). `--ignore_card True` goes on, and the result's record says so.

"""


_NOT_OURS = "The weights of this folder were trained on: {}. What follows is the collection's default."
_NOT_THESE = (
    "The scores of the weights of this folder, where there are any, are under [Weights](#weights). What follows was "
    "measured with other weights of the collection."
)


class Weights(NamedTuple):
    """Weights that travel with a bundle.

    Args:
        sha256: of ``models/model.pt``.
        size: its bytes.
        licence: under what they may be passed on.
        structures: what they were trained on, in order.
        url: where they are fetched from; empty when they lie in ``models/``.
        trained: version and configuration that trained them, from the file's card.
        data: lines of Markdown: what they were trained on, and their scores.
        source: the data sets in one sentence.
        conditions: under what each of them may be used.
    """

    sha256: str
    size: int
    licence: str
    structures: tuple[str, ...]
    url: str = ""
    trained: str = ""
    data: tuple[str, ...] = ()
    source: str = ""
    conditions: str = ""


def missing_sections(text: str) -> list[str]:
    """Sections that the zoo's template wants of ``docs/README.md`` and that a text has not."""
    there = {m.group(1).strip().lower() for m in re.finditer(r"^#{1,3} +(.+)$", text, flags=re.MULTILINE)}
    return [s for s in REQUIRED_SECTIONS if s.lower() not in there]


def write_documents(folder: Path, *, bundle: str, package: str, weights: Weights | None, torchscript: str) -> None:
    """Adapt ``docs/README.md`` and ``docs/data_license.txt`` of a copy to what the packed folder holds.

    Args:
        folder: the copy.
        bundle: its name.
        package: its package of code.
        weights: the weights that travel with it, if any.
        torchscript: how ``models/model.ts`` was made; empty when there is none.

    Raises:
        ConfigError: when a section that the zoo wants is missing, or the documents deny what is in the folder.
    """
    readme, licence = folder / "docs" / "README.md", folder / "docs" / "data_license.txt"
    text = readme.read_text(encoding="utf-8")
    missing = missing_sections(text)
    if missing or COMMANDS not in text:
        raise ConfigError(
            "the document lacks sections that the zoo wants", where=readme.name, got=", ".join(missing) or "no Commands"
        )
    added = [_commands(folder, bundle, package), _weights(weights)]
    if torchscript:
        added.append(f"## TorchScript file\n`models/model.ts`: {torchscript}.\n")
    text = text.replace(f"{COMMANDS}\n", "\n".join(added) + "\n## Commands in the collection\n", 1)
    if weights is not None:
        text = text.replace("## Data\n", f"## Data\n{_NOT_OURS.format(weights.source or 'not recorded')}\n\n", 1)
        text = text.replace("## Performance\n", f"## Performance\n{_NOT_THESE}\n\n", 1)
    readme.write_text(text, encoding="utf-8")
    if weights is not None:
        terms = licence.read_text(encoding="utf-8")
        if NOTHING_SHIPPED not in terms:
            raise ConfigError(
                "the licence of the data does not begin as expected", where=licence.name, expected=NOTHING_SHIPPED
            )
        where = f"fetched from {weights.url}" if weights.url else "models/model.pt"
        told = (
            f"No data is shipped with this bundle. Its weights ({where},\nsha256 {weights.sha256}): {weights.licence}\n"
            f"They were trained on: {weights.conditions or 'not recorded'}"
        )
        licence.write_text(terms.replace(NOTHING_SHIPPED, told, 1), encoding="utf-8")


def _on_one_scan(folder: Path) -> tuple[str, str]:
    """The command that segments a file as it lies, and what is said of it; neither where nothing is segmented."""
    config = read_json(folder / "configs" / "inference.json")
    data = read_json(folder / "configs" / "metadata.json")["network_data_format"]
    (image, *_), (pred, *_) = data["inputs"].values(), data["outputs"].values()
    if pred.get("format") == "magnitude":  # an expert that learns without labels
        return "", ""
    file = "picture.png" if len(image["spatial_shape"]) == 2 else "scan.nii.gz"
    words = [f"{RUN} configs/inference.json --dataset::data \"[{{'image': '{file}'}}]\""]
    words += [f"--{key} {key.upper()}" for key in ("modality", "head") if key in config]
    if "prompts" in config:
        words.append("--prompts \"{'liver': {'inside': [[120, 80, 40]]}}\"")
    return " ".join(words) + "\n", ONE_SCAN


def _commands(folder: Path, bundle: str, package: str) -> str:
    command, told = _on_one_scan(folder)
    return f"""{COMMANDS}
This folder needs nothing but the packages of `configs/metadata.json`: the code that it names lies in `{package}/`
([VENDORED.json](VENDORED.json) lists it with hashes). In this folder:

```bash
{command}{RUN} configs/inference.json --dataset_dir DATASET
{RUN} "['configs/inference.json','configs/evaluate.json']" --dataset_dir DATASET
{RUN} configs/train.json --dataset_dir DATASETS
```

{told}`DATASET` is a folder with a `dataset.json` as in the Medical Segmentation Decathlon: `name`, `modality`, `labels`
and lists `test`, `training` and `validation` of `{{"image": ..., "label": ...}}`; `DATASETS` is a folder of such
folders.

From anywhere else, add `{shown_knob("bundle_root", bundle)}` and name the files by their paths. Results go to `eval/`,
weights to `models/`. In Python, `sys.path.insert(0, "{bundle}")` comes before `monai.bundle.load("{bundle}",
bundle_dir=".", workflow_type="inference")`. Several packed bundles of the collection work in one process; two versions
of one do not.
"""


def _weights(weights: Weights | None) -> str:
    if weights is None:
        return "## Weights\nNone are shipped: train, or put your own into `models/model.pt`.\n"
    where = f"fetched from <{weights.url}>" if weights.url else "`models/model.pt`"
    trained, structures = markdown_text(weights.trained), ", ".join(map(markdown_text, weights.structures))
    return (
        f"## Weights\n{where}, {weights.size / 1e6:.1f} MB, sha256 `{weights.sha256}`{trained}.\n"
        f"Structures: {structures}.\nLicence: {weights.licence}.\n"
        + ("\n" + "\n".join(weights.data).strip() + "\n" if weights.data else "")
    )
