"""The label server behind a gate: no other web page speaks through a browser, and no address leads to another file.

A browser sends a page's requests to this machine whoever wrote the page, and a form needs nobody's leave. So requests
of pages from elsewhere are refused before the server sees them, and what would change the model, the studies or a
training is compared with what is offered. This file needs Python alone: it is copied beside the server's app.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlsplit

from .requests import Offer, RequestError, check_name, check_plain, checked_infer, checked_train

__all__ = ["ADDRESS", "Guard"]

logger = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

ADDRESS = "AMALGAM_LABEL_ADDRESS"
"""Environment variable with the host that the server listens at."""
LOCAL = ("localhost", "127.0.0.1", "::1")
_SESSION = re.compile(r"[\w-]{1,64}")
_IDS = ("image", "id", "label", "session_id", "tag", "strategy", "method", "model")
_NO_NAME = (errno.ENAMETOOLONG, errno.EINVAL, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)
_ASKED = ("Neither Image nor File", "not supported in a non-DICOM datastore")  # which are no faults of the server
_LARGEST = 4_000_000  # bytes of a JSON body that is read


class Guard:
    """An ASGI application in front of another one.

    Args:
        app: the server's.
        address: host that it listens at; when it is this machine's own, requests to other names are refused, too.
        offers: the models' offers by name, asked for when a request needs them.
    """

    def __init__(self, app: Any, *, address: str, offers: Callable[[str], Offer]) -> None:
        self.app, self.address, self.offers = app, address, offers

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer 403 or 422, or hand on."""
        if scope["type"] == "websocket":  # the server has none
            return await send({"type": "websocket.close", "code": 1008})
        if scope["type"] == "http":
            try:
                self._check_sender(scope["method"], _headers(scope))
            except RequestError as error:
                return await _refuse(send, 403, error)
            try:
                _check_address(scope)
                receive = await self._judged(scope, receive)
            except RequestError as error:
                return await _refuse(send, 422, error)
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return None
        return await self._answered(scope, receive, send)

    async def _answered(self, scope: Message, receive: Receive, send: Send) -> None:
        """Hand a request on; where the server fails over what was asked, say so in the place of "internal error"."""
        held: list[Message] = []
        begun = False

        async def kept(message: Message) -> None:
            nonlocal begun
            if held or (message["type"] == "http.response.start" and message["status"] == 500):
                held.append(message)
            else:
                begun = True
                await send(message)

        try:
            await self.app(scope, receive, kept)
        except Exception as error:
            told = _fault(error, _parts(scope))
            if told is None or begun:
                await _sent(held, send)
                raise
            logger.warning("%s %s was refused", scope["method"], scope["path"], exc_info=error)
            return await _refuse(send, *told)
        detail = b"".join(m.get("body", b"") for m in held)
        words = next((w for w in _ASKED if w.encode() in detail), None)
        if words is not None:
            return await _refuse(send, 422, RequestError("request", words, "an image, a session or a file"))
        await _sent(held, send)

    def _check_sender(self, method: str, headers: dict[str, str]) -> None:
        host = headers.get("host", "")
        name = _address("Host", f"//{host}", host).hostname or ""
        if self.address in LOCAL and name not in LOCAL:
            raise RequestError("Host", host, "this machine's own name")
        origin = headers.get("origin")
        if origin is not None:
            sent = _address("Origin", origin, origin)
            own = sent.netloc == host or (sent.hostname in LOCAL and self.address in LOCAL)
            if sent.scheme not in ("http", "https") or not own:
                raise RequestError("Origin", origin, "a page of this server, or of this machine")
        if method not in ("GET", "HEAD") and headers.get("sec-fetch-site") == "cross-site":
            raise RequestError("Sec-Fetch-Site", "cross-site", "a page of this server, or of this machine")

    async def _judged(self, scope: Message, receive: Receive) -> Receive:
        """Read the JSON of what starts a task, and hand it on as it came."""
        parts, headers = _parts(scope), _headers(scope)
        if parts[:1] == ["model"] and scope["method"] not in ("GET", "HEAD", "OPTIONS"):  # DELETE moves weights aside
            got = f"{scope['method']} {scope['path']}"
            raise RequestError("model", got, "the weights of the command that started the server, as they are")
        if scope["method"] not in ("POST", "PUT", "PATCH") or not parts:
            return receive
        if parts[0] not in ("train", "batch", "scoring", "activelearning"):
            return receive
        if "multipart" in headers.get("content-type", ""):
            raise RequestError("Content-Type", headers["content-type"], "application/json")
        body = await _body(receive)
        content = _json(body)
        offer = self.offers(parts[-1] if len(parts) > 1 else "")
        if parts[0] == "train":
            checked_train(content, offer)
        elif parts[0] == "batch":
            checked_infer(content, offer)
            _check_images(content.get("images", "all"))
        else:
            check_plain(content)
        return _Replay(body, receive)


class _Replay:
    """A body that was read, once more."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self.body: bytes | None = body
        self.receive = receive

    async def __call__(self) -> Message:
        if self.body is None:
            return await self.receive()
        body, self.body = self.body, None
        return {"type": "http.request", "body": body, "more_body": False}


def _headers(scope: Message) -> dict[str, str]:
    return {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope.get("headers", ())}


def _address(key: str, text: str, got: str) -> SplitResult:
    try:
        sent = urlsplit(text)
        _ = sent.hostname, sent.port  # told only when they are asked for
    except ValueError as error:
        raise RequestError(key, got, "an address") from error
    return sent


def _parts(scope: Message) -> list[str]:
    return [p for p in str(scope["path"]).split("/") if p]


def _check_address(scope: Message) -> None:
    """Refuse an address of which a part could lead to another file."""
    parts = _parts(scope)
    if any(p in (".", "..") or "\\" in p or any(ord(c) < 32 for c in p) for p in parts):
        raise RequestError("address", scope["path"], "an address without .. and control characters")
    query = parse_qsl(bytes(scope.get("query_string", b"")).decode("latin-1"), keep_blank_values=True)
    keys = [k for k, _ in query]
    twice = next((k for k in keys if keys.count(k) > 1), None)
    if twice is not None and parts[:1] not in (["proxy"], ["ohif"]):
        raise RequestError(twice, [v for k, v in query if k == twice], "each parameter once")
    named = [(k, v) for k, v in query if k in _IDS and v]
    for key, value in named:
        wanted = parts[:1] != ["infer"] or key != "image"  # the app compares it with the studies
        if key == "session_id" and not _SESSION.fullmatch(value):
            raise RequestError(key, value, "the id of a session")
        if wanted:
            _check_id(key, value, new=scope["method"] in ("PUT", "POST"))
    if any(k == "uncompress" and v.lower() not in ("", "false", "0", "no", "off", "f", "n") for k, v in query):
        raise RequestError("uncompress", "true", "files that are no archives")
    if parts[:1] == ["session"] and len(parts) > 1 and not _SESSION.fullmatch(parts[1]):
        raise RequestError("session", parts[1], "the id of a session")


def _check_id(key: str, value: str, *, new: bool) -> None:
    parts = value.replace("\\", "/").split("/")
    if new:
        check_name(key, value)
    elif ".." in parts or not parts[0] or any(ord(c) < 32 for c in value):
        raise RequestError(key, value, "the id of a study")


def _check_images(images: Any) -> None:
    if images in ("all", "labeled", "unlabeled"):
        return
    for image in images if isinstance(images, list) else [images]:
        if not isinstance(image, str):
            raise RequestError("images", images, "all, labeled, unlabeled, or ids of studies")
        _check_id("images", image, new=False)


async def _body(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise RequestError("body", message["type"], "a complete request")
        body += message.get("body", b"")
        more = bool(message.get("more_body", False))
        if len(body) > _LARGEST:
            raise RequestError("body", f"more than {_LARGEST} bytes", "a shorter request")
    return body


def _json(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body, object_pairs_hook=_unique, parse_constant=_constant) if body.strip() else {}
    except (ValueError, RecursionError) as error:
        raise RequestError("body", body[:100], "JSON without repeated keys, NaN and endless numbers") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise RequestError("body", content, "keys and values")
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice: who reads on may take the other one")
    return found


def _constant(word: str) -> float:
    raise ValueError(f"{word} is no number")


async def _sent(messages: Iterable[Message], send: Send) -> None:
    for message in messages:
        await send(message)


def _fault(error: Exception, parts: list[str]) -> tuple[int, Exception] | None:
    """Status and words for an error that the request is to blame for; None where the server is."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "RequestError" in kinds:
        return getattr(error, "status", 422), error
    bad_text = isinstance(error, (json.JSONDecodeError, UnicodeError))
    wrong = isinstance(error, (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError))
    wrong = wrong or (isinstance(error, OSError) and error.errno in _NO_NAME)
    wrong = wrong or ("MONAILabelException" in kinds and parts[:1] != ["infer"])
    if bad_text or (wrong and not _computed(error)):
        got = getattr(error, "msg", None) or str(error) or type(error).__name__
        status = 404 if "NotFound" in type(error).__name__ else 422
        return status, RequestError("/".join(parts), got, "what the server can use; its log says more")
    return None


def _computed(error: Exception) -> bool:
    """Whether it happened while a model answered, which is no matter of how it was asked."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_name == "infer":
            return True
        trace = trace.tb_next
    return False


async def _refuse(send: Send, status: int, error: Exception) -> None:
    body = json.dumps({"detail": str(error)}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _offer(model: str) -> Offer:
    """The offer of a running server's model, or of all when none is named."""
    from monailabel.interfaces.utils.app import app_instance

    offer: Offer = app_instance().offer(model)
    return offer


def __getattr__(name: str) -> Any:
    """``app`` for the server's process, which alone can import MONAI Label."""
    if name != "app":
        raise AttributeError(name)
    from monailabel.app import app

    return Guard(app, address=os.environ.get(ADDRESS, ""), offers=_offer)
