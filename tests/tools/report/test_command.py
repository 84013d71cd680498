"""The report: one file, true to the tables, quiet about nothing that is missing.

Also the test of ``tools.report.cells``, ``tools.report.diagram``, ``tools.report.frame``, ``tools.report.gallery``,
``tools.report.markdown``.
"""

import html.parser
import json
import math
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from common.engine.evaluation.score_summary import read_case_csv
from common.errors import ConfigError, DataError
from tools.report.command import report
from tools.report.figures import ticks
from tools.report.numbers import Stat, best, difference, statistic, variant_keys
from tools.report.page import render
from tools.report.results import read_study
from tools.report.sections import finding

VOID = {"meta", "img", "br"}
ROOT = Path(__file__).resolve().parents[3]


class Checker(html.parser.HTMLParser):
    """Counts open tags and collects everything that would be fetched."""

    def __init__(self):
        super().__init__()
        self.open, self.links, self.ids, self.anchors = [], [], [], []

    def handle_startendtag(self, tag, attrs):
        """An element that closes itself."""

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.links += [v for k, v in attrs.items() if k in ("src", "href") and v]
        self.ids += [attrs["id"]] if "id" in attrs else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, (tag, self.open[-3:])
        self.open.pop()


def check(file):
    text = file.read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    assert len(set(checker.ids)) == len(checker.ids)
    for link in checker.links:
        assert link.startswith(("data:", "#")), link
        assert not link.startswith("#") or link[1:] in checker.ids
    assert "http://" not in text and "https://" not in text and "@import" not in text and "url(" not in text
    shown = re.sub(r'data:image/webp;base64,[^"]*', "", text.rpartition("<script>")[0])
    assert not re.search(r"\b(nan|None)\b", shown)
    return text


def test_chain_page_is_complete_and_self_contained(full_chain, tmp_path):
    file = report(str(full_chain), out=str(tmp_path / "page.html"))
    text = check(tmp_path / "page.html")
    assert file == str(tmp_path / "page.html")
    for words in ("4 experts, one student", "left atrium", "tumour", "HD95", "Some CPU", "a71775d", "task-agnostic"):
        assert words in text, words
    assert "Attention from the student to the CT expert" in text
    assert text.count("<figure") == 4 * 6 + 3 * 2 + 1
    assert "not finished" not in text
    assert "prefers-color-scheme: dark" in text


def test_numbers_on_the_page_are_the_tables_numbers(full_chain, tmp_path):
    report(str(full_chain), out=str(tmp_path))
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    seeds = [read_case_csv(full_chain / f"amalgamated/seed{s}/evaluation/cases.csv") for s in (0, 1)]
    pairs = {}
    for rows in seeds:
        for r in rows:
            pairs.setdefault((r["task"], r["structure"]), []).append(r["dice"])
    expected = np.mean([np.mean(v) for v in pairs.values()])
    assert f'<div class="big">{expected:.3f}</div>' in text
    liver = np.mean(pairs["phantom_ct", "liver"])
    assert f">{liver:.3f}</b>" in text


def test_markdown_tables_have_the_pages_numbers(full_chain, tmp_path):
    report(str(full_chain), out=str(tmp_path))
    text = (tmp_path / "tables.md").read_text(encoding="utf-8")
    assert "- Command: `python -m tools chain run ka2er" in text and "- Commit: a71775d" in text
    dice, hd95 = ([line.split(" | ") for line in part.splitlines() if " | " in line] for part in text.split("**HD95"))
    assert [len(line) for line in dice + hd95] == [7] * len(dice + hd95)
    rows = [r for s in (0, 1) for r in read_case_csv(full_chain / f"alone/seed{s}/evaluation/cases.csv")]
    own = [r for r in rows if (r["task"], r["structure"]) == ("phantom_ct", "liver")]
    for part, measure, digits in ((dice, "dice", 3), (hd95, "hd95", 1)):
        line = next(line for line in part if line[0] == "| phantom_ct" and line[1] == "liver")
        assert line[4].strip("*").startswith(f"{np.mean([r[measure] for r in own]):.{digits}f} [")
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert dice[-1][1] == "mean over structures" and f'"big">{dice[-1][5].strip("*").split()[0]}<' in page


def test_a_name_stays_inside_its_cell(make_chain, tmp_path):
    chain = make_chain(tmp_path / "c", cases=2, pictures=False)
    for path in chain.rglob("cases.csv"):
        path.write_text(path.read_text().replace("liver", "liver|<b>"))
    report(str(chain), out=str(tmp_path))
    text = (tmp_path / "tables.md").read_text(encoding="utf-8")
    assert "liver\\|&lt;b>" in text and "<b>" not in text


def test_paired_difference_is_the_mean_of_paired_means():
    rng = np.random.default_rng(0)
    keys = [("t", f"c{c}", s) for c in range(5) for s in ("a", "b")]
    first, second = ({k: rng.random() for k in keys} for _ in range(2))
    del second["t", "c0", "a"]
    gap = difference(first, second)
    naive = [np.mean([first[k] - second[k] for k in second if k[2] == s]) for s in ("a", "b")]
    assert gap.mean == pytest.approx(np.mean(naive)) and gap.low <= gap.mean <= gap.high and gap.n == 5
    assert statistic({}).n == 0


def test_best_is_lowest_for_distances_and_nobody_when_tied():
    stats = {"a": Stat(1.0, 0, 2, 3), "b": Stat(2.0, 1, 3, 3), "c": Stat(math.nan, math.nan, math.nan, 0)}
    assert best(stats, "dice") == "b" and best(stats, "hd95") == "a"
    assert best({"a": stats["a"], "b": stats["a"]}, "dice") is None
    assert best({"a": stats["a"], "c": stats["c"]}, "dice") is None


def lead(chain):
    page = render(read_study([chain]))
    return " ".join(re.search(r'<p class="lead">(.*?)</p>', page, re.DOTALL)[1].split())


def test_finding_is_neutral(make_chain, tmp_path):
    chain = make_chain(tmp_path / "c", cases=4, pictures=False)
    said = lead(chain)
    assert "the interval excludes zero" in said and "18" not in said.split(":")[0]
    source = chain / "amalgamated/seed0/evaluation/cases.csv"
    for seed in (0, 1):
        target = chain / f"alone/seed{seed}/evaluation/cases.csv"
        target.write_bytes((chain / f"amalgamated/seed{seed}/evaluation/cases.csv").read_bytes())
    assert source.is_file()
    said = lead(chain)
    assert "+0.000" in said and "the interval includes zero" in said
    assert finding([]) is None


def test_unfinished_chain_says_so(make_chain, tmp_path):
    chain = make_chain(tmp_path / "c", cases=3, pictures=False, finished=False)
    report(str(chain))
    text = check(chain / "report" / "index.html")
    assert "not finished" in text and "(running)" in text


def test_chain_with_nothing_done_yet(make_chain, tmp_path):
    chain = make_chain(tmp_path / "c", cases=3, pictures=False)
    record = json.loads((chain / "chain.json").read_text())
    for step in record["steps"]:
        step.update(status="pending", seconds=None, output_dir="none/" + step["id"].replace(":", "_"))
    (chain / "chain.json").write_text(json.dumps(record))
    report(str(chain))
    assert "Nothing has been evaluated yet." in check(chain / "report" / "index.html")


def test_single_runs_are_compared(full_chain, tmp_path):
    report(str(full_chain / "alone/seed0"), str(full_chain / "amalgamated/seed0"), out=str(tmp_path), title="Two & two")
    text = check(tmp_path / "index.html")
    assert "<h1>Two &amp; two</h1>" in text and "seed0" in text
    report(str(full_chain / "amalgamated/seed1"), out=str(tmp_path / "one"))
    check(tmp_path / "one" / "index.html")


def test_names_from_files_cannot_become_markup(make_chain, tmp_path):
    chain = make_chain(tmp_path / "c", cases=2, pictures=False)
    for path in chain.rglob("cases.csv"):
        path.write_text(path.read_text().replace("liver", "<script>alert(1)</script>"))
    report(str(chain))
    text = check(chain / "report" / "index.html")
    assert "<script>alert" not in text and "&lt;script&gt;alert(1)" in text


def test_data_are_for_one_comparison_alone(make_chain, tmp_path):
    chain = make_chain(tmp_path / "c", cases=3, pictures=False)
    with pytest.raises(ConfigError, match=r"(?s)only a comparison's page takes the data.*leave --dataset_dir out"):
        report(str(chain), dataset_dir="data/phantom")
    assert not (chain / "report").exists()


def test_refuses_what_is_no_run(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        report(str(tmp_path / "none"))
    with pytest.raises(DataError, match="holds no run"):
        report(str(tmp_path))
    (tmp_path / "chain.json").write_text("{")
    with pytest.raises(DataError, match=r"(?s)chain\.json.*cannot be read"):
        report(str(tmp_path))


def test_overlays_outside_the_folder_are_not_followed(make_chain, tmp_path):
    chain = make_chain(tmp_path / "c", cases=2, seeds=(0,))
    folder = chain / "amalgamated/seed0/evaluation/overlays"
    (chain / "secret.png").write_bytes(b"secret")
    entry = {"file": "../../../../secret.png", "kind": "best", "case": "a", "structure": "b", "dice": 1}
    (folder / "overlays.json").write_text(json.dumps([entry]))
    study = read_study([chain])
    assert next(r for r in study.runs if r.id == "amalgamated:seed0").overlays == []


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.73, 0.94), (-3.0, 250.0), (0.5, 0.5), (1e-5, 3e-5)])
def test_ticks_are_round_and_inside(low, high):
    found = ticks(low, high)
    assert found and all(low - 1e-9 <= t <= high + 1e-9 for t in found) and len(found) <= 12


@pytest.mark.parametrize("recipe", sorted((ROOT / "bundles").glob("*/configs/chain.json")), ids=lambda p: p.parts[-3])
def test_what_the_diagram_says_fits_its_boxes(recipe):
    words = json.loads(recipe.read_text(encoding="utf-8")).get("words", {})
    assert all(len(line) <= 26 for line in words.get("hub", ()))
    assert all(len(words.get(f"note_{key}", "")) <= 30 for key in ("amalgamated", "alone"))


def test_every_optional_run_has_a_colour_of_its_own():
    runs = [SimpleNamespace(variant=f"v{i}") for i in range(13)]
    keys = variant_keys(SimpleNamespace(kind=lambda _: runs))
    assert len(set(keys.values())) == 13
    style = (ROOT / "tools" / "report" / "style.css").read_text(encoding="utf-8")
    colours = dict(re.findall(r"--(\w+): (#\w+);", style[: style.index("}")]))
    own = [colours[k] for k in (*keys.values(), "amalgamated", "alone", "expert")]
    assert len(set(own)) == len(own) == 16
