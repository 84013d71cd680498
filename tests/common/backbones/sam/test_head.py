"""One head against segment-anything's own decoder."""

import pytest
import torch

from common.backbones.sam.head import SamHead
from common.backbones.sam.network import sam_decoder
from common.errors import PromptError


def head(classes):
    prompts, decoder = sam_decoder("tiny", image_size=64, classes=classes, seed=0)
    return SamHead(prompt_encoder=prompts, mask_decoder=decoder)


def library(own, embedding, box):
    """One image at a time, as segment-anything is used; its boxes name the last axis first."""
    found = []
    for b in range(len(embedding)):
        corners = None if box is None else box[b].flip(-1).reshape(1, 4)
        sparse, dense = own.prompt_encoder(None, corners, None)
        masks, _ = own.mask_decoder(
            image_embeddings=embedding[b : b + 1], image_pe=own.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse, dense_prompt_embeddings=dense, multimask_output=own.classes > 1,
        )  # fmt: skip
        found.append(masks)
    return torch.cat(found)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("boxed", [False, True])
def test_it_is_segment_anything_s_decoder(classes, boxed):
    own = head(classes)
    embedding = torch.randn(3, 32, 4, 4)
    box = torch.tensor([[[2.0, 3], [40, 50]], [[0, 0], [63, 20]], [[5, 9], [6, 60]]]) if boxed else None
    found = own(embedding, box)
    assert own.classes == classes - 1 and found.shape == (3, classes - 1, 16, 16)
    assert torch.allclose(found, library(own, embedding, box), atol=1e-5)


def test_boxes_are_one_per_image():
    with pytest.raises(PromptError, match="one box per image"):
        head(2)(torch.randn(2, 32, 4, 4), torch.zeros(1, 2, 2))
