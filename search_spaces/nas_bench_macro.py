"""NAS-Bench-Macro: 8 layers of three choices at 32 × 32; 6,561 strings, 3,969 networks.

Source: Su et al., CVPR 2021 (the benchmark's search space).
"""

from nas.families.layer_choice import LayerChoiceSpace, LayerOption

NAS_BENCH_MACRO = LayerChoiceSpace(
    name="nas_bench_macro",
    resolution=32,
    stem_width=32,
    stage_widths=(64, 128, 256),
    stage_layers=(2, 3, 3),
    options=(
        LayerOption(name="identity"),
        LayerOption(name="mb_k3_e3", kernel=3, expansion=3),
        LayerOption(name="mb_k5_e6", kernel=5, expansion=6),
    ),
    head_width=1280,
)
