"""The folder of an amalgamation: what was asked for, in one file that every step reads."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.atomic import atomic_write
from common.bundle_words import as_typed, guessed
from common.command_words import option, shown, shown_option
from common.data.datasets.datalist import Collection, read_collection
from common.errors import ConfigError, DataError
from common.experts.answers.beside import write_kept
from common.experts.spec import ExpertSpec, read_manifest
from common.literals import inert
from common.plain_json import read_object
from common.whole_numbers import whole_number

from ..chain.step import ChainSettings, recipe
from .form import RESULTS, WANTED, check_form

__all__ = ["BUNDLE", "Wanted", "Work", "knobs_text"]

BUNDLE = "ka2er"
OWN = ("nnunet", "swin_unetr")
PLACES = ("bundle_root", "ckpt_dir", "dataset_dir", "experts", "output_dir")  # these are the amalgamation's own
_KNOB = re.compile(r"[a-zA-Z0-9]\w*(::[a-zA-Z0-9]\w*)*")  # none of _target_ and the like
_HINT = "python -m tools amalgamate EXPERT EXPERT --scans ct=FOLDER"


@dataclass(frozen=True)
class Wanted:
    """What a user chose.

    Args:
        preset: sizes, a key of ``presets`` in the bundle's ``chain.json``.
        student: ``nnunet`` or ``swin_unetr``.
        start_from: name of the expert whose plans and weights the student takes; empty for none.
        labels_used: ``all``, ``none``, or how many labelled scans of each task teach.
        seed: of the training.
        train: further knobs of the training, as they were typed.

    Raises:
        ConfigError: for a value that is none.
    """

    preset: str = "paper"
    student: str = "nnunet"
    start_from: str = ""
    labels_used: str = "all"
    seed: int = 0
    train: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        for field in ("preset", "student", "start_from", "labels_used"):
            if not isinstance(getattr(self, field), str):
                raise ConfigError("this is no text", where=f"--{field}", got=f"{getattr(self, field)!a:.100}")
        if type(self.seed) is not int or not 0 <= self.seed < 2**63:
            raise ConfigError("a seed is a number >= 0", where="--seed", got=f"{self.seed!a:.100}")
        if self.student not in OWN:
            raise ConfigError("unknown student", where="--student", got=self.student, expected=" or ".join(OWN))
        if self.labels_used not in ("all", "none") and whole_number(self.labels_used) is None:
            raise ConfigError("how many label maps teach?", where="--labels_used", got=f"{self.labels_used!a:.100}",
                              expected="all, none, or a number for each task")  # fmt: skip
        if self.start_from and self.student != "nnunet":
            raise ConfigError("only an nnU-Net student starts from an expert", where="--start_from",
                              got=self.start_from, expected="--student nnunet")  # fmt: skip
        for key, value in self.train:
            if key in PLACES or not _KNOB.fullmatch(key):
                raise ConfigError("this is no knob that a training is given", where="--train", got=key,
                                  expected=f"a knob of the bundle, none of {', '.join(PLACES)}")  # fmt: skip
            typed = guessed(value)
            if inert(typed) != typed:
                raise ConfigError("a knob's value is plain, as it is kept in a file", where=f"knob {key!r}", got=value,
                                  expected="text, a number or a list, without $, @ and %",
                                  hint="write an overlay of the bundle for expressions")  # fmt: skip


@dataclass(frozen=True)
class Work:
    """An amalgamation's folder and what was chosen for it.

    Args:
        out: the folder.
        wanted: the choice.
        bundles: folder that holds the bundles.
    """

    out: Path
    wanted: Wanted = Wanted()
    bundles: Path = Path("bundles")

    @classmethod
    def read(cls, out: Path, train: Sequence[tuple[str, str]] = ()) -> Work:
        """The work that an earlier command wrote.

        Args:
            out: the folder, which may be anybody's.
            train: the knobs that this command's own line says; a file chooses no others, as a knob may be a place.

        Raises:
            ConfigError: when there is none, it cannot be read, or chooses what there is not or was not said.
        """
        file = out / "wanted.json"
        if not file.is_file():
            raise ConfigError("no amalgamation was started here", where=out, hint=_HINT)
        data = read_object(file, error=ConfigError, hint=_HINT)
        try:
            check_form(data, WANTED, file)
            work = cls(out, Wanted(**{**data, "train": tuple((k, v) for k, v in data["train"])}))
            _ = work.files, work.wanted.start_from and work.description(work.wanted.start_from)
        except (ConfigError, DataError) as error:
            place = file if error.where in (None, file) else f"{file}, {error.where}"
            raise ConfigError(f"this is not what an amalgamation wrote: {error.problem}", where=place, got=error.got,
                              expected=error.expected, hint=error.hint or _HINT) from error  # fmt: skip
        if work.wanted.train != tuple(train):
            raise ConfigError("the folder chooses other knobs than this command", where=file,
                              got=knobs_text(work.wanted.train) or "none", expected=knobs_text(train) or "none",
                              hint="where you trust who started it, say the same: "
                              + shown_option("train", knobs_text(work.wanted.train)))  # fmt: skip
        return work

    def write(self) -> None:
        """Keep the choice for the steps."""
        self.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(asdict(self.wanted), indent=2) + "\n"
        if not self.file.is_file() or self.file.read_text(encoding="utf-8") != text:
            with atomic_write(self.file) as temporary:
                temporary.write_text(text, encoding="utf-8")

    @property
    def kept(self) -> tuple[str, ...]:
        """Names of the experts whose passes stay beside the student, as :meth:`keep` wrote them.

        Raises:
            ConfigError: when the file is none of ours.
        """
        if not self.keep_file.is_file():
            return ()
        data = read_object(self.keep_file, error=ConfigError, hint=_HINT)
        names = data.get("experts")
        if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
            raise ConfigError("this does not say which experts stay", where=self.keep_file, got=f"{data!a:.100}",
                              expected='{"experts": [names]}', hint=_HINT)  # fmt: skip
        return tuple(names)

    def keep(self, names: Sequence[str]) -> None:
        """Say which experts' passes stay; what was said before is taken back where it was something else.

        It has a file of its own: nothing that was asked, trained or scored depends on it.
        """
        text = json.dumps({"experts": list(names)}, indent=2) + "\n" if names else ""
        if text == (self.keep_file.read_text(encoding="utf-8") if self.keep_file.is_file() else ""):
            return
        write_kept(self.model, [])
        (self.out / "beside" / "beside.json").unlink(missing_ok=True)
        if not names:
            self.keep_file.unlink()
            return
        with atomic_write(self.keep_file) as temporary:
            temporary.write_text(text, encoding="utf-8")

    @property
    def keep_file(self) -> Path:
        """Where it is kept which experts' passes stay."""
        return self.out / "keep.json"

    @property
    def file(self) -> Path:
        """Where the choice is kept."""
        return self.out / "wanted.json"

    @property
    def data(self) -> Path:
        """The folder of the collection."""
        return self.out / "collection"

    @property
    def manifest(self) -> Path:
        """The experts' descriptions."""
        return self.out / "experts.json"

    @property
    def model(self) -> Path:
        """The trained student."""
        return self.out / "student" / "model.pt"

    @property
    def collection(self) -> Collection:
        """The scans."""
        return read_collection(self.data)

    @property
    def specs(self) -> list[ExpertSpec]:
        """The experts.

        Raises:
            ConfigError: for a list without any.
        """
        found = read_manifest(self.manifest)
        if not found:
            raise ConfigError("the list of experts is empty", where=self.manifest, hint=_HINT)
        return found

    @property
    def settings(self) -> ChainSettings:
        """The same for what runs and records chains."""
        return ChainSettings(BUNDLE, self.data, self.out, preset=self.wanted.preset, seeds=(self.wanted.seed,),
                             tracking="none", bundles=self.bundles)  # fmt: skip

    @property
    def files(self) -> list[str]:
        """Names of the training's configurations, in merging order.

        Raises:
            ConfigError: for an unknown preset.
        """
        sizes = recipe(self.settings)["presets"][self.wanted.preset]["stage2"]
        return ["train.json", *sizes, *(["nnunet.json"] if self.wanted.student == "nnunet" else []), "stored.json"]

    def knobs(self, folder: Path) -> dict[str, Any]:
        """Knobs of the training that are values.

        Args:
            folder: where it writes.
        """
        used = self.wanted.labels_used
        found: dict[str, Any] = {
            "dataset_dir": str(self.data),
            "experts": str(self.manifest),
            "output_dir": str(folder),
            "ckpt_dir": str(folder),
            "seed": self.wanted.seed,
            "labels_used": used if (count := whole_number(used)) is None else count,
            "use": ["task", "external"],  # all that are given teach, whatever a preset of chains says
        }
        if self.wanted.student == "nnunet":
            found["plan_splits"] = ["training", "unlabelled"]
            if self.wanted.start_from:
                found["start_from"] = str(self.description(self.wanted.start_from))
        return found

    @property
    def typed(self) -> Mapping[str, Any]:
        """Knobs that the user typed, as words of a command."""
        return as_typed(self.wanted.train)

    @property
    def read_typed(self) -> dict[str, Any]:
        """The same as a configuration's reader takes them."""
        return {key: guessed(value) for key, value in self.wanted.train}

    def description(self, expert: str) -> Path:
        """The file with one expert's description.

        Raises:
            ConfigError: for an expert that there is not.
        """
        names = [spec.name for spec in self.specs]
        if expert not in names:
            raise ConfigError("there is no such expert", where=self.manifest, got=f"{expert!a:.200}",
                              expected=", ".join(names), hint=_HINT)  # fmt: skip
        return self.out / "experts" / f"{names.index(expert)}.json"

    def result(self, step: str) -> dict[str, Any]:
        """What a step found.

        Raises:
            ConfigError: when it cannot be read.
            DataError: when it is not of the step's form.
        """
        told = {"out": self.out, "only": step, "train": knobs_text(self.wanted.train)}
        hint = "find it anew: python -m tools amalgamate " + " ".join(shown_option(k, v) for k, v in told.items() if v)
        file = self.out / step / f"{step}.json"
        data = read_object(file, error=ConfigError, finite=False, hint=hint)
        check_form(data, RESULTS[step], file, hint)
        return data


def knobs_text(train: Sequence[tuple[str, str]]) -> str:
    """Knobs as the text of ``--train``, which is read as these again."""
    return shown(*(option(key, value) for key, value in train))
