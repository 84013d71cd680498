"""SAMora's first stage: one LoRA expert of a frozen encoder, and what teaches it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from ....errors import ConfigError
from ....layers.lora.experts import expert_names, expert_parameters
from .students import Denoising, tokens_of

__all__ = ["ExpertNetwork", "only_trained", "trained_parameters"]


class ExpertNetwork(nn.Module):
    """A frozen encoder with one expert, and the objective that trains it.

    The state dict holds what is trained, the expert and the objective's own layers, and nothing of encoder and teacher.

    Args:
        encoder: SAM's or SAM2's, with the expert switched on.
        level: the expert's name.
        objective: of ``samora_students``: ``(encoder, images [N, c, S, S]) -> outputs``.

    Shapes:
        views ``[B, V, c, S, S]`` in 0..1 -> what the objective returns.

    Raises:
        ConfigError: unless the encoder holds that expert and no other.

    Reference:
        SAMora, section 3.2.
    """

    def __init__(self, *, encoder: nn.Module, level: str, objective: nn.Module) -> None:
        super().__init__()
        if expert_names(encoder) != (level,):
            raise ConfigError("one expert is trained", where="level", got=expert_names(encoder), expected=(level,))
        self.level, self.encoder, self.objective = level, encoder, objective
        frozen = {id(p) for p in encoder.parameters()} - {id(p) for p in expert_parameters(encoder, level).values()}
        for parameter in encoder.parameters():
            parameter.requires_grad_(id(parameter) not in frozen)
        only_trained(self)
        self.train()

    @property
    def saved(self) -> nn.Module:
        """Whose weights are kept."""
        return self

    def train(self, mode: bool = True) -> ExpertNetwork:
        """Encoder and teacher stay in evaluation, whatever the rest does."""
        super().train(mode)
        self.encoder.eval()
        teacher = getattr(self.objective, "teacher", None)
        if teacher is not None:
            teacher.eval()
        return self

    def forward(self, image: Tensor) -> Any:
        """Learn from views."""
        return self.objective(self.encoder, image.flatten(0, 1))

    def features(self, image: Tensor) -> Tensor:
        """Tokens ``[N, h, w, C]`` before the neck of images ``[N, c, S, S]``."""
        return tokens_of(self.encoder, image)

    def embedding(self, image: Tensor) -> Tensor:
        """What an image-level objective compares between images: ``[N, D]``."""
        objective: Any = self.objective  # of the image level, as is said
        found: Tensor = objective.embedding(self.encoder, image)
        return found

    @property
    def denoises(self) -> bool:
        """Whether images are painted."""
        return isinstance(self.objective, Denoising)


def trained_parameters(network: nn.Module) -> list[nn.Parameter]:
    """The parameters that training changes.

    Raises:
        ConfigError: when there are none.
    """
    found = [p for p in network.parameters() if p.requires_grad]
    if not found:
        raise ConfigError("nothing is trained", got=type(network).__name__, expected="parameters with gradients")
    return found


def only_trained(network: nn.Module) -> None:
    """Let a network save and load what is trained, and nothing else; frozen parts are what they were built as."""
    network.register_state_dict_post_hook(_leave_frozen_out)
    network.register_load_state_dict_post_hook(_do_not_miss_frozen)


def _trained_names(network: nn.Module) -> Iterator[str]:
    frozen = ("encoder.", "objective.teacher.")
    yield from (n for n, p in network.named_parameters() if p.requires_grad or not n.startswith(frozen))
    yield from (n for n, _ in network.named_buffers() if not n.startswith(frozen))


def _leave_frozen_out(network: nn.Module, state: dict[str, Any], prefix: str, _metadata: object) -> None:
    kept = {prefix + name for name in _trained_names(network)}
    for name in [n for n in state if n.startswith(prefix) and n not in kept]:
        del state[name]


def _do_not_miss_frozen(network: nn.Module, keys: Any) -> None:
    own = set(_trained_names(network))
    keys.missing_keys[:] = [n for n in keys.missing_keys if n in own]
