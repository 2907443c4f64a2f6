"""The spaces as tests run them: those for large images with narrower stages and smaller images.

Their networks would cost seconds each; every kind of layer, every decision, and maps of odd size are kept.
"""

from dataclasses import replace

from search_spaces import SPACES


def _narrow_mbconv(space, resolutions):
    stages = tuple(
        replace(stage, widths=tuple(width // 4 for width in stage.widths), depths=stage.depths[:3])
        for stage in space.stages
    )
    return replace(space, resolutions=resolutions, stages=stages, head_hidden_widths=(96, 128))


def _narrow_bottleneck(space, resolutions):
    stages = tuple(replace(stage, width=stage.width // 4) for stage in space.stages)
    return replace(space, resolutions=resolutions, stages=stages)


# The 32-pixel variant of ofa_mobilenetv3 has the same layers.
SMALL_SPACES = {name: space for name, space in SPACES.items() if name != "ofa_mobilenetv3"} | {
    "attentive_nas": _narrow_mbconv(SPACES["attentive_nas"], resolutions=(32, 40)),
    "ofa_resnet50": _narrow_bottleneck(SPACES["ofa_resnet50"], resolutions=(32, 36)),
}
