"""An expert on volumes: what it makes of them, and how well it learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, interpolate, normalize

from ....errors import ConfigError, WeightError
from ....integrity import file_hash
from ....layers.slice_by_slice import slice_by_slice
from ....layers.window_mask import window_mask
from ....losses.reconstruction import masked_mse, patches_of
from ....weights import Coverage, load_weights
from ..base import hash_of
from .expert import ExpertNetwork, only_trained
from .students import Masking
from .teachers import ContrastiveTeacher, MaskedTeacher

__all__ = ["ExpertVolume", "effective_rank", "load_expert", "principal_colours"]


def principal_colours(tokens: Tensor) -> Tensor:
    """Red, green and blue of the three directions in which tokens vary most, each from its 1st to 99th percentile.

    Args:
        tokens: ``[N, h, w, C]``, C >= 3.

    Returns:
        ``[N, h, w, 3]`` in 0..1; the sign of a direction is that which makes its largest component positive.
    """
    flat = tokens.flatten(0, 2).double()
    centred = flat - flat.mean(0)
    _, directions = torch.linalg.eigh(centred.T @ centred)  # rising
    first = directions[:, -3:].flip(1)
    largest = first.gather(0, first.abs().argmax(0, keepdim=True))
    found = centred @ (first * largest.sign())
    ordered = found.sort(0).values
    low, high = (ordered[round(q * (len(found) - 1))] for q in (0.01, 0.99))
    scaled: Tensor = ((found - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
    return scaled.to(tokens.dtype).view(*tokens.shape[:3], 3)


def effective_rank(vectors: Tensor) -> float:
    """``exp(-sum p log p)`` with p the shares of variance along the principal directions; 1 on a line.

    Args:
        vectors: ``[N, C]``, N >= 2.

    Reference:
        Roy and Vetterli, The effective rank, 2007, of the centred vectors' covariance.
    """
    centred = vectors.double() - vectors.double().mean(0)
    variance = torch.linalg.svdvals(centred).square()
    if not float(variance.sum()) > 0:
        return 0.0
    share = variance / variance.sum()
    return float(torch.exp(-(share * share.clamp(min=1e-30).log()).sum()))


class ExpertVolume(nn.Module):
    """What the first stage learned, shown on every slice of a volume along its last axis.

    A pixel-level expert removes noise that was added before; all others, and the teachers, show their features in
    false colours (:func:`principal_colours` over the whole volume).

    Args:
        network: of slices; its parameters keep their names.
        image_size: pixels along the sides that the network takes; other slices are resized to it and back.
        slices: slices per forward pass, >= 1.
        sigma: noise level as a share of the range of intensities; None: the highest of the training.
        seed: of noise and of hidden patches.
        normalise: whether hidden patches were rebuilt at unit variance.

    Shapes:
        volume ``[B, c, H, W, Z]`` in 0..1 -> ``[B, c, H, W, Z]`` without noise, or ``[B, 3, H, W, Z]`` colours.

    Raises:
        ConfigError: for fewer than one slice per pass, or negative noise.
    """

    def __init__(
        self,
        *,
        network: ExpertNetwork | ContrastiveTeacher | MaskedTeacher,
        image_size: int = 224,
        slices: int = 8,
        sigma: float | None = None,
        seed: int = 0,
        normalise: bool = True,
    ) -> None:
        super().__init__()
        if slices < 1 or (sigma is not None and sigma < 0):
            raise ConfigError(
                "at least one slice per pass, and no negative noise", where="slices, noise", got=(slices, sigma)
            )
        for name, module in network.saved.named_children():
            self.add_module(name, module)
        for name, parameter in network.saved.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        self._network = (network,)  # in a tuple, so that nothing is registered under a second name
        self.image_size, self.slices, self.seed, self.normalise = image_size, slices, seed, normalise
        self.denoises = bool(getattr(network, "denoises", False))
        self.sigma = sigma if sigma is not None else (self.network.objective.sigma[1] if self.denoises else 0.0)
        if isinstance(network, ExpertNetwork):
            only_trained(self)

    @property
    def network(self) -> Any:
        """The network of slices, which has the same parameters."""
        return self._network[0]

    def forward(self, volume: Tensor) -> Tensor:
        """Show what was learned."""
        self.network.eval()
        volume = volume.as_tensor() if isinstance(volume, MetaTensor) else volume
        if not self.denoises:
            return torch.stack([self._colours(v) for v in volume])
        random = self._random(volume.device)

        def step(image: Tensor) -> Tensor:
            own = self._sized(image)
            painted = self.network.objective.denoised(self.network.encoder, self._noisy(own, random))
            return interpolate(painted, size=image.shape[-2:], mode="bilinear", align_corners=False)

        return slice_by_slice(volume, self.slices, (), step)

    @torch.no_grad()
    def show(self, image: Tensor) -> dict[str, Tensor]:
        """Pictures ``[N, 1 or 3, S, S]`` of slices ``[N, c, S, S]`` by their titles."""
        self.network.eval()
        own = self._sized(image)
        if self.denoises:
            noisy = self._noisy(own, self._random(own.device))
            return {"slice": own, "noisy": noisy,
                    "denoised": self.network.objective.denoised(self.network.encoder, noisy)}  # fmt: skip
        shown = {"slice": own, "features": self.network.features(own)}
        teacher = getattr(getattr(self.network, "objective", None), "teacher", None)
        told = None if teacher is None else teacher(own)
        if told is not None and told.ndim == 4:
            shown["teacher's features"] = told
        size = own.shape[-2:]
        return {
            title: plane if title == "slice" else interpolate(principal_colours(plane).permute(0, 3, 1, 2), size=size)
            for title, plane in shown.items()
        }

    @torch.no_grad()
    def scores(self, volume: Tensor) -> dict[str, float]:
        """How well it learned, on one volume ``[c, H, W, Z]`` in 0..1.

        Pixel level: ``mse``, ``psnr`` (dB, of a range of 1) and ``gain`` (dB over the noisy volume). With a teacher:
        ``mse``, ``explained = 1 - mse / variance of the teacher's values`` and ``cosine``. Hidden patches: ``mse``,
        ``explained``, of grey values or, as trained, of patches of unit variance. Two views without a teacher:
        ``retrieval``, the share of slices whose mirrored and brightened copy is nearest to them among all slices of the
        volume. Except at pixel level also ``rank``, the effective rank of the features: near 1 they have collapsed.
        """
        self.network.eval()
        slices = self._sized(volume.permute(3, 0, 1, 2))
        if self.denoises:
            return self._denoised(slices)
        tokens = torch.cat([self.network.features(part) for part in slices.split(self.slices)])
        found = {"rank": effective_rank(tokens.mean((1, 2)) if len(tokens) > 1 else tokens.flatten(0, 2))}
        objective = getattr(self.network, "objective", None)
        if isinstance(objective, Masking) or isinstance(self.network, MaskedTeacher):
            return {**self._rebuilt(slices), **found}
        if getattr(objective, "teacher", None) is not None:
            return {**self._agreement(slices), **found}
        if hasattr(self.network.saved, "embedding") and hasattr(objective or self.network, "embedding"):
            return {"retrieval": self._retrieval(slices), **found}
        return found

    def _random(self, device: torch.device) -> torch.Generator:
        return torch.Generator(device).manual_seed(self.seed)

    def _sized(self, image: Tensor) -> Tensor:
        size = (self.image_size, self.image_size)
        if image.shape[-2:] == size:
            return image
        return interpolate(image, size=size, mode="bilinear", align_corners=False, antialias=True)

    def _noisy(self, image: Tensor, random: torch.Generator) -> Tensor:
        noisy: Tensor = self.network.objective.noisy(image, random, self.sigma)
        return noisy

    def _colours(self, volume: Tensor) -> Tensor:
        slices = volume.permute(3, 0, 1, 2)
        tokens = torch.cat([self.network.features(self._sized(part)) for part in slices.split(self.slices)])
        colours = principal_colours(tokens).permute(0, 3, 1, 2)
        whole = interpolate(colours, size=volume.shape[1:3], mode="bilinear", align_corners=False)
        return whole.permute(1, 2, 3, 0)

    def _denoised(self, slices: Tensor) -> dict[str, float]:
        random, before, after = self._random(slices.device), 0.0, 0.0
        for part in slices.split(self.slices):
            noisy = self._noisy(part, random)
            painted = self.network.objective.denoised(self.network.encoder, noisy)
            before += float((noisy - part).double().square().sum())
            after += float((painted - part).double().square().sum())
        before, after = before / slices.numel(), after / slices.numel()
        psnr, gain = -10 * _log10(after), 10 * (_log10(before) - _log10(after))
        return {"mse": after, "psnr": psnr, "gain": gain}

    def _agreement(self, slices: Tensor) -> dict[str, float]:
        pairs = [self.network.objective(self.network.encoder, part) for part in slices.split(self.slices)]
        said, told = (torch.cat([p[i].flatten(0, -2) for p in pairs]).double() for i in (0, 1))
        mse = float((said - told).square().mean())
        cosine = float(cosine_similarity(said, told, dim=1).mean())
        return {
            "mse": mse,
            "explained": 1 - mse / max(float(told.var(0, correction=0).mean()), 1e-12),
            "cosine": cosine,
        }

    def _rebuilt(self, slices: Tensor) -> dict[str, float]:
        error, spread, count = 0.0, 0.0, 0
        for part, hidden in self._hiding(slices):
            found = self.network(part[:, None], hidden) if isinstance(self.network, MaskedTeacher) else (
                self.network.objective(self.network.encoder, part, hidden))  # fmt: skip
            target = patches_of(found.image, found.image.shape[-1] // hidden.shape[2])
            error += float(masked_mse(found.prediction, found.image, hidden, normalise=self.normalise)) * len(part)
            values = _normalised(target)[hidden] if self.normalise else target[hidden]
            spread += float(values.double().var(correction=0)) * len(part)
            count += len(part)
        return {"mse": error / count, "explained": 1 - error / max(spread, 1e-12)}

    def _hiding(self, slices: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        random, network = torch.Generator().manual_seed(self.seed), self.network
        teacher = isinstance(network, MaskedTeacher)
        side = network.network.side if teacher else self.image_size // int(network.encoder.patch_size)
        ratio = 1 - network.network.visible / side**2 if teacher else network.objective.ratio
        for part in slices.split(self.slices):
            hidden = window_mask(len(part), side, side, ratio=ratio, side=1, generator=random)
            yield part, hidden.to(part.device)

    def _retrieval(self, slices: Tensor) -> float:
        copies = (slices.flip(2) * 1.1 + 0.05).clamp(0, 1)
        one, two = (
            normalize(torch.cat([self.network.embedding(p) for p in s.split(self.slices)]), dim=1)
            for s in (slices, copies)
        )
        nearest = (two @ one.T).argmax(1)
        return float((nearest == torch.arange(len(slices), device=nearest.device)).double().mean())


def _normalised(patches: Tensor) -> Tensor:
    variance, mean = torch.var_mean(patches, -1, correction=1, keepdim=True)
    return (patches - mean) / (variance + 1e-6).sqrt()


def _log10(value: float) -> float:
    return float(torch.tensor(max(value, 1e-20), dtype=torch.float64).log10())


def load_expert(
    network: ExpertVolume,
    path: str | Path,
    *,
    base_hash: str | None = None,
    teacher: Mapping[str, Any] | None = None,
    teacher_weights: str | Path | None = None,
) -> Coverage:
    """Fill the network with what a run of the first stage trained, on the same base and beside the same teacher.

    Args:
        network: receives ``model.pt``.
        path: of the run's weights.
        base_hash: of the run's base, None for a teacher.
        teacher: what the run's card says of its teacher.
        teacher_weights: of the teacher, where agreement with it is asked for.

    Raises:
        WeightError: for weights that do not fit, or another base or teacher than the run's.
    """
    own = hash_of(network.network)
    if base_hash is not None and own != base_hash:
        hint = "give the same --sam_weights as to its training"
        got = f"base {str(own)[:12]}"
        expected = f"base {base_hash[:12]}"
        raise WeightError("the expert was trained on another base", where=path, got=got, expected=expected, hint=hint)
    if teacher_weights is not None and teacher:
        digest = file_hash(teacher_weights)
        if digest != teacher.get("hash"):
            problem = "the expert had another teacher"
            expected = f"{teacher.get('file')}, {str(teacher.get('hash'))[:12]}"
            raise WeightError(problem, where=teacher_weights, got=digest[:12], expected=expected)
    target = network if isinstance(network.network, ExpertNetwork) else network.network.saved
    return load_weights(target, path)
