"""A CLIP of random weights and a byte vocabulary, small enough to train in a test."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny_sd import MAX_TOKENS, byte_tokenizer
from transformers import CLIPConfig, CLIPModel

NUM_BLOCKS, WIDTH, SIZE_PX = 3, 32, 28


def write_tiny_clip(folder: Path, *, seed: int = 0) -> Path:
    """Save model and tokenizer to `folder`, as `from_pretrained` finds them."""
    tokenizer = byte_tokenizer(folder)
    tokenizer.save_pretrained(folder)
    config = CLIPConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 24,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": MAX_TOKENS,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "hidden_size": WIDTH,
            "intermediate_size": 64,
            "num_hidden_layers": NUM_BLOCKS,
            "num_attention_heads": 4,
            "image_size": SIZE_PX,
            "patch_size": 7,
        },
        projection_dim=16,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        CLIPModel(config).save_pretrained(folder)
    return folder
