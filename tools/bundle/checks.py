"""What a bundle must satisfy: the zoo's rules and ours, checked without building or evaluating anything of it."""

from __future__ import annotations

import ast
import functools
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from common.errors import ConfigError, WeightError
from common.integrity import SUFFIX, verify

from ..bundle_describe import check_metadata_text
from ..bundle_files import Configuration, configurations, read_json, walk
from .docs import missing_sections
from .lookup import NotFoundError, libraries_only, library_signature
from .static import signature_of
from .vendor import VENDORED, leftovers, verify_vendored

__all__ = ["CHECKS", "Finding", "check_bundle", "merged", "statements"]

SCHEMA = Path(__file__).parent / "meta_schema_20240725.json"
REQUIRED = ("LICENSE", "configs/metadata.json", "configs/train.json", "configs/inference.json", "docs/README.md")
PREFERRED = ("configs/evaluate.json", "configs/logging.conf", "docs/data_license.txt")
NOT_ARGUMENTS = {"_target_", "_disabled_", "_requires_", "_desc_", "_mode_"}
CAPABLE = {"os", "subprocess", "shutil", "sys", "builtins", "socket", "pickle", "ctypes", "importlib", "runpy"}
FORMATS = {"magnitude", "hounsfield", "kspace", "raw", "labels", "classes", "segmentation", "points", "latent"}
VERSION = re.compile(r"\d+(\.\d+)*([a-z]+\d*)?(\+\w+)?")


class Finding(NamedTuple):
    """One thing that is wrong with a bundle (``severity`` ``error``) or could be better (``advice``)."""

    check: str
    where: str
    problem: str
    severity: str = "error"


Check = Callable[[Path], Iterator[Finding]]


def merged(configuration: Configuration) -> dict[str, Any]:
    """The configuration's files merged as MONAI merges them."""
    from monai.bundle import ConfigParser

    try:
        return dict(ConfigParser.load_config_files([str(f) for f in configuration.files]))
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise ConfigError(
            f"the files do not merge: {error}",
            where=" + ".join(f.name for f in configuration.files),
            hint="an overlay may only name keys whose parent exists in the file that it overlays",
        ) from error


def check_directory(folder: Path) -> Iterator[Finding]:
    """Files that must and should be there, and what must not."""
    for name in REQUIRED + PREFERRED:
        if not (folder / name).is_file():
            yield Finding("directory", name, "missing", "error" if name in REQUIRED else "advice")
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
            yield Finding("directory", name, "a link that leads out of the bundle")
        elif name == "scripts":
            yield Finding("directory", name, "a 'scripts' package collides with other bundles in one process")
        elif path.suffix == ".pt" and path.parent.name == "models" and path.name != "model.pt":
            yield Finding("directory", name, "only model.pt may end in .pt (MONAI Label would serve the others)")
        elif path.suffix == SUFFIX and path.with_suffix("").is_file():
            try:
                verify(path.with_suffix(""))
            except WeightError as error:
                yield Finding("directory", name.removesuffix(SUFFIX), error.problem)


def check_documents(folder: Path) -> Iterator[Finding]:
    """``docs/README.md`` has the sections of the zoo's template."""
    path = folder / "docs" / "README.md"
    for section in missing_sections(path.read_text(encoding="utf-8")) if path.is_file() else ():
        yield Finding("documents", "docs/README.md", f"has no section {section!r}")


def check_vendored(folder: Path) -> Iterator[Finding]:
    """The code of a packed bundle is what the packer wrote, and nothing names the repository's."""
    if not (folder / VENDORED).exists():
        return
    verify_vendored(folder)
    for line in leftovers(folder):
        yield Finding("vendored", line.split(": ")[0], "refers to code that is not in the folder")


def check_metadata(folder: Path) -> Iterator[Finding]:
    """The zoo's schema, versions, changelog, format words and channel definitions."""
    import jsonschema

    meta = read_json(folder / "configs" / "metadata.json")
    validator = jsonschema.Draft201909Validator(read_json(SCHEMA))
    for error in validator.iter_errors(meta):
        yield Finding("metadata", "::".join(map(str, error.path)) or "metadata.json", error.message)
    if not str(meta.get("schema", "")).endswith(SCHEMA.name):
        yield Finding("metadata", "schema", f"expected a URL of {SCHEMA.name}")
    changelog = meta.get("changelog", {})
    if not isinstance(changelog, dict) or str(meta.get("version")) not in changelog:
        yield Finding("metadata", "changelog", f"says nothing of version {meta.get('version')!r}")
    try:
        check_metadata_text(meta)
    except ConfigError as error:
        yield Finding("metadata", str(error.where), f"{error.problem}: {error.got}")
    named = [meta.get(f"{kind}_packages_version", {}) for kind in ("required", "optional")]
    packages = {name: version for part in named if isinstance(part, dict) for name, version in part.items()}
    packages |= {k: meta.get(k) for k in ("monai_version", "pytorch_version", "numpy_version")}
    for name, version in packages.items():
        if not VERSION.fullmatch(str(version)):
            yield Finding("metadata", name, f"not one exact version: {version!r}")
    for key, part in meta.items():
        if key.endswith("_data_format") and isinstance(part, dict):
            yield from _tensors(key, part)


def _tensors(key: str, part: dict[str, Any]) -> Iterator[Finding]:
    sides = [(s, part.get(s, {})) for s in ("inputs", "outputs")]
    for side, name, tensor in (
        (s, n, t)
        for s, tensors in sides
        if isinstance(tensors, dict)
        for n, t in tensors.items()
        if isinstance(t, dict)
    ):
        where = f"{key}::{side}::{name}"
        channels, names = tensor.get("num_channels"), tensor.get("channel_def", {})
        if not isinstance(names, dict) or (names and not _numbered(names, channels)):
            count = f"names {len(names)} channels" if isinstance(names, dict) else f"is {names!r}"
            yield Finding("metadata", where, f"channel_def {count}, num_channels is {channels!r}")
        if not isinstance(tensor.get("format"), str) or tensor["format"] not in FORMATS:
            yield Finding("metadata", where, f"unknown format {tensor.get('format')!r}", "advice")
        if tensor.get("format") == "segmentation" and channels != 1:
            yield Finding("metadata", where, "format 'segmentation' has one channel; several are 'labels'")


def _numbered(names: dict[str, Any], channels: Any) -> bool:
    """Whether the keys are 0, 1, ... to the number of channels."""
    return type(channels) is int and len(names) == channels and all(str(i) in names for i in range(channels))


def check_strings(folder: Path) -> Iterator[Finding]:
    """No ``#`` (MONAI turns it into ``::`` everywhere), no macros, in any file."""
    for path in sorted((folder / "configs").glob("*.json")):
        for where, value in walk(read_json(path)):
            if "#" in where.split("::")[-1] or (isinstance(value, str) and "#" in value):
                yield Finding("strings", f"{path.name}: {where}", "'#' is rewritten to '::' by MONAI; write '::'")
            elif isinstance(value, str) and value.startswith("%"):
                yield Finding("strings", f"{path.name}: {where}", "a macro's path depends on the working directory")


def statements(content: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """``(id, text)`` of every ``$`` expression: the code that running the bundle would execute."""
    for where, value in walk(content):
        if isinstance(value, str) and value.startswith("$"):
            yield where, value


def check_configurations(folder: Path) -> Iterator[Finding]:
    """Expressions, references and targets of every configuration; what a base has is not repeated per overlay."""
    known: dict[Path, set[tuple[str, str, str]]] = {}
    for configuration in configurations(folder):
        content = merged(configuration)
        base = known.get(configuration.files[0], set())
        found = {
            (check, where, problem): severity
            for check, rule in RULES.items()
            for where, problem, severity in rule(content, folder)
        }
        known.setdefault(configuration.files[0], set(found))
        for (check, where, problem), severity in found.items():
            if (check, where, problem) not in base:
                yield Finding(check, f"{configuration.name}: {where}", problem, severity)


def expressions(content: dict[str, Any], folder: Path) -> Iterator[tuple[str, str, str]]:
    """Every ``$`` expression is valid Python, without lambdas; there is no ``initialize``."""
    from monai.bundle import ConfigExpression
    from monai.bundle.reference_resolver import ReferenceResolver

    if "initialize" in content:
        yield "initialize", "runs before the bundle can be imported; make it the first items of 'run'", "error"
    for where, text in statements(content):
        try:
            tree = ast.parse(ReferenceResolver.id_matcher.sub("_reference_", text[1:]).strip())
        except SyntaxError as error:
            yield where, f"not valid Python: {error.msg}: {text}", "error"
            continue
        if any(isinstance(node, ast.Lambda) for node in ast.walk(tree)):
            yield where, "a lambda cannot be sent to worker processes", "error"
        try:
            ConfigExpression.is_import_statement(text)
        except SyntaxError:
            yield where, f"MONAI cannot parse an import beside a reference, give the import an id: {text}", "error"


def references(content: dict[str, Any], folder: Path) -> Iterator[tuple[str, str, str]]:
    """Every ``@id`` exists."""
    from monai.bundle import ConfigParser
    from monai.bundle.reference_resolver import ReferenceResolver

    if any(isinstance(value, str) and value.startswith("%") for _, value in walk(content)):
        return  # macros read other files; the check of strings refuses them
    parser = ConfigParser(content)
    parser.resolve_macro_and_relative_ids()
    for where, value in walk(parser.get()):
        if not isinstance(value, str):
            continue
        for name in sorted(i.lstrip("@") for i in ReferenceResolver.match_refs_pattern(value)):
            if name.startswith("_meta_"):
                yield where, "MONAI Label does not read the metadata; put the value into the configuration", "error"
            elif name not in parser:
                yield where, f"nothing is called @{name}", "error"


def targets(content: dict[str, Any], folder: Path) -> Iterator[tuple[str, str, str]]:
    """Every ``_target_`` exists and takes the arguments that it is given; nothing is built."""
    for where, value in walk(content):
        if isinstance(value, dict) and isinstance(value.get("_target_"), str):
            for severity, problem in _target(value, folder):
                yield where, problem, severity


@functools.cache
def _locator() -> Any:
    from monai.bundle import ComponentLocator

    return ComponentLocator()


def _target(component: dict[str, Any], folder: Path) -> Iterator[tuple[str, str]]:
    name = component["_target_"]
    if name.startswith(("$", "@")):
        return
    root = name.split(".")[0]
    if root in CAPABLE:
        yield "advice", f"{name} can do anything on the machine; read it before you run the bundle"
    try:
        signature = _signature(name, folder)
    except NotFoundError as error:
        yield "error", str(error)
        return
    bind = signature.bind_partial if component.get("_mode_") == "callable" else signature.bind
    try:
        bind(**{k: v for k, v in component.items() if k not in NOT_ARGUMENTS})
    except TypeError as error:
        yield "error", f"{name}: {error}"


def _signature(name: str, folder: Path) -> inspect.Signature:
    """Of a component; the bundle's own code is read, only well-known installed libraries are imported."""
    root = name.split(".")[0]
    if "." in name and ((folder / root).is_dir() or (folder / f"{root}.py").is_file()):
        return signature_of(name, folder)
    if "." not in name:
        with libraries_only():
            module = _locator().get_component_module_name(name)
        name = f"{module[0] if isinstance(module, list) else module}.{name}" if module else f"builtins.{name}"
    return library_signature(name, signature_of)


def properties(content: dict[str, Any], folder: Path) -> Iterator[tuple[str, str, str]]:
    """What MONAI's workflows look up exists, and is used by its own name: ``check_properties`` without building."""
    from monai.bundle import ConfigParser
    from monai.bundle.properties import InferProperties, TrainProperties

    parser: Any = ConfigParser(content)
    packed = (folder / VENDORED).exists()
    wanted: Any = TrainProperties if "train" in content else InferProperties
    for rule in wanted.values():
        name, used = str(rule["id"]), str(rule.get("refer_id") or "")
        if rule["required"] and name not in parser:
            yield name, "MONAI's workflows ask for it", "error"
        elif packed and "::" in used and parser.get(used) is not None:
            value = parser.get(used)
            if not isinstance(value, str) or not (value.startswith("$") or value == f"@{name}"):
                yield used, f"expected '@{name}' or an expression", "error"
    if packed and any(isinstance(h, str) for h in parser.get("train::handlers", ())):
        yield "train::handlers", "MONAI expects components in this list", "error"


RULES = {"expressions": expressions, "references": references, "targets": targets, "properties": properties}
CHECKS: tuple[Check, ...] = (
    check_directory, check_documents, check_vendored, check_metadata, check_strings, check_configurations
)  # fmt: skip


def check_bundle(folder: Path) -> list[Finding]:
    """All findings; a file that cannot be read is one finding and does not hide the others."""
    findings: list[Finding] = []
    for check in CHECKS:
        try:
            findings.extend(check(folder))
        except (ConfigError, WeightError) as error:
            where = str(error.where or folder)
            findings.append(Finding(check.__name__.removeprefix("check_"), where, error.problem))
        except Exception as error:  # of a value of another kind than the check reads
            problem = f"cannot be checked: {type(error).__name__}: {error!s:.200}"
            findings.append(Finding(check.__name__.removeprefix("check_"), str(folder), problem))
    return list(dict.fromkeys(findings))
