"""What lies in a run's folder is text from anywhere: no page runs it, no report follows it out of the folder."""

import copy
import html.parser
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from common.errors import AmalgamationError, CheckpointError, DataError
from tests.tools.report.made_comparison import write_comparison
from tools.chain.record import Record
from tools.chain.text import status_text
from tools.report import numbers
from tools.report.command import comparison_report, report
from tools.report.comparison import read_comparison
from tools.report.results import read_study
from tools.report.volumes import _answer
from tools.run_files import CHAIN, check_record

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
MARK = "x\"'><script>alert(1)</script><b onx=1>"
KEPT = ("id", "kind", "output_dir", "file", "subject", "bundle", "run", "dataset_dir", "split", "experts", "task")
WRONG = (None, 5, "x", [None], {"a": 1}, 10**400)


class Tags(html.parser.HTMLParser):
    """Counts elements and what they would do."""

    def __init__(self, text):
        super().__init__()
        self.scripts, self.active = 0, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.scripts += tag == "script"
        self.active += [name for name, _ in attrs if name.startswith("on")]


def marked(value, key=""):
    """The value with every text that is not an identity made hostile."""
    if isinstance(value, dict):
        return {k: v if k in KEPT else marked(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [marked(v, key) for v in value]
    return value + MARK if isinstance(value, str) else value


def mark_folder(folder):
    for path in [*folder.rglob("*.json"), *folder.rglob("cases.csv")]:
        text = path.read_text()
        if path.suffix == ".json":
            path.write_text(json.dumps(marked(json.loads(text))))
        else:
            hostile = MARK.replace('"', '""')
            path.write_text(text.replace("liver", f'"liver{hostile}"').replace("case_0", f'"case_0{hostile}"'))


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Intervals of few samples: what is tested is not the figures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(numbers.BOOTSTRAP, "n_boot", 2)
        yield


@pytest.fixture
def chain(small, tmp_path):
    return Path(shutil.copytree(small, tmp_path / "chain"))


def test_no_text_of_a_chain_becomes_markup(chain, tmp_path):
    clean = Tags(Path(report(str(chain), out=str(tmp_path / "clean"))).read_text())
    mark_folder(chain)
    edit(chain / "chain.json", lambda c: c["steps"][0].update(status=f"failed{MARK}"))
    text = Path(report(str(chain), out=str(tmp_path / "page"), title=MARK)).read_text()
    found = Tags(text)
    assert found.scripts == clean.scripts and not found.active
    assert "&lt;script&gt;alert(1)" in text
    assert f'"pill">worst{MARK[0]}' in text or "worst" in text


def test_no_text_of_a_comparison_becomes_markup(tmp_path):
    folder = write_comparison(tmp_path, cases=2)
    clean = Tags(Path(comparison_report(folder, out=tmp_path / "clean")).read_text())
    mark_folder(folder)
    text = Path(comparison_report(folder, out=tmp_path / "page", title=MARK)).read_text()
    assert not Tags(text).active
    assert Tags(text).scripts <= clean.scripts and text.count("<script") == text.count("</script>")


def test_an_overlays_kind_is_text(chain, tmp_path):
    for path in chain.rglob("overlays.json"):
        edit(path, lambda listing: [e.update(kind="<img src=x onerror=alert(1)>") for e in listing])
    text = Path(report(str(chain), out=str(tmp_path))).read_text()
    assert "<img src=x" not in text and "&lt;img src=x onerror" in text


@pytest.mark.parametrize("place", ["../private", "/absolute", "experts/../../private", "link", "a\0b", "x" * 5000])
def test_a_chain_names_only_places_inside_its_folder(chain, tmp_path, place):
    private = tmp_path / "private"
    shutil.copytree(chain / "experts" / "phantom_ct", private)
    (chain / "link").symlink_to(private)
    place = place.replace("/absolute", str(private))
    for number in (0, 1):
        edit(chain / "chain.json", lambda c, n=number: c["steps"][n].update(output_dir=place, status="done"))
        with pytest.raises(DataError, match=r"steps\[0\]\.output_dir"):
            report(str(chain), out=str(tmp_path / "page"))
        with pytest.raises(DataError, match=r"steps\[0\]\.output_dir"):
            status_text(Record.read(chain))
    assert not (tmp_path / "page").exists()


def test_a_picture_that_is_a_link_out_of_the_folder_is_refused(chain, tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "private.png")
    (chain / "amalgamated/seed0/pictures/z.png").symlink_to(tmp_path / "private.png")
    with pytest.raises(DataError, match=r"z\.png"):
        read_study([chain])


@pytest.mark.parametrize("bundle", ["../elsewhere", "/elsewhere"])
def test_a_comparison_names_only_chains_inside_its_folder(tmp_path, bundle):
    folder = write_comparison(tmp_path, cases=2)
    shutil.copytree(folder / "one", tmp_path / "elsewhere")
    target = bundle.replace("/elsewhere", str(tmp_path / "elsewhere")) if bundle[0] == "/" else bundle
    edit(folder / "compare.json", lambda c: c["members"][0].update(bundle=target))
    with pytest.raises(DataError, match="bundle"):
        read_comparison(folder)


def paths_of(value, trail=()):
    yield trail
    entries = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, inner in entries:
        yield from paths_of(inner, (*trail, key))


def with_value(content, trail, value):
    if not trail:
        return value
    made = copy.deepcopy(content)
    inner = made
    for key in trail[:-1]:
        inner = inner[key]
    inner[trail[-1]] = value
    return made


def spoilt(file, read):
    """Every value of the file replaced by each of a wrong kind: ``read`` takes it or refuses it with our error."""
    content = json.loads(file.read_text())
    if file.name == "summary.json":  # the figures themselves are not read
        content = {k: v for k, v in content.items() if k not in ("all", "tasks")} | {"labels": {"names": ["a"]}}
    refused = 0
    texts = [json.dumps(with_value(content, t, v)) for t in paths_of(content) for v in WRONG]
    for text in [*texts, "{", "[" * 100_000, '{"a": 1e999}', "\ufeff{}", "\ud800".encode("utf-8", "surrogatepass")]:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        try:
            read()
        except AmalgamationError as error:
            assert file.name in str(error) or "folder holds no run" in str(error), (text[:300], error)
            refused += 1
    assert refused
    file.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    from tests.tools.conftest import write_chain

    folder = write_chain(tmp_path_factory.mktemp("small") / "c", seeds=(0,), cases=1, epochs=2)
    record = json.loads((folder / "chain.json").read_text())
    keep = {"expert:phantom_ct", "evaluate:expert:phantom_ct", "amalgamated:seed0"}
    record["steps"] = [s for s in record["steps"] if s["id"] in keep]
    record["steps"][0] |= {"sha256": {"history.csv": "0"}}
    record["words"] = {"title": "A title", "hub": ["a", "b", "c"], "amalgamated": "Student"}
    record["tasks"] = {"phantom_ct": record["tasks"]["phantom_ct"]}
    (folder / "chain.json").write_text(json.dumps(record))
    return folder


@pytest.mark.parametrize("name", ["chain.json", "summary.json", "overlays.json", "captions.json"])
def test_a_wrong_value_is_refused_by_file_or_harmless(small, name):
    spoilt(
        sorted(p for p in small.rglob(name) if p.parent == small or "amalgamated" in p.parts)[0],
        lambda: read_study([small]),
    )


def test_chain_status_refuses_a_wrong_value(small):
    spoilt(small / "chain.json", lambda: status_text(Record.read(small)))
    (small / "chain.json").rename(small / "kept.json")
    (small / "chain.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError):
        Record.read(small)
    (small / "kept.json").replace(small / "chain.json")
    edit(small / "chain.json", lambda c: c["steps"][0].update(seconds="long"))
    with pytest.raises(DataError, match=r"steps\[0\]\.seconds"):
        status_text(Record.read(small))
    edit(small / "chain.json", lambda c: c["steps"][0].pop("seconds"))
    assert "0 s  Expert phantom_ct" in status_text(Record.read(small))


@pytest.mark.parametrize("name", ["compare.json", "training_costs.json", "costs.json"])
def test_a_wrong_value_of_a_comparison_is_refused_by_file_or_harmless(tmp_path, name):
    folder = write_comparison(tmp_path, cases=1)
    file = sorted(p for p in folder.rglob(name) if "experts" not in p.parts)[0]
    spoilt(file, lambda: read_comparison(folder))


def test_a_key_of_a_wrong_kind_is_named(small):
    edit(small / "chain.json", lambda c: c.update(packages={"torch": 5}))
    with pytest.raises(DataError, match=r"chain\.json: \$\.packages\.torch"):
        read_study([small])
    edit(small / "chain.json", lambda c: c.update(packages={}))


@pytest.mark.parametrize("content", [b"case,task\xe9\n", b"", b'case,"' + b"x" * 200_000 + b'"\n', b"case\n1\n"])
def test_a_table_that_cannot_be_read_is_refused(chain, content):
    file = chain / "experts/phantom_ct/evaluation/cases.csv"
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"cases\.csv"):
        read_study([chain])
    shutil.rmtree(chain / "experts/phantom_ct/evaluation")
    (chain / "experts/phantom_ct/history.csv").write_bytes(b"loss\n\xe9" if content else b"loss\n1e999\nnan\nx\n")
    if content:
        with pytest.raises(DataError, match=r"history\.csv"):
            read_study([chain])
    else:
        assert read_study([chain]).runs[0].history == [{"loss": None}] * 3


def test_a_score_beyond_all_measure_is_refused(chain):
    file = chain / "experts/phantom_ct/evaluation/cases.csv"
    head, first, *rest = file.read_text().splitlines()
    file.write_text("\n".join([head, first.rpartition(",")[0] + ",1e300", *rest]))
    with pytest.raises(DataError, match="is no score"):
        read_study([chain])


def test_a_broken_picture_is_left_out_with_a_word(chain, tmp_path):
    (chain / "amalgamated/seed0/pictures/task_attention.png").write_bytes(b"\x89PNG no picture")
    text = Path(report(str(chain), out=str(tmp_path / "page"))).read_text()
    assert "Left out: task_attention.png is no picture" in text


def test_the_viewer_takes_a_case_by_its_name(tmp_path):
    folder = write_comparison(tmp_path, cases=2)
    comparison = read_comparison(folder)
    member = comparison.members[0]
    from common.data.datasets.datalist import read_collection

    collection = read_collection(str(comparison.record["dataset_dir"]))
    place = member.model.runs[0].folder / "predictions" / "toy"
    own = _answer(member, collection, ("toy", "case_0"), 3)
    shutil.copy(place / "case_1.nii.gz", place / "case_0.a.nii.gz")
    assert (_answer(member, collection, ("toy", "case_0"), 3) == own).all()
    for row in member.model.runs[0].rows:
        row["case"] = "case_[0]"
    assert _answer(member, collection, ("toy", "case_[0]"), 3) is None
    (place / "case_0.nii.gz").rename(place / "case_[0].nii.gz")
    assert (_answer(member, collection, ("toy", "case_[0]"), 3) == own).all()


@pytest.mark.parametrize("recipe", sorted(BUNDLES.glob("*/configs/chain.json")), ids=lambda p: p.parts[-3])
def test_the_words_of_every_bundle_can_be_read_back(recipe):
    words = json.loads(recipe.read_text(encoding="utf-8")).get("words", {})
    check_record({"steps": [], "words": words}, CHAIN, recipe)
    with pytest.raises(DataError, match=r"words\.title"):
        check_record({"steps": [], "words": {**words, "title": " "}}, CHAIN, recipe)
