"""Export: a network as a bundle that needs nothing of this project, and that proves its own figures.

The way through: `extract` with statistics, measure, `Card`, then `write_bundle`.
"""

from supernet.export.bundle import BundleFile, write_bundle
from supernet.export.card import Card, CostFigure, Origin, Preprocessing, counted_costs
from supernet.export.gates import CheckImages, check_agreement, check_statistics
from supernet.export.onnx_graph import build_onnx
from supernet.export.source import generate_source

__all__ = [
    "BundleFile",
    "Card",
    "CheckImages",
    "CostFigure",
    "Origin",
    "Preprocessing",
    "build_onnx",
    "check_agreement",
    "check_statistics",
    "counted_costs",
    "generate_source",
    "write_bundle",
]
