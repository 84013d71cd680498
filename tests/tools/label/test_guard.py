"""The gate in front of the label server, with a stand-in for the server."""

import asyncio
import errno
import json

import pytest

from tools.label.guard import Guard
from tools.label.requests import Offer

OFFER = Offer({"max_epochs": 50, "device": ["cpu"]}, ["liver"], ["a"])
OWN = {"host": "127.0.0.1:8000"}
RUN = "$__import__('os').system('touch /tmp/PWN')"


FAULTS = [
    (json.JSONDecodeError("x", "x", 0), "/datastore/image", 422), (json.JSONDecodeError("x", "x", 0), "/infer/a", 422),
    (TypeError("'str' object does not support item assignment"), "/datastore/image", 422),
    (KeyError("x"), "/session/a", 422), (OverflowError("too large"), "/logs/", 422),
    (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "no"), "/datastore/label", 422),
    (OSError(errno.ENAMETOOLONG, "File name too long"), "/datastore/image", 422),
    (OSError(errno.ENOSPC, "No space left"), "/datastore/image", None), (ValueError("level"), "/infer/a", 422),
    (RuntimeError("CUDA"), "/datastore/image", None), (ZeroDivisionError("x"), "/train/a", None),
]  # fmt: skip


class Server:
    """Answers 200 and remembers what it was told."""

    def __init__(self):
        self.body, self.asked = None, 0

    async def __call__(self, scope, receive, send):
        self.asked += 1
        message = await receive()
        self.body = message["body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def ask(path, method="POST", *, query="", headers=None, body=b"{}", address="127.0.0.1", parts=1):
    """Status, text, and the stand-in."""
    server, sent = Server(), []
    size = len(body) // parts + 1
    pieces = [body[i : i + size] for i in range(0, len(body), size)] or [b""]
    messages = [{"type": "http.request", "body": p, "more_body": i < len(pieces)} for i, p in enumerate(pieces, 1)]

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    head = [(k.encode(), v.encode()) for k, v in {**OWN, **(headers or {})}.items()]
    scope = {"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": head}
    asyncio.run(Guard(server, address=address, offers=lambda model: OFFER)(scope, receive, send))
    return sent[0]["status"], sent[-1].get("body", b"").decode(), server


@pytest.mark.parametrize(
    ("path", "method", "query"),
    [("/info/", "GET", ""), ("/infer/a", "POST", "image=/studies/a.nii.gz"),
     ("/datastore/label", "PUT", "image=a&tag=final"), ("/datastore/image", "GET", "image=$odd 1"),
     ("/session/1b-2c", "GET", ""), ("/train/a", "POST", ""),
     ("/batch/infer/a", "POST", "images=all"), ("/activelearning/random", "POST", ""), ("/ohif/index.html", "GET", ""),
     ("/session/", "PUT", "uncompress=false"), ("/model/a", "GET", "")],
)  # fmt: skip
def test_a_viewer_is_let_through(path, method, query):
    for headers in ({}, {"origin": "http://127.0.0.1:8000"}, {"origin": "http://localhost:3000"}):
        status, _, server = ask(path, method, query=query, headers=headers)
        assert status == 200 and server.asked == 1


@pytest.mark.parametrize(
    "headers",
    [{"origin": "http://evil.example"}, {"origin": "null"}, {"origin": "http://127.0.0.1.evil.example"},
     {"origin": "file://"}, {"origin": "http://evil.example:8000"}, {"host": "evil.example:8000"}, {"host": ""},
     {"sec-fetch-site": "cross-site"}],
)  # fmt: skip
def test_pages_from_elsewhere_are_refused(headers):
    status, words, server = ask("/infer/a", headers=headers)
    assert status == 403 and server.asked == 0 and "expected" in words


def test_a_link_from_elsewhere_still_opens_the_viewer():
    assert ask("/ohif/", "GET", headers={"sec-fetch-site": "cross-site"})[0] == 200


def test_a_server_for_others_knows_its_own_pages_alone():
    own = {"host": "scanner.ward:8000", "origin": "http://scanner.ward:8000"}
    assert ask("/infer/a", headers=own, address="0.0.0.0")[0] == 200
    for origin in ("http://evil.example", "http://localhost:3000"):
        assert ask("/infer/a", headers={**own, "origin": origin}, address="0.0.0.0")[0] == 403


@pytest.mark.parametrize(
    ("path", "method", "query"),
    [("/session/..", "DELETE", ""), ("/session/a b", "GET", ""), ("/ohif/../main.py", "GET", ""), ("/a\\b", "GET", ""),
     ("/infer/a", "POST", "session_id=../../x"), ("/datastore/image", "PUT", "image=../../x"),
     ("/datastore/image", "PUT", "image=%24x"), ("/datastore/image", "PUT", "image=a%23b"),
     ("/datastore/image", "GET", "image=../../etc/passwd"), ("/datastore/label", "PUT", "image=a&tag=../../x"),
     ("/datastore/label", "GET", "label=a&tag=/etc"), ("/datastore/image", "DELETE", "id=..%2Fx"),
     ("/datastore/label", "PUT", "image=a&tag=a%00"), ("/session/", "PUT", "uncompress=true"),
     ("/session/", "PUT", "uncompress=1"), ("/model/a", "PUT", ""), ("/model/a", "DELETE", ""),
     ("/model", "DELETE", ""), ("/model/", "DELETE", ""), ("//model/a", "DELETE", ""),
     ("/model/a", "POST", ""), ("/model/a", "PATCH", "")],
)  # fmt: skip
def test_addresses_that_lead_elsewhere_are_refused(path, method, query):
    status, _, server = ask(path, method, query=query)
    assert status == 422 and server.asked == 0


@pytest.mark.parametrize(
    ("path", "content"),
    [("/train/a", {"max_epochs": RUN}), ("/train/", {"a": {"max_epochs": RUN}}), ("/train/a", {"network_def": {}}),
     ("/batch/infer/a", {"overlap": RUN}), ("/batch/infer/a", {"images": ["../x"]}), ("/batch/infer/a", {"images": 3}),
     ("/scoring/dice", {"y": RUN}), ("/activelearning/random", {"label_tag": "../x"}),
     ("/activelearning/random", {"a": [RUN]}), ("/train/a", [1]),
     ("/train/a", "x")],
)  # fmt: skip
def test_hostile_tasks_are_refused(path, content):
    status, words, server = ask(path, body=json.dumps(content).encode())
    assert status == 422 and server.asked == 0 and "expected" in words


def test_a_body_arrives_as_it_was_sent():
    body = json.dumps({"max_epochs": 3, "device": ["cpu"]}).encode()
    for parts in (1, 3):
        status, _, server = ask("/train/a", body=body, parts=parts)
        assert status == 200 and server.body == body
    assert ask("/train/a", body=b"")[2].body == b""
    assert ask("/infer/a", body=b"no json")[2].body == b"no json"  # a form: the app judges it


@pytest.mark.parametrize(
    "body",
    [b"{", b"\xff", b" " * 5_000_000, b'{"max_epochs": 1, "max_epochs": "$x"}', b'{"max_epochs": NaN}',
     b'{"max_epochs": -Infinity}'],
    ids=range(6),
)  # fmt: skip
def test_bodies_that_cannot_be_judged_are_refused(body):
    assert ask("/train/a", body=body)[0] == 422
    assert ask("/train/a", body=b"{}", headers={"content-type": "multipart/form-data; boundary=x"})[0] == 422


@pytest.mark.parametrize("headers", [{"host": "["}, {"host": "a:b"}, {"host": "[::1"}, {"origin": "http://["},
                                     {"origin": "http://a:99999"}, {"origin": "//["}])  # fmt: skip
@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_addresses_that_are_none_are_refused(headers, address):
    status, words, server = ask("/infer/a", headers=headers, address=address)
    assert status == 403 and "refused" in words and server.asked == 0


@pytest.mark.parametrize(
    ("path", "body"),
    [("/train/a", b'{"max_epochs": ' + b"9" * 400 + b"}"), ("/train/a", b'{"val_split": ' + b"9" * 400 + b"}"),
     ("/scoring/a", b'{"x": ' + b"9" * 400 + b"}"), ("/scoring/a", b'{"x": ' + b"9" * 5000 + b"}"),
     ("/train/a", b"[" * 100_000), ("/scoring/a", b'{"x": ' * 900 + b"1" + b"}" * 900),
     ("/batch/infer/a", b'{"label_info": [{"a": ' + b"9" * 400 + b"}]}"), ("/scoring/a", b'{"x": -1e999}'),
     ("/batch/infer/a", b'{"slice": -' + b"9" * 400 + b"}")],
    ids=range(9),
)  # fmt: skip
def test_numbers_and_depths_that_no_number_holds_are_refused(path, body):
    status, words, server = ask(path, body=body)
    assert status == 422 and "refused" in words and server.asked == 0


class Failing:
    """Fails as MONAI Label's server does: it answers 500 and raises."""

    def __init__(self, error, *, begun=False, detail=b"Internal Server Error"):
        self.error, self.begun, self.detail = error, begun, detail

    def infer(self):
        raise self.error

    async def __call__(self, scope, receive, send):
        await send({"type": "http.response.start", "status": 200 if self.begun else 500, "headers": []})
        await send({"type": "http.response.body", "body": self.detail})
        if self.error is not None:
            raise self.error


def fail(server, path):
    sent = []

    async def send(message):
        sent.append(message)

    head = [(k.encode(), v.encode()) for k, v in OWN.items()]
    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": head}
    raised = None
    try:
        asyncio.run(Guard(server, address="127.0.0.1", offers=lambda model: OFFER)(scope, None, send))
    except Exception as error:
        raised = error
    return sent, raised


@pytest.mark.parametrize(("error", "path", "status"), FAULTS, ids=[f"{type(e).__name__} {p}" for e, p, _ in FAULTS])
def test_a_fault_of_the_request_is_told_and_one_of_the_server_stays_one(error, path, status):
    sent, raised = fail(Failing(error), path)
    assert sent[0]["status"] == (status or 500) and len(sent) == 2 and (raised is error) == (status is None)
    if status is not None:
        assert "expected" in json.loads(sent[1]["body"])["detail"]
    sent, raised = fail(Failing(error, begun=True), path)
    assert sent[0]["status"] == 200 and raised is error


def test_a_model_that_fails_is_no_fault_of_the_request():
    class Computing(Failing):
        async def __call__(self, *given):
            try:
                await Failing(None).__call__(*given)
            finally:
                self.infer()

    error = ValueError("shape")
    sent, raised = fail(Computing(error), "/infer/a")
    assert sent[0]["status"] == 500 and raised is error


def test_what_nobody_has_is_not_found():
    kinds = {"ImageNotFoundException": 404, "MONAILabelException": 422}
    base = type("MONAILabelException", (Exception,), {})
    for name, status in kinds.items():
        assert fail(Failing(type(name, (base,), {})("a")), "/datastore/image")[0][0]["status"] == status
        sent, raised = fail(Failing(type(name, (base,), {})("a")), "/infer/a")
        assert sent[0]["status"] == 500 and raised is not None


def test_a_request_without_an_image_is_no_fault_of_the_server():
    for words, status in ((b"Neither Image nor File not Session ID", 422), (b"Failed to execute infer", 500)):
        sent, raised = fail(Failing(None, detail=b'{"detail": "' + words + b'"}'), "/infer/a")
        assert sent[0]["status"] == status and raised is None


@pytest.mark.parametrize("query", ["image=a&image=b", "image=a&image=a", "tag=&tag=final", "lines=1&lines=2"])
def test_a_parameter_is_given_once(query):
    status, words, server = ask("/datastore/image", "GET", query=query)
    assert status == 422 and server.asked == 0 and "once" in words
    assert ask("/proxy/dicom/qido/studies", "GET", query="includefield=a&includefield=b")[0] == 200
