"""What was found in the files of a data set, remembered beside the prepared volumes: a start reads none again."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...atomic import atomic_write
from ...errors import AmalgamationError, DataError
from ...plain_json import parse, read_object
from .chain import digest
from .owned import FACTS
from .place import Store

__all__ = ["remembered"]


def remembered(
    store: Store | None,
    question: Mapping[str, Any],
    items: Sequence[Mapping[str, Any]],
    make: Callable[[], dict[str, Any]],
    keys: Sequence[str] = ("image", "label"),
) -> dict[str, Any]:
    """The answer to a question about files; found once for their content.

    Args:
        store: where it is kept; None finds it each time.
        question: plain values that say what is asked, and in which way.
        items: the cases that are asked about.
        make: finds the answer, plain values.
        keys: entries of the items that hold paths.
    """
    if store is None:
        return make()
    sources = store.sources()
    contents = [{k: v for k, v in sources.content(i, keys).items() if k in keys} for i in items]
    sources.save()
    name = f"{digest([dict(question), contents])}.json"
    for place in store.readable:
        with contextlib.suppress(AmalgamationError, KeyError, TypeError, ValueError):
            found = read_object(place / FACTS / name, error=DataError)
            if found.get("question") == parse(json.dumps(dict(question)), error=DataError):
                return dict(found["answer"])
    answer = make()
    # a memory that cannot be kept is no reason to stop
    with contextlib.suppress(OSError, AmalgamationError), atomic_write(store.writable() / FACTS / name) as temporary:
        temporary.write_text(json.dumps({"question": dict(question), "answer": answer}), encoding="utf-8")
    return answer
