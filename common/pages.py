"""HTML pages from Jinja2 templates: what is put into a template is text, it cannot become markup.

A template (``<name>.html.j2`` beside the module that fills it) holds the words and elements of a page, Python what they
are filled with. Drawings are made of coordinates, which belong into Python: they are trees of elements (:func:`shape`)
that a template writes out with ``drawn``, through the same door as everything else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from jinja2 import Environment, FileSystemLoader, StrictUndefined

__all__ = ["shape", "templates"]

_DRAWN = """
{%- macro drawn(one) -%}
{%- if one is not none -%}
<{{ one.tag }}{{ one.attrib|xmlattr }}>{{ one.text or "" }}
{%- for part in one %}{{ drawn(part) }}{% endfor -%}
</{{ one.tag }}>
{%- endif -%}
{%- endmacro %}"""


def templates(folder: Path, **filters: Any) -> Environment:
    """The templates of a folder; values are escaped, and one that is missing is an error.

    Beside Jinja2's own filters there are ``number`` (``0.5|number(".3f")``, Python's format) and ``drawn``, which
    writes out a :func:`shape`.

    Args:
        folder: of the templates, and of the styles and scripts that they include.
        filters: further functions by the names that templates call.
    """
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    drawn = environment.from_string(_DRAWN).module
    environment.filters |= {"number": format, "drawn": vars(drawn)["drawn"], **filters}
    return environment


def shape(tag: str, attributes: Mapping[str, object], words: str = "", parts: Iterable[Element] = ()) -> Element:
    """An element of a drawing: attributes as given, words, then further elements inside."""
    made = Element(tag, {name: str(value) for name, value in attributes.items()})
    made.text = words
    made.extend(parts)
    return made
