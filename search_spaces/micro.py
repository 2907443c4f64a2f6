"""micro (24 to 32 pixels) and micro_8 (8 pixels): every kind of decision, small enough for a CPU."""

from dataclasses import replace

from nas.families.mbconv import MBConvSpace, Stage
from nas.layers import Act


def _stage(name: str, widths: tuple[int, ...], stride: int, *, late: bool) -> Stage:
    return Stage(
        name=name,
        widths=widths,
        stride=stride,
        depths=(1, 2, 3),
        kernels=(3, 5, 7),
        expansions=(2, 3, 4),
        has_squeeze_excite=late,
        act=Act.HARD_SWISH if late else Act.RELU,
    )


MICRO = MBConvSpace(
    name="micro",
    resolutions=(24, 28, 32),
    stem_widths=(16,),
    stem_stride=2,
    stages=(
        _stage("stage1", (8, 16), 1, late=False),
        _stage("stage2", (16, 24), 2, late=False),
        _stage("stage3", (32, 48), 2, late=True),
        _stage("stage4", (64, 80), 1, late=True),
    ),
    head_width=256,
)

MICRO_8 = replace(MICRO, name="micro_8", resolutions=(8,), stem_stride=1)
