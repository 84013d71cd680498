"""Templates: values are text wherever they stand, and one that is missing is an error."""

from pathlib import Path
from xml.etree import ElementTree

import pytest
from jinja2 import UndefinedError

from common.pages import shape, templates

NASTY = """</b><script>alert("1" & '2')</script>"""


def written(folder: Path, template: str, **values: object) -> str:
    (folder / "page.html.j2").write_text(template, encoding="utf-8")
    return templates(folder, loud=str.upper).get_template("page.html.j2").render(**values)


def test_values_stay_text_in_elements_attributes_and_json(tmp_path: Path) -> None:
    page = written(tmp_path, '<b title="{{ x }}">{{ x }}</b><script>{{ {"x": x}|tojson }}</script>', x=NASTY)
    assert page.count("<script>") == page.count("</script>") == 1 and page.count("</b>") == 1
    root = ElementTree.fromstring(f"<p>{page.partition('<script>')[0]}</p>")
    assert root[0].text == root[0].attrib["title"] == NASTY


def test_what_is_missing_is_no_empty_place(tmp_path: Path) -> None:
    for template in ("{{ x }}", "{% if x %}{% endif %}", "{{ y.x }}"):
        with pytest.raises(UndefinedError, match="x"):
            written(tmp_path, template, y="")


def test_filters(tmp_path: Path) -> None:
    assert written(tmp_path, '{{ 0.12345|number(".3f") }} {{ 2.0|number("g") }} {{ "a"|loud }}') == "0.123 2 A"


def test_drawings_are_what_elementtree_writes(tmp_path: Path) -> None:
    dot = shape("circle", {"r": 0.5}, parts=[shape("title", {}, NASTY)])
    drawing = shape("svg", {"viewBox": "0 0 1 1", "aria-label": NASTY}, parts=[dot])
    page = written(tmp_path, "{{ x|drawn }}", x=drawing)
    assert page == page.strip() and page.count("<") == 6
    again, expected = (ElementTree.fromstring(x) for x in (page, ElementTree.tostring(drawing, encoding="unicode")))
    assert ElementTree.canonicalize(ElementTree.tostring(again)) == ElementTree.canonicalize(
        ElementTree.tostring(expected)
    )
