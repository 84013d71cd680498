"""LoRA experts on the queries and values of a frozen transformer, held and stored by PEFT: everything in one place."""

from __future__ import annotations

from .lora_experts import (
    LEVELS,
    TARGETS,
    add_experts,
    expert_names,
    expert_parameters,
    expert_target,
    set_expert,
)
from .lora_files import base_hash, load_adapter, save_adapter
from .lora_merge import merge_expert, remove_expert, weighted_adapter
from .lora_qkv import SplitQKV, base_qkv, batched_deltas, batched_qkv, expert_deltas, qkv_modules, split_qkv

__all__ = [
    "LEVELS",
    "TARGETS",
    "SplitQKV",
    "add_experts",
    "base_hash",
    "base_qkv",
    "batched_deltas",
    "batched_qkv",
    "expert_deltas",
    "expert_names",
    "expert_parameters",
    "expert_target",
    "load_adapter",
    "merge_expert",
    "qkv_modules",
    "remove_expert",
    "save_adapter",
    "set_expert",
    "split_qkv",
    "weighted_adapter",
]
