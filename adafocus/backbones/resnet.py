"""torchvision's ResNets without the classification head; the keys of their state dicts are torchvision's."""

from __future__ import annotations

from torch import Tensor

from adafocus.backbones.base import Backbone

DEPTHS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")


class ResNet(Backbone):
    """torchvision's ResNet (stride in the 3x3 convolution) up to the last feature map, without pooling and `fc`.

    Args:
        name: a key of `DEPTHS`, such as "resnet50".
    """

    def __init__(self, name: str = "resnet50") -> None:
        super().__init__()
        import torchvision.models  # imported here, because it is slow and tiny networks do not need it

        if name not in DEPTHS:
            raise ValueError(f"unknown ResNet {name!r}; choose one of {', '.join(DEPTHS)}")
        net = getattr(torchvision.models, name)()
        self.width = net.fc.in_features
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = net.layer1, net.layer2, net.layer3, net.layer4

    def forward(self, images: Tensor) -> Tensor:
        """Computes feature maps (N, width, ceil(H / 32), ceil(W / 32)) of images (N, 3, H, W)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def map_size(self, size: int) -> tuple[int, int]:
        return -(-size // 32), -(-size // 32)
