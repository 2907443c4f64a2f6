"""OFA-ResNet-50D at 128 to 224 pixels: width of each stage, depth, expansion of each block.

Source: Once-for-All (Cai et al., ICLR 2020), the ResNet-50D space of its public code. ResNet-50D itself is
one of its networks: full width, expansion 0.25, depths 3, 4, 6, 3.
"""

from nas.families.bottleneck import BottleneckSpace, Stage

OFA_RESNET50 = BottleneckSpace(
    name="ofa_resnet50",
    resolutions=tuple(range(128, 225, 4)),
    width_multipliers=(0.65, 0.8, 1.0),
    extra_depths=(0, 1, 2),
    expansions=(0.2, 0.25, 0.35),
    stem_width=64,
    stages=(
        Stage(name="stage1", width=256, base_depth=2, stride=1),
        Stage(name="stage2", width=512, base_depth=2, stride=2),
        Stage(name="stage3", width=1024, base_depth=4, stride=2),
        Stage(name="stage4", width=2048, base_depth=2, stride=2),
    ),
)
