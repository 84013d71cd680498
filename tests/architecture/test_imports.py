"""The shape of the code: imports run downwards, no cycles, small files, plain names."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

from tests.architecture.tree import CODE, ROOT, imports, shown, sources

# A room imports from the rooms on its left, never from one on its right or behind the same bar.
# Packages that are not listed hold modules only: there the absence of cycles is the order.
ORDER = {
    "": "common | tools",
    "common": "errors intensity_range name_words overlap spacing_range whole_numbers | negations paths"
    " | vocabulary | modalities | wording"
    " | atomic channel_order command_words dicom_tags figure_text geometry pages plain_json plain_yaml prompts synonyms"
    " visible_output zips | channel_doubt contract_names integrity literals | bundle_words contract_form labels"
    " more_telling tables | card | overridden weights | contract | scan_fit | data"
    " | layers | backbones losses"
    " | engine experts | methods",
    "common.data": "dicom phantom pictures remarks survey_union volumes | io | datasets | samples store"
    " | intensity prompts requests transforms"
    " | slices | starts survey",
    "common.layers": "attention channel_norm frozen_features gating image_channels instance_norm lora memory_format"
    " pixel_decoder sam_adapters same_weights slice_by_slice window_mask | fusion",
    "common.backbones": "mae nnunet sam skresnet swin_unet swin_unetr | hsam sam2 sam3d",
    "common.experts": "bundle_config features frame kinds normalise profile script training_files trust windows"
    " | spec | fit regions sources tiles | claims | expert_set"
    " | answers describe ensemble export",
    "common.engine": "inference run | monitor | evaluation | interactive | training",
    "common.methods": "ic_moe ka2er m4oe sam_med3d_moe samora",
    "common.methods.samora": "base unchanged | stage_one stage_two",
    "tools": "bundle_files command_line phantom question run_files terminal workflow | bundle_describe report"
    " | data doctor export train weights | chain | compare evaluate predict | experts label | amalgamate bundle"
    " | bench | __main__",
    "common.data.datasets": "dataset_json organs spelling splits | convert_seg dataset pairs | datalist known_cases"
    " | naming part_labelled | described | convert_channels | convert verify_contents | fitting merge verify | subset",
    "common.data.store": "chain content layout quantised sources | entry | owned stacked | place | facts fill | cases",
    "common.backbones.nnunet": "calls description fingerprint folds form grid scripting streamed | allowed | network"
    " | kept planner widen | plan | collection recipe window | data",
    "tools.amalgamate": "contradictions given lessons pictures verdict | described form gather lesson_map measured |"
    " kept passes work | plan prepare scores training | answers beside forecast | page | command",
    "tools.report": "frame results significance viewer | gallery numbers | cells figures | diagram pair_figures"
    " sections | comparison markdown page | comparison_rows | comparison_files volumes | comparison_tables |"
    " comparison_page | command",
}
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "misc", "scripts", "common_utils"}


def rooms(parent: str) -> dict[str, int]:
    """Height of each room of a package."""
    return {room: height for height, level in enumerate(ORDER[parent].split(" | ")) for room in level.split()}


def upwards(path: Path, module: str) -> list[str]:
    """Every import of a file that does not run downwards, with both files."""
    found = []
    for name, _, line in imports(path, module):
        own, other = module.split("."), name.split(".")
        same = next((n for n, (a, b) in enumerate(zip(own, other, strict=False)) if a != b), None)
        if same is None or ".".join(own[:same]) not in ORDER:
            continue
        parent = ".".join(own[:same])
        height = rooms(parent)
        if height.get(other[same], -1) >= height.get(own[same], 99):
            target = shown(CODE[name]) if name in CODE else name
            found.append(
                f"{shown(path)}:{line} imports {target}, but {own[same]!r} does not stand above {other[same]!r}"
                f" in {parent or 'the repository'}: {ORDER[parent]}"
            )
    return found


@pytest.mark.parametrize("module", sorted(CODE))
def test_imports_run_downwards(module: str) -> None:
    wrong = upwards(CODE[module], module)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("parent", sorted(ORDER))
def test_every_room_has_its_place(parent: str) -> None:
    depth = len(parent.split(".")) if parent else 0
    there = {m.split(".")[depth] for m in CODE if m.startswith(parent and parent + ".") and m.count(".") >= depth}
    assert set(rooms(parent)) == there, f"say in ORDER where a new room of {parent or 'the repository'} stands"


def test_packages_of_packages_have_an_order() -> None:
    packages = {m for m, p in CODE.items() if p.name == "__init__.py"}
    assert {p.rpartition(".")[0] for p in packages} <= set(ORDER)
    assert set(ORDER) - {""} <= packages, "a package that is gone"


@pytest.mark.parametrize(
    "module, text, other",
    [
        ("common.data.io", "from .transforms.loading import LoadCased\n", "common/data/transforms/loading.py"),
        ("common.data.dicom.series", "from ..datasets import dataset\n", "common/data/datasets/dataset.py"),
        ("common.methods.samora.stage_two.network", "from ...m4oe.network import M4oE\n",
         "common/methods/m4oe/network.py"),
        ("common.engine.run.start", "def f():\n    from ...methods.ka2er.network import KA2ER\n",
         "common/methods/ka2er/network.py"),
        ("common.data.store.entry", "from .cases import x\n", "common/data/store/cases.py"),
        ("common.labels", "from tools.workflow import run\n", "tools/workflow.py"),
    ],
)  # fmt: skip
def test_an_import_upwards_is_found_and_both_files_are_named(module, text, other, tmp_path: Path) -> None:
    path = tmp_path / "made_up.py"
    path.write_text("from common.errors import ConfigError\n" + text)
    (wrong,) = upwards(path, module)
    assert re.search(r"made_up\.py:[23] ", wrong) and f"imports {other}," in wrong


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, empty when there is none."""
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        for name in () if module in done else sorted(graph.get(module, ())):
            if found := visit(name, (*path, module)):
                return found
        done.add(module)
        return []

    return next((found for module in sorted(graph) if (found := visit(module, ()))), [])


def test_no_import_cycle() -> None:
    found = cycle({m: {i.module for i in imports(p, m)} - {m} for m, p in CODE.items()})
    assert not found, "cycle: " + " -> ".join(shown(CODE[m]) for m in found)


def test_the_cycle_test_can_fail(tmp_path: Path) -> None:
    graph = {"a": {"b", "d"}, "b": {"c"}, "c": {"a"}, "d": set()}
    assert cycle(graph) == ["a", "b", "c", "a"]
    assert cycle({**graph, "c": {"d"}}) == []
    file = tmp_path / "a.py"
    file.write_text("from .io import x\nfrom . import pictures\nimport common.errors\nfrom common import labels\n")
    found = {i.module for i in imports(file, "common.data.a", everywhere=False)}
    assert found == {"common.data.io", "common.data.pictures", "common.errors", "common.labels"}


@pytest.mark.parametrize("path", sources("common", "tools"), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_files_stay_small_and_well_named(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= 350, f"{lines} lines; split it by idea"
    assert not {path.stem, path.parent.name} & FORBIDDEN_NAMES
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), "a module says in one sentence what it is"


@pytest.mark.parametrize("path", sources("common"), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_common_does_not_print(path: Path) -> None:
    calls = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)]
    assert not [c.lineno for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]


@pytest.mark.parametrize("path", sources("common"), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_objects_can_be_sent_to_workers(path: Path) -> None:
    """A lambda inside a class ends up on its objects, which then cannot be pickled (spawn); sort keys are fine."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    keys = {id(k.value) for n in ast.walk(tree) if isinstance(n, ast.Call) for k in n.keywords if k.arg == "key"}
    classes = [n for n in ast.walk(tree) if isinstance(n, ast.ClassDef)]
    assert not [n.lineno for c in classes for n in ast.walk(c) if isinstance(n, ast.Lambda) and id(n) not in keys]


def test_weights_are_never_unpickled_freely() -> None:
    pattern = re.compile(r"weights_only\s*=\s*False")
    assert not [str(p.relative_to(ROOT)) for p in sources("common", "tools") if pattern.search(p.read_text("utf-8"))]


def tracked() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_machine_paths() -> None:
    pattern = re.compile(r"(?<![\w.$}/])/(?:home|work|root|Users|mnt|scratch)/[A-Za-z]")
    text = {".py", ".json", ".md", ".cfg", ".toml", ".txt", ".yml", ".yaml", ".conf", ".sh", ""}
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in tracked()
        if path.suffix in text and path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="ignore").splitlines(), start=1)
        if pattern.search(line)
    ]
    assert not found


def test_nothing_large_is_tracked() -> None:
    large = [str(p.relative_to(ROOT)) for p in tracked() if p.stat().st_size > 1_000_000]
    assert not large


def test_bundles_hold_no_python() -> None:
    assert not [str(p) for p in (ROOT / "bundles").rglob("*.py")]


def test_top_level_is_fixed() -> None:
    allowed = {
        "bundles",
        "common",
        "tools",
        "tests",
        "README.md",
        "requirements.txt",
        "requirements-label.txt",
        "setup.cfg",
        "pyproject.toml",
    }
    allowed |= {"LICENSE", "Makefile", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"}
    allowed |= {".gitignore", ".pre-commit-config.yaml", ".ruff.toml", ".ci", ".github"}
    assert {p.relative_to(ROOT).parts[0] for p in tracked()} <= allowed
