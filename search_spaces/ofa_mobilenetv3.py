"""OFA-MobileNetV3, width 1.0, at 128 to 224 pixels, and its variant for 32-pixel images.

Source: Once-for-All (Cai et al., ICLR 2020); the 32-pixel strides are those DεpS uses for CIFAR.
"""

from dataclasses import replace

from nas.families.mbconv import MBConvSpace, Stage
from nas.layers import Act


def _unit(number: int, width: int, stride: int, *, se: bool, act: Act) -> Stage:
    return Stage(
        name=f"unit{number}",
        widths=(width,),
        stride=stride,
        depths=(2, 3, 4),
        kernels=(3, 5, 7),
        expansions=(3, 4, 6),
        has_squeeze_excite=se,
        act=act,
    )


_BLOCK_0 = Stage(
    name="block0", widths=(16,), stride=1, depths=(1,), kernels=(3,), expansions=(1,),
    has_squeeze_excite=False, act=Act.RELU,
)  # fmt: skip

OFA_MOBILENETV3 = MBConvSpace(
    name="ofa_mobilenetv3",
    resolutions=tuple(range(128, 225, 4)),
    stem_widths=(16,),
    stem_stride=2,
    stages=(
        _BLOCK_0,
        _unit(1, 24, 2, se=False, act=Act.RELU),
        _unit(2, 40, 2, se=True, act=Act.RELU),
        _unit(3, 80, 2, se=False, act=Act.HARD_SWISH),
        _unit(4, 112, 1, se=True, act=Act.HARD_SWISH),
        _unit(5, 160, 2, se=True, act=Act.HARD_SWISH),
    ),
    head_width=960,
    head_hidden_widths=(1280,),
    default_classes=1000,
)

_STRIDES_32 = {"unit1": 1}

OFA_MOBILENETV3_32 = replace(
    OFA_MOBILENETV3,
    name="ofa_mobilenetv3_32",
    resolutions=(32,),
    stem_stride=1,
    stages=tuple(replace(s, stride=_STRIDES_32.get(s.name, s.stride)) for s in OFA_MOBILENETV3.stages),
    default_classes=10,
)
