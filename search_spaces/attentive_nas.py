"""AttentiveNAS at 192 to 288 pixels: widths, depths, kernels and expansions by the stage.

Source: AttentiveNAS (Wang et al., CVPR 2021) and its public code, after BigNAS (Yu et al., ECCV 2020).
Its published networks A0 to A3 have exactly the MACs given there when every block's shortcut is counted
where it is a convolution, squeeze-excite's two convolutions among the rest.
"""

from nas.families.mbconv import MBConvSpace, Shortcut, Stage
from nas.layers import Act


def _stage(
    name: str,
    widths: tuple[int, ...],
    depths: tuple[int, ...],
    expansions: tuple[int, ...],
    stride: int,
    *,
    se: bool,
) -> Stage:
    return Stage(
        name=name,
        widths=widths,
        stride=stride,
        depths=depths,
        kernels=(3, 5),
        expansions=expansions,
        is_uniform=True,
        has_squeeze_excite=se,
        act=Act.SWISH,
    )


ATTENTIVE_NAS = MBConvSpace(
    name="attentive_nas",
    resolutions=(192, 224, 256, 288),
    stem_widths=(16, 24),
    stem_stride=2,
    stem_act=Act.SWISH,
    stages=(
        _stage("mb1", (16, 24), (1, 2), (1,), 1, se=False),
        _stage("mb2", (24, 32), (3, 4, 5), (4, 5, 6), 2, se=False),
        _stage("mb3", (32, 40), (3, 4, 5, 6), (4, 5, 6), 2, se=True),
        _stage("mb4", (64, 72), (3, 4, 5, 6), (4, 5, 6), 2, se=False),
        _stage("mb5", (112, 120, 128), (3, 4, 5, 6, 7, 8), (4, 5, 6), 1, se=True),
        _stage("mb6", (192, 200, 208, 216), (3, 4, 5, 6, 7, 8), (6,), 2, se=True),
        _stage("mb7", (216, 224), (1, 2), (6,), 1, se=True),
    ),
    shortcut=Shortcut.PROJECTION,
    head_width=None,
    head_hidden_widths=(1792, 1984),
    head_act=Act.SWISH,
    default_classes=1000,
)
