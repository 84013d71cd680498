"""One training iteration: what is taken from the batch, how the loss is formed and the gradient applied."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys
from torch import Tensor

from ...errors import ConfigError, DataError

__all__ = ["NonFiniteGuard", "PrepareKeys", "TermsStep"]

logger = logging.getLogger(__name__)


class PrepareKeys:
    """``prepare_batch`` of MONAI's engines: which batch entries the network and the loss receive.

    Args:
        image: key of the network's first argument.
        label: key of the target; a missing label (inference) becomes None.
        kwargs: further arguments of the network: batch keys, or ``{argument: batch key}``.
        targets: further batch keys for the loss; the target is then a dict with ``label`` and these.
        optional: keys among ``kwargs`` and ``targets`` that a batch may lack.

    Returns (when called):
        ``(image, target, (), kwargs)`` on the device.

    Raises:
        DataError: when a batch lacks a key.
    """

    def __init__(
        self,
        *,
        image: str = "image",
        label: str = "label",
        kwargs: Sequence[str] | Mapping[str, str] = (),
        targets: Sequence[str] = (),
        optional: Sequence[str] = (),
    ) -> None:
        self.image, self.label = image, label
        self.kwargs = dict(kwargs) if isinstance(kwargs, Mapping) else {name: name for name in kwargs}
        self.targets = tuple(targets)
        self.optional = frozenset(optional)

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **to_kwargs: Any,
    ) -> tuple[Any, Any, tuple[()], dict[str, Any]]:
        """Take the entries out of the batch and move them to the device."""

        def take(key: str) -> Any:
            return _move(batchdata[key], device, non_blocking, to_kwargs)

        wanted = [self.image, *self.kwargs.values(), *self.targets]
        missing = [k for k in wanted if k not in batchdata and k not in self.optional]
        if missing:
            raise DataError(
                "the batch lacks entries that the network or the loss needs",
                where=", ".join(_cases(batchdata)) or None,
                got=", ".join(map(str, batchdata)),
                expected=", ".join(missing),
                hint="add the transform that makes them to train::preprocessing",
            )
        label = take(self.label) if self.label in batchdata else None
        target = label
        if self.targets:
            target = {"label": label, **{k: take(k) for k in self.targets if k in batchdata}}
        kwargs = {name: take(key) for name, key in self.kwargs.items() if key in batchdata}
        return take(self.image), target, (), kwargs


class TermsStep:
    """``iteration_update`` of SupervisedTrainer for losses with named terms, in micro-batches when memory is short.

    The loss is called as ``loss(prediction, target)`` and returns a scalar, or a dict with ``loss`` and further named
    terms for the log. A batch of ``B`` is processed in parts of ``micro_batch`` with weights ``n_i / B``, so that
    ``sum_i n_i/B * loss_i`` has the gradient of the whole batch for every loss that is a mean over the samples (a loss
    or a layer that looks across samples, such as batch Dice or BatchNorm, sees one part only).

    ``engine.state.output`` holds ``image``, ``label``, ``pred`` (detached; of a named tuple its ``logits``), ``loss``
    and one float per term.

    Args:
        micro_batch: samples per part, >= 1; None: the whole batch at once.
        max_norm: gradients are clipped to this L2 norm; None: not clipped.
        dtype: what the network's products are computed in; its outputs, the loss and the weights keep 32 bits. None:
            as the engine's ``amp`` says.

    Raises:
        ConfigError: for impossible settings or a loss that returns something else.
        DataError: when loss or gradient is not finite; names the cases.
    """

    def __init__(
        self, *, micro_batch: int | None = None, max_norm: float | None = None, dtype: torch.dtype | None = None
    ) -> None:
        if micro_batch is not None and micro_batch < 1:
            raise ConfigError("a micro-batch has at least one sample", where="micro_batch", got=micro_batch)
        if max_norm is not None and not max_norm > 0:
            raise ConfigError("gradients are clipped to a positive norm", where="max_norm", got=max_norm)
        self.micro_batch = micro_batch
        self.max_norm = max_norm
        self.dtype = dtype

    def __call__(self, engine: Any, batchdata: Mapping[str, Any]) -> dict[str, Any]:
        """Run one iteration."""
        image, target, args, kwargs = _four(
            engine.prepare_batch(batchdata, engine.state.device, engine.non_blocking, **engine.to_kwargs)
        )
        size = len(image)
        step = size if self.micro_batch is None else min(self.micro_batch, size)
        engine.network.train()
        engine.optimizer.zero_grad(set_to_none=True)
        label = target.get("label") if isinstance(target, Mapping) else target
        engine.state.output = {CommonKeys.IMAGE: image, CommonKeys.LABEL: label}
        totals: dict[str, Tensor] = {}
        predictions: list[Tensor] = []
        for part in _parts((image, target, args, kwargs), size, step):
            weight = len(part[0]) / size
            prediction, terms = self._forward(engine, part)
            self._backward(engine, terms["loss"] * weight)
            for name, value in terms.items():
                totals[name] = totals.get(name, 0.0) + value.detach() * weight
            if prediction is not None:
                predictions.append(prediction.detach())
        engine.state.output.update({name: float(value) for name, value in totals.items()})
        require_finite(engine.state.output["loss"], batchdata, "the loss")
        if len(predictions) * step >= size:
            engine.state.output[CommonKeys.PRED] = predictions[0] if len(predictions) == 1 else torch.cat(predictions)
        self._update(engine, batchdata)
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        output: dict[str, Any] = engine.state.output
        return output

    def _forward(self, engine: Any, part: tuple[Any, ...]) -> tuple[Tensor | None, dict[str, Tensor]]:
        image, target, args, kwargs = part
        kind, kwargs_amp = engine.state.device.type, engine.amp_kwargs if self.dtype is None else {"dtype": self.dtype}
        with torch.autocast(kind, enabled=bool(engine.amp) or self.dtype is not None, **kwargs_amp):
            output = engine.inferer(image, engine.network, *args, **kwargs)
            engine.fire_event(IterationEvents.FORWARD_COMPLETED)
            with torch.autocast(kind, enabled=False) if self.dtype is not None else contextlib.nullcontext():
                output = output if self.dtype is None else _in_32_bits(output)
                terms = _terms(engine.loss_function(output, target))
        engine.fire_event(IterationEvents.LOSS_COMPLETED)
        prediction = getattr(output, "logits", output)
        return (prediction if isinstance(prediction, Tensor) else None), terms

    def _backward(self, engine: Any, loss: Tensor) -> None:
        scaler = engine.scaler if engine.amp else None
        (loss if scaler is None else scaler.scale(loss)).backward()

    def _update(self, engine: Any, batchdata: Mapping[str, Any]) -> None:
        scaler: Any = engine.scaler if engine.amp else None
        scaled = scaler is not None and scaler.is_enabled()
        parameters = [p for g in engine.optimizer.param_groups for p in g["params"] if p.grad is not None]
        if scaled and self.max_norm is not None:
            scaler.unscale_(engine.optimizer)
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters]) if parameters else torch.zeros(())
        if not scaled:  # with a scaler, steps whose gradients overflowed are skipped by design
            require_finite(norm, batchdata, "the gradient")
        if self.max_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.max_norm, norm)
        if scaler is None:
            engine.optimizer.step()
        else:
            scaler.step(engine.optimizer)
            scaler.update()


class NonFiniteGuard:
    """Stops a trainer with MONAI's own iteration as soon as the loss is not finite, naming the cases of the batch.

    :class:`TermsStep` checks by itself.
    """

    def attach(self, engine: Engine) -> None:
        """Register after the loss and before the gradient step."""
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Check the loss of this iteration.

        Raises:
            DataError: when it is NaN or infinite.
        """
        output = engine.state.output
        if isinstance(output, Mapping) and CommonKeys.LOSS in output:
            require_finite(output[CommonKeys.LOSS], engine.state.batch, "the loss")


def require_finite(value: Tensor | float, batchdata: Any, what: str) -> None:
    """Refuse NaN and infinity.

    Raises:
        DataError: with the cases of the batch.
    """
    number = torch.as_tensor(value)
    if bool(torch.isfinite(number).all()):
        return
    cases = _cases(batchdata)
    raise DataError(
        f"{what} is not finite",
        where="case " + ", ".join(cases) if cases else "this batch",
        got=number.tolist(),
        expected="a finite number",
        hint="look for NaN voxels: python -m tools data check; else lower --learning_rate, or take --precision fp32",
    )


def _terms(result: Any) -> dict[str, Tensor]:
    terms = dict(result) if isinstance(result, Mapping) else {"loss": result}
    if "loss" not in terms or not all(isinstance(v, Tensor) for v in terms.values()):
        raise ConfigError(
            "a loss returns a tensor, or a dict of tensors with the key 'loss'",
            got=sorted(terms) if isinstance(result, Mapping) else type(result).__name__,
        )
    reserved = {CommonKeys.IMAGE, CommonKeys.LABEL, CommonKeys.PRED} & terms.keys()
    if reserved:
        raise ConfigError("a term of the loss has a reserved name", got=sorted(reserved))
    return {name: value.mean() for name, value in terms.items()}


def _four(batch: tuple[Any, ...]) -> tuple[Any, Any, tuple[Any, ...], dict[str, Any]]:
    return (batch[0], batch[1], (), {}) if len(batch) == 2 else (batch[0], batch[1], batch[2], batch[3])


def _in_32_bits(value: Any) -> Any:
    """Every tensor of fewer bits in 32 of them; tuples keep their names."""
    if isinstance(value, Tensor):
        return value.float() if value.is_floating_point() else value
    if isinstance(value, Mapping):
        return type(value)({k: _in_32_bits(v) for k, v in value.items()})  # type: ignore[call-arg]
    if isinstance(value, tuple):
        parts = [_in_32_bits(v) for v in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return [_in_32_bits(v) for v in value] if isinstance(value, list) else value


def _parts(values: Any, size: int, step: int) -> Iterator[Any]:
    if step >= size:
        yield values
        return
    for start in range(0, size, step):
        yield _slice(values, slice(start, start + step), size)


def _slice(value: Any, part: slice, size: int) -> Any:
    """The part's samples of everything whose first axis (or length) is the batch; the rest as it is."""
    if isinstance(value, Tensor):
        return value[part] if value.ndim and len(value) == size else value
    if isinstance(value, Mapping):
        return {k: _slice(v, part, size) for k, v in value.items()}
    if isinstance(value, tuple):
        return tuple(_slice(v, part, size) for v in value)
    if isinstance(value, list):
        return value[part] if len(value) == size else value
    return value


def _move(value: Any, device: Any, non_blocking: bool, to_kwargs: Mapping[str, Any]) -> Any:
    if isinstance(value, Tensor):
        kwargs = to_kwargs if value.is_floating_point() else {k: v for k, v in to_kwargs.items() if k != "dtype"}
        return value.to(device=device, non_blocking=non_blocking, **kwargs)
    if isinstance(value, Mapping):
        return {k: _move(v, device, non_blocking, to_kwargs) for k, v in value.items()}
    return value


def _cases(batchdata: Any) -> list[str]:
    if isinstance(batchdata, (list, tuple)):
        return [c for item in batchdata for c in _cases(item)]
    case = batchdata.get("case", ()) if isinstance(batchdata, Mapping) else ()
    return [case] if isinstance(case, str) else [str(c) for c in case]
