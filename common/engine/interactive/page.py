"""A session as one HTML file to look at: three planes per click, Dice over clicks, what the gate chose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from monai.data import MetaTensor

from ...atomic import atomic_write
from ...errors import ConfigError, PromptError
from .charts import SIGNS, colour_of, dice_card, expert_colour, gate_card
from .pictures import Frame, Mark, PlaneView, session_frames
from .session import Session

__all__ = ["render_session", "write_session_page"]

_HERE = Path(__file__).parent
_WORDS = {"inside": ("in", "click inside"), "outside": ("out", "click outside"), "box": ("boxed", "box")}


def write_session_page(
    path: str | Path,
    session: Session,
    *,
    targets: Mapping[str, MetaTensor] | None = None,
    experts: Sequence[str] | None = None,
    title: str = "Session",
    window: tuple[float, float] | None = None,
) -> Path:
    """Write a self-contained page of a session; arrow keys walk through its prompts.

    Args:
        path: of the HTML file, complete or not at all.
        session: with at least one prompt.
        targets: true mask per object ``[1, X, Y, Z]`` on the scan's grid, where known.
        experts: names of the gate's outputs, the general decoder first; numbered when None.
        title: heading.
        window: intensities drawn black and white, see :func:`.pictures.session_frames`.

    Raises:
        PromptError: for a session without prompts, or a target of no object.
        ConfigError: when the names of the experts are too few or too many.
    """
    if not session.events:
        raise PromptError("there is nothing to show yet", where=session.where, hint="click first")
    page = render_session(
        session_frames(session, targets, window), experts=experts, title=title, encodings=session.encodings
    )
    with atomic_write(Path(path)) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return Path(path)


def render_session(
    frames: Sequence[Frame],
    *,
    experts: Sequence[str] | None = None,
    title: str = "Session",
    encodings: int | None = None,
) -> str:
    """The HTML document of frames.

    Raises:
        ConfigError: when the names of the experts are too few or too many.
    """
    names = _experts(frames, experts)
    style, script = ((_HERE / f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    stages = "".join(_frame(f, i, names) for i, f in enumerate(frames))
    strip = "".join(_thumbnail(f, i) for i, f in enumerate(frames))
    cards = dice_card(frames) + gate_card(frames, names)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body><main>"
        f'<header><div><p class="eyebrow">interactive session</p><h1>{escape(title)}</h1>'
        f'<p class="lead">{_lead(frames, encodings)}</p></div><button id="theme" type="button">Theme</button></header>'
        f"{_bar(frames)}{stages}<div class='strip'>{strip}</div>"
        f'<div class="cards">{cards}</div><footer>Research software, not for clinical use. Patient\'s right is on the '
        "left. Each slice goes through the newest click; clicks in other slices are faint. ← and → walk through the "
        f"prompts.</footer></main><script>{script}</script></body></html>\n"
    )


def _experts(frames: Sequence[Frame], experts: Sequence[str] | None) -> list[str]:
    count = max((len(f.scores) for f in frames if f.scores), default=0)
    if experts is None:
        return ["general", *(f"expert {i}" for i in range(1, count))]
    if count and len(experts) != count:
        raise ConfigError("one name per output of the gate", where="experts", got=list(experts), expected=count)
    return list(experts)


def _lead(frames: Sequence[Frame], encodings: int | None) -> str:
    last = {f.name: f for f in frames}
    parts = []
    for name, f in last.items():
        told = (
            f"Dice <b>{f.dice:.3f}</b>" if f.dice is not None and f.dice == f.dice else f"<b>{f.volume_ml:.1f} ml</b>"
        )
        parts.append(f"{escape(name)} {told} after {_count(f.prompt, 'prompt')}")
    times = {1: "once", 2: "twice"}.get(encodings or 0, f"{encodings} times")
    return "; ".join(parts) + "." + ("" if encodings is None else f" The encoder ran {times}.")


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _bar(frames: Sequence[Frame]) -> str:
    layers = [("mask", "Mask"), ("change", "Change"), ("crop", "Crops")]
    layers += [("truth", "Truth")] if any(v.target for f in frames for v in f.views) else []
    buttons = "".join(f'<button type="button" data-layer="{k}" aria-pressed="true">{n}</button>' for k, n in layers)
    return f'<div class="bar"><button id="play" type="button">Play</button><span class="gap"></span>{buttons}</div>'


def _frame(frame: Frame, index: int, experts: Sequence[str]) -> str:
    words = _WORDS[frame.kind][1]
    planes = "".join(_plane(v, f"f{index}{v.name}") for v in frame.views)
    crops = "" if frame.windows == 1 else f"<span>{frame.windows} crops</span>"
    known = frame.dice is not None and frame.dice == frame.dice
    big = f"<small>Dice</small>{frame.dice:.3f}" if known else f"<small>volume</small>{frame.volume_ml:.1f} ml"
    volume = f"<span>{frame.volume_ml:.1f} ml</span>" if known else ""
    return (
        f'<section class="frame" style="--c:{colour_of(frame.number)}"><div class="head">'
        f'<b><i class="key"></i>{escape(frame.name)}</b><span>prompt {frame.prompt}: {words}</span>{volume}{crops}'
        f'<span class="big">{big}</span></div><div class="planes">{planes}</div>{_gate(frame, experts)}</section>'
    )


def _plane(view: PlaneView, key: str) -> str:
    x, y, width, height = view.part
    others = "".join(f'<path class="other" style="--c:{colour_of(i)}" d="{p}"/>' for i, p in view.others if p)
    layers = "".join(
        f'<path class="{cls}" d="{path}"/>'
        for cls, path in (
            ("mask", view.mask),
            ("gain change", view.gain),
            ("loss change", view.loss),
            ("truth", view.target),
        )
        if path
    )
    crops = "".join(_rectangle(w, "crop") for w in view.windows)
    box = "" if view.box is None else _rectangle(view.box, "prompt")
    marks = "".join(_mark(m, height) for m in sorted(view.marks, key=_newest_last))
    return (
        f'<figure style="flex:{width / height:.3f} 1 0"><svg viewBox="{x:g} {y:g} {width:g} {height:g}" role="img" '
        f'aria-label="{view.name}"><g class="view" id="{key}"><image href="{view.image}" x="{x:g}" y="{y:g}" '
        f'width="{width:g}" height="{height:g}" preserveAspectRatio="none"/>'
        f"{crops}{layers}{others}{box}{marks}</g></svg>"
        f"<figcaption>{view.name}</figcaption></figure>"
    )


def _newest_last(mark: Mark) -> tuple[bool, bool]:
    return mark.new, mark.near


def _rectangle(part: tuple[float, float, float, float], cls: str) -> str:
    x, y, width, height = part
    return f'<rect class="{cls}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'


def _mark(mark: Mark, height: float) -> str:
    r = height * 0.016
    cls = "in" if mark.inside else "out"
    sign = f"M{mark.x - r:.2f} {mark.y:.2f}h{2 * r:.2f}"
    sign += f"M{mark.x:.2f} {mark.y - r:.2f}v{2 * r:.2f}" if mark.inside else ""
    ring = f'<circle class="ring {cls}" cx="{mark.x:.2f}" cy="{mark.y:.2f}" r="{2.2 * r:.2f}"/>' if mark.new else ""
    far = "" if mark.near else ' class="far"'
    return f'<g{far}><path class="under" d="{sign}"/><path class="mark {cls}" d="{sign}"/>{ring}</g>'


def _gate(frame: Frame, experts: Sequence[str]) -> str:
    if not frame.scores:
        return ""
    bars = "".join(
        f'<div class="expert{" chosen" if i == frame.chosen else ""}"><span><em>{escape(name)}</em>{score:.2f}</span>'
        f'<i style="--s:{score:.4f};--c:{expert_colour(i)}"></i></div>'
        for i, (name, score) in enumerate(zip(experts, frame.scores, strict=True))
    )
    return f'<div class="gate"><span class="title">gate</span>{bars}</div>'


def _thumbnail(frame: Frame, index: int) -> str:
    cls, words = _WORDS[frame.kind]
    x, y, width, height = frame.views[0].part
    told = f"{frame.dice:.2f}" if frame.dice is not None and frame.dice == frame.dice else f"{frame.volume_ml:.0f} ml"
    return (
        f'<button type="button" data-go="{index}" style="--c:{colour_of(frame.number)}" '
        f'title="{escape(frame.name)}: {words}"><svg viewBox="{x:g} {y:g} {width:g} {height:g}" '
        f'preserveAspectRatio="xMidYMid slice"><use href="#f{index}{frame.views[0].name}"/></svg>'
        f'<span><b class="sign {cls}">{SIGNS[frame.kind]} {frame.prompt}</b>{told}</span></button>'
    )
