"""The search spaces, by name. An explicit mapping: nothing is registered by importing."""

from nas.space import SearchSpace
from search_spaces.attentive_nas import ATTENTIVE_NAS
from search_spaces.micro import MICRO, MICRO_8
from search_spaces.nas_bench_201 import NAS_BENCH_201
from search_spaces.nas_bench_macro import NAS_BENCH_MACRO
from search_spaces.ofa_mobilenetv3 import OFA_MOBILENETV3, OFA_MOBILENETV3_32
from search_spaces.ofa_resnet50 import OFA_RESNET50

SPACES: dict[str, SearchSpace] = {
    "micro": MICRO,
    "micro_8": MICRO_8,
    "ofa_mobilenetv3": OFA_MOBILENETV3,
    "ofa_mobilenetv3_32": OFA_MOBILENETV3_32,
    "ofa_resnet50": OFA_RESNET50,
    "attentive_nas": ATTENTIVE_NAS,
    "nas_bench_macro": NAS_BENCH_MACRO,
    "nas_bench_201": NAS_BENCH_201,
}

__all__ = ["SPACES"]
