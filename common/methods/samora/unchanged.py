"""What a run must find again when it continues, although no checkpoint holds it."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["Unchanged"]


class Unchanged:
    """Hashes of frozen parts, in a checkpoint's ``save_dict``: a run is not continued beside others.

    Args:
        what: a hash, or None, for each part's name.
    """

    def __init__(self, what: Mapping[str, str | None]) -> None:
        self.what = dict(what)

    def state_dict(self) -> dict[str, str | None]:
        """The hashes."""
        return dict(self.what)

    def load_state_dict(self, state: Mapping[str, str | None]) -> None:
        """Compare.

        Raises:
            ValueError: when a part is another one; :class:`~common.engine.run.checkpoint.RunCheckpoint`
                says where.
        """
        other = [k for k in {*self.what, *state} if self.what.get(k) != state.get(k)]
        if other:
            name = sorted(other)[0]
            raise ValueError(f"the run began with another {name}: {state.get(name)}, now {self.what.get(name)}")
