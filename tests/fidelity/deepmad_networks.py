"""The networks that DeepMAD published, with what is known of them.

Source: the structure files of DeepMAD's public code (Shen et al., CVPR 2023).
"""

from dataclasses import dataclass

from nas.prefilter.deepmad import BlockKind, Stage, Structure


@dataclass(frozen=True)
class Published:
    """One network: its figures by the public code, to the digits given."""

    structure: Structure
    params_millions: float
    gflops: float
    effectiveness: float
    entropy: float
    objective: float


def _structure(kind, resolution_px, stem, stages, head=None):
    """Stages are written out/inner/kernel/depth, with ' where the first block has stride 1."""
    built = [Stage(kind=BlockKind.CONV, out_channels=stem, kernel=3, stride=2)]
    for text in stages.split():
        out, inner, kernel, depth = map(int, text.rstrip("'").split("/"))
        stride = 1 if text.endswith("'") else 2
        built.append(
            Stage(
                kind=kind, out_channels=out, inner_channels=inner, kernel=kernel, depth=depth, stride=stride
            )
        )
    if head is not None:
        built.append(Stage(kind=BlockKind.CONV, out_channels=head, kernel=1, stride=1))
    return Structure(stages=tuple(built), resolution_px=resolution_px)


def bottlenecks(resolution_px, stem, stages):
    """A network of bottlenecks, stages as text."""
    return _structure(BlockKind.BOTTLENECK, resolution_px, stem, stages)


def inverted_residuals(resolution_px, stem, stages, head):
    """A network of inverted residuals with squeeze-excite, stages as text."""
    return _structure(BlockKind.INVERTED_RESIDUAL_SE, resolution_px, stem, stages, head)


PUBLISHED = {
    "R18": Published(
        bottlenecks(224, 32, "96/40/5/1 384/40/5/6 384/64/5/9 1024/104/3/10' 672/104/5/12"),
        11.153, 1.837, 0.2991, 32120.2, 32085.4,
    ),
    "R34": Published(
        bottlenecks(224, 24, "128/24/5/1 512/48/5/10 896/88/5/13 1024/104/5/11' 616/128/5/14"),
        21.073, 3.675, 0.3000, 43142.7, 43107.9,
    ),
    "R50": Published(
        bottlenecks(224, 32, "128/40/5/1 512/48/5/11 872/88/5/12 1024/104/5/13' 1232/120/5/15"),
        24.208, 4.087, 0.2998, 48919.3, 48884.5,
    ),
    "29M-224": Published(
        inverted_residuals(
            224, 40, "40/240/5/2' 85/512/5/4 134/800/5/6 201/1208/5/6 312/1872/5/5", 1792
        ),
        26.877, 4.449, 0.4965, 19135.9, 19091.3,
    ),
    "29M-288": Published(
        inverted_residuals(
            288, 40, "61/368/5/4 96/576/5/4 145/872/5/5 217/1304/5/6' 328/1968/5/4", 1792
        ),
        26.911, 4.435, 0.4966, 19349.4, 19327.1,
    ),
    "50M": Published(
        inverted_residuals(
            224, 48, "112/672/5/7 168/1008/5/9 252/1512/5/7 378/2272/5/3 576/3456/3/1'", 2048
        ),
        47.360, 8.611, 0.4930, 23605.3, 23416.3,
    ),
    "89M": Published(
        inverted_residuals(
            224, 56, "136/816/5/10 204/1224/5/9 326/1952/5/7 490/2944/5/4 744/4464/3/1'", 2560
        ),
        85.765, 15.257, 0.4951, 28445.3, 28171.3,
    ),
}  # fmt: skip
