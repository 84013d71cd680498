"""A session as one HTML file to look at: three planes per click, Dice over clicks, what the gate chose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from monai.data import MetaTensor

from ...atomic import atomic_write
from ...errors import ConfigError, PromptError
from ...pages import shape, templates
from .charts import SIGNS, colour_of, dice_card, expert_colour, gate_card
from .pictures import Frame, Mark, PlaneView, session_frames
from .session import Session

__all__ = ["render_session", "write_session_page"]

_WORDS = {"inside": "click inside", "outside": "click outside", "box": "box"}
_CLASSES = {"inside": "in", "outside": "out", "box": "boxed"}


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
    truth = any(v.target for f in frames for v in f.views)
    return _TEMPLATES.get_template("page.html.j2").render(
        title=title,
        frames=frames,
        last=list({f.name: f for f in frames}.values()),
        experts=names,
        encodings=encodings,
        layers=["mask", "change", "crop", *(["truth"] if truth else [])],
        cards=[c for c in (dice_card(frames), gate_card(frames, names)) if c],
        classes=_CLASSES,
        words=_WORDS,
        signs=SIGNS,
    )


def _experts(frames: Sequence[Frame], experts: Sequence[str] | None) -> list[str]:
    count = max((len(f.scores) for f in frames if f.scores), default=0)
    if experts is None:
        return ["general", *(f"expert {i}" for i in range(1, count))]
    if count and len(experts) != count:
        raise ConfigError("one name per output of the gate", where="experts", got=list(experts), expected=count)
    return list(experts)


def _marks(view: PlaneView) -> Iterator[Element]:
    """Signs at the clicks of a plane, the newest on top."""
    r = view.part[3] * 0.016
    for mark in sorted(view.marks, key=_newest_last):
        cls = "in" if mark.inside else "out"
        sign = f"M{mark.x - r:.2f} {mark.y:.2f}h{2 * r:.2f}"
        sign += f"M{mark.x:.2f} {mark.y - r:.2f}v{2 * r:.2f}" if mark.inside else ""
        parts = [shape("path", {"class": c, "d": sign}) for c in ("under", f"mark {cls}")]
        if mark.new:
            at = {"cx": f"{mark.x:.2f}", "cy": f"{mark.y:.2f}", "r": f"{2.2 * r:.2f}"}
            parts.append(shape("circle", {"class": f"ring {cls}", **at}))
        yield shape("g", {} if mark.near else {"class": "far"}, parts=parts)


def _newest_last(mark: Mark) -> tuple[bool, bool]:
    return mark.new, mark.near


_TEMPLATES = templates(Path(__file__).parent, colour=colour_of, expert_colour=expert_colour, marks=_marks)
