"""IC-MoE on pictures of any size."""

from __future__ import annotations

from monai.data import MetaTensor
from torch import Tensor
from torch.nn import functional as F

from ...errors import ConfigError
from ...layers.same_weights import SameWeights
from .network import ICMoE, with_background
from .views import PictureViews, picture_views

__all__ = ["ICMoEPicture"]


class ICMoEPicture(SameWeights):
    """Segment pictures; those of another size than the network's are resized, and their logits resized back.

    Args:
        network: its parameters keep their names, so that weights of one are weights of the other.

    Shapes:
        image ``[B, 1 or 3, X, Y]``, 0..1 -> logits ``[B, K+1, X, Y]``, those of the background 0.

    Raises:
        ConfigError: for anything but pictures.
    """

    network: ICMoE

    def __init__(self, *, network: ICMoE) -> None:
        super().__init__(network)

    def forward(self, image: Tensor, box: Tensor | None = None) -> Tensor:
        """Segment.

        Args:
            image: see above.
            box: low and high corner ``[B, 2, 2]``, pixels of the image; None for no prompt.
        """
        if image.ndim != 4:
            raise ConfigError("a picture has two axes", got=tuple(image.shape), expected="[B, 1 or 3, X, Y]")
        image = image.as_tensor() if isinstance(image, MetaTensor) else image
        size, own = tuple(image.shape[2:]), (self.network.image_size,) * 2
        if size != own:
            image = F.interpolate(image, size=own, mode="bilinear", align_corners=False, antialias=True)
            box = None if box is None else box * box.new_tensor([own[0] / size[0], own[1] / size[1]])
        logits = with_background(self.network(image, box=box).logits)
        return logits if size == own else F.interpolate(logits, size=size, mode="bilinear", align_corners=False)

    def views(self, image: Tensor, box: Tensor | None = None) -> PictureViews:
        """What the experts see in a picture ``[1, 1 or 3, S, S]``, see :func:`~.views.picture_views`."""
        return picture_views(self.network, image, box)
