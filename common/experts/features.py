"""Where an expert's features are taken, and its logits in the same pass."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import ExpertError

__all__ = ["Encoder", "FoldMean", "Heard", "Part", "Tap", "check_module_path", "first_tensor"]


class Heard(NamedTuple):
    """What an expert says of a crop: ``features``, deepest last, and ``logits``."""

    features: list[Tensor]
    logits: Tensor


class FoldMean(nn.Module):
    """Several folds of one nnU-Net answer as one: the mean of their logits, as nnU-Net's own inference takes it.

    Args:
        networks: one or more of one architecture.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, ...]`` to logits ``[B, K+1, ...]``."""
        return torch.stack([first_tensor(network(x)) for network in self.networks]).mean(0)


@dataclass
class Encoder:
    """All stages of a nnU-Net encoder; the decoder runs for logits only.

    Args:
        network: a nnU-Net network, or the :class:`FoldMean` of several, whose first one gives the features.
    """

    network: nn.Module

    def __call__(self, x: Tensor) -> list[Tensor]:
        """Features alone."""
        stages = _first(self.network).get_submodule("encoder")(x)
        return list(stages) if isinstance(stages, list | tuple) else [stages]

    def both(self, x: Tensor) -> Heard:
        """Features and logits, with one pass of the encoder."""
        stages = _first(self.network).get_submodule("encoder")(x)
        logits = first_tensor(_first(self.network).get_submodule("decoder")(stages))
        return Heard(list(stages), _with_others(self.network, logits, x))


class _ReachedError(Exception):
    """The wanted module has answered; what follows it in the network need not run."""


@dataclass
class Tap:
    """Output of one named module; without a wish for logits the forward pass stops there.

    Args:
        network: any network, or the :class:`FoldMean` of several, whose first one gives the features.
        path: the module's name in it.
    """

    network: nn.Module
    path: str
    seen: list[Tensor] = field(default_factory=list)

    def __call__(self, x: Tensor) -> list[Tensor]:
        """Features alone."""
        with contextlib.suppress(_ReachedError):
            self._run(x, self._stop)
        return self._found(x)

    def both(self, x: Tensor) -> Heard:
        """Features and logits, with one pass of the network."""
        logits = first_tensor(self._run(x, self._keep))
        return Heard(self._found(x), _with_others(self.network, logits, x))

    def _run(self, x: Tensor, hook: Callable[..., None]) -> Any:
        self.seen.clear()
        network = _first(self.network)
        handle = network.get_submodule(self.path).register_forward_hook(hook)
        try:
            return network(x)
        finally:
            handle.remove()

    def _found(self, x: Tensor) -> list[Tensor]:
        result, self.seen = list(self.seen), []
        if not result or any(t.ndim != x.ndim for t in result):
            raise ExpertError(
                "the feature module does not return feature maps",
                where=self.path,
                got=[tuple(t.shape) for t in result] or "the module did not run",
                expected=f"{x.ndim}-D tensors",
            )
        return result

    def _catch(self, _module: nn.Module, _args: Any, output: Any) -> None:
        maps = output if isinstance(output, list | tuple) else [output]
        self.seen.extend(t for t in maps if isinstance(t, Tensor))

    def _keep(self, module: nn.Module, args: Any, output: Any) -> None:
        """The module's first answer, out of reach of what follows it: activations may write in place."""
        if not self.seen:
            self._catch(module, args, output)
            self.seen = [t.clone() for t in self.seen]

    def _stop(self, module: nn.Module, args: Any, output: Any) -> None:
        self._catch(module, args, output)
        raise _ReachedError


@dataclass
class Part:
    """A submodule of a TorchScript network, called on the input itself (hooks do not reach scripted code).

    Args:
        network: the scripted network.
        path: the module's name in it.
    """

    network: nn.Module
    path: str

    def __call__(self, x: Tensor) -> list[Tensor]:
        """Features alone."""
        maps = dict(self.network.named_modules())[self.path](x)  # scripted modules have no get_submodule()
        return list(maps) if isinstance(maps, list | tuple) else [maps]

    def both(self, x: Tensor) -> Heard:
        """Features and logits; scripted code gives them in a pass each."""
        return Heard(self(x), first_tensor(self.network(x)))


def check_module_path(network: nn.Module, path: str, *, where: object) -> None:
    """Refuse a feature module that the network does not have, with the nearest names."""
    names = [name for name, _ in _first(network).named_modules() if name]
    if path in names:
        return
    close = difflib.get_close_matches(path, names, n=3) or [n for n in names if "." not in n]
    raise ExpertError(
        "the network has no module of this name to take features from",
        where=where,
        got=path or "no `features` in the expert's description",
        expected="one of the network's module names",
        hint="set `features` to, for example, " + ", ".join(close[:8]),
    )


def first_tensor(output: Any) -> Tensor:
    """The finest logits of a network that may return several."""
    result: Tensor = output[0] if isinstance(output, list | tuple) else output
    return result


def _first(network: nn.Module) -> nn.Module:
    return network.networks[0] if isinstance(network, FoldMean) else network


def _with_others(network: nn.Module, logits: Tensor, x: Tensor) -> Tensor:
    others = list(network.networks)[1:] if isinstance(network, FoldMean) else []
    return torch.stack([logits, *(first_tensor(n(x)) for n in others)]).mean(0) if others else logits
