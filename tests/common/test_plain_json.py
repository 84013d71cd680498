"""The reader of JSON objects, and that everybody uses it."""

import json

import pytest

from common import plain_json
from common.backbones.nnunet import network as nnunet
from common.card import ModelCard
from common.data.datasets.dataset_json import read_json
from common.data.prompts.targets import _read_json as read_prompts
from common.engine.monitor.gate_pictures import add_captions
from common.errors import AmalgamationError, DataError
from common.experts.spec import read_manifest
from common.labels import LabelSpace
from common.layers.lora.files import CONFIG, WEIGHTS, load_adapter
from common.literals import literal, value, write_literals
from common.plain_json import parse, parse_object, read_object
from tools.bundle_files import read_json as read_configuration
from tools.chain.record import Record
from tools.label.guard import _json
from tools.label.requests import RequestError
from tools.predict.prompt_options import given_prompts
from tools.run_files import CAPTIONS, read_record

DEEP = '{"a":' * 5000 + "1" + "}" * 5000
ODD = {
    "deep lists": "[" * 100_000,
    "deep objects": DEEP,
    "deep, closed": '{"a":' + "[" * 200 + "]" * 200 + "}",
    "twice": '{"a": 1, "b": {"c": 1, "c": 2}}',
    "list": "[]",
    "number": "5",
    "nothing": "",
    "half": '{"a": ',
    "digits": '{"a": ' + "9" * 5000 + "}",
}


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
def test_refuses(text, tmp_path):
    file = tmp_path / "x.json"
    file.write_text(text)
    with pytest.raises(DataError) as caught:
        read_object(file, error=DataError, problem="no reading", hint="do that")
    assert str(caught.value.where) == str(file) and caught.value.hint == "do that"
    assert caught.value.problem.startswith("no reading: ") and len(str(caught.value)) < 1000


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_numbers_that_are_none(number):
    with pytest.raises(DataError, match="it holds"):
        parse_object(f'{{"a": [{number}]}}', error=DataError)
    assert parse_object('{"a": 1e3}', error=DataError) == {"a": 1000.0}
    assert len(parse_object(f'{{"a": [{number}]}}', error=DataError, finite=False)["a"]) == 1


def test_byte_order_mark_and_encodings(tmp_path):
    file = tmp_path / "x.json"
    for content in ('{"ü": 1}'.encode(), '{"ü": 1}'.encode("utf-8-sig")):
        file.write_bytes(content)
        assert read_object(file, error=DataError) == {"ü": 1}
    assert parse_object('\ufeff{"a": 1}', error=DataError) == {"a": 1} and parse("[1]", error=DataError) == [1]
    for content in ('{"ü": 1}'.encode("latin-1"), '{"a": 1}'.encode("utf-16")):
        file.write_bytes(content)
        with pytest.raises(DataError, match="not valid JSON"):
            read_object(file, error=DataError)


def test_files_that_cannot_be_read(tmp_path, monkeypatch):
    for path in (tmp_path / "none.json", tmp_path, str(tmp_path / "a\0b"), tmp_path / ("x" * 5000)):
        with pytest.raises(DataError):
            read_object(path, error=DataError)
    (tmp_path / "large.json").write_text('{"a": "' + "x" * 100 + '"}')
    monkeypatch.setattr(plain_json, "LARGEST", 50)
    with pytest.raises(DataError, match="larger"):
        read_object(tmp_path / "large.json", error=DataError)


def adapter(file):
    (file.parent / CONFIG).write_bytes(file.read_bytes())
    (file.parent / WEIGHTS).touch()
    return load_adapter(None, "image", file.parent)


def chain(file):
    (file.parent / "chain.json").write_bytes(file.read_bytes())
    return Record.read(file.parent)


READERS = {
    "dataset": read_json,
    "card": lambda f: ModelCard.from_json(f.read_text(), where=f),
    "experts": read_manifest,
    "prompts": read_prompts,
    "prompt options": lambda f: given_prompts(prompts=f),
    "bundle": read_configuration,
    "chain": chain,
    "nnunet": nnunet.read_json,
    "adapter": adapter,
    "literal": lambda f: literal(str(f), "a"),
    "value": lambda f: value(f.read_text()),
    "run file": lambda f: read_record(f, CAPTIONS),
    "request": lambda f: _json(f.read_bytes()),
    "captions": lambda f: add_captions(f.rename(f.with_name("captions.json")).parent, {}),
}


@pytest.mark.parametrize("reader", READERS)
def test_everybody_reads_so(reader, tmp_path):
    file = tmp_path / "x.json"
    for text, problem in ((DEEP, "nested"), (ODD["twice"], "given twice")):
        file.write_text(text)
        match = "JSON without repeated keys" if reader == "request" else problem  # the label server has one answer
        with pytest.raises((AmalgamationError, RequestError), match=match):
            READERS[reader](file)


def test_our_own_records_may_hold_no_number(tmp_path):
    card = ModelCard(LabelSpace(("a",)), extra={"metric": float("nan")})
    assert ModelCard.from_json(card.to_json()).extra["metric"] != card.extra["metric"]
    write_literals(tmp_path / "l.json", {"a": [float("inf")]})
    assert literal(str(tmp_path / "l.json"), "a") == [float("inf")]
    assert json.loads(card.to_json())


def test_limits_have_two_sides(monkeypatch, tmp_path):
    deepest = plain_json.DEEPEST
    assert parse("[" * deepest + "]" * deepest, error=DataError)
    for text in ("[" * (deepest + 1) + "]" * (deepest + 1), '{"a":' * (deepest + 1) + "1" + "}" * (deepest + 1)):
        with pytest.raises(DataError, match=f"more than {deepest} levels"):
            parse(text, error=DataError)
    monkeypatch.setattr(plain_json, "LARGEST", 2**20)
    fits = '"' + "x" * (2**20 - 2) + '"'
    (tmp_path / "a.json").write_text(fits)
    assert (
        len(parse(fits, error=DataError))
        == 2**20 - 2
        == len(plain_json.read_plain(tmp_path / "a.json", error=DataError))
    )
    (tmp_path / "a.json").write_text(fits + " ")
    with pytest.raises(DataError, match="larger than 1 MiB"):
        plain_json.read_plain(tmp_path / "a.json", error=DataError)
    for text in ("[NaN]", "[-Infinity]", "[1e999]"):
        assert len(parse(text, error=DataError, finite=False)) == 1
        with pytest.raises(DataError, match=r"no number|too large"):
            parse(text, error=DataError)
    with pytest.raises(DataError, match=r"a key is given twice: 'a'(?!.*'b')"):
        parse('{"a": 1, "b": 2, "a": 3}', error=DataError)
