"""NAS-Bench-201: a cell of 6 edges with five operations; 15,625 strings, 6,466 networks.

Source: Dong and Yang, ICLR 2020.

Its supernet is trained like any other: each edge of each cell has a convolution of its own for each kernel,
whose batch norm has a scale and a shift, as in the benchmark's networks, and no running statistics: what is
measured is recalibrated for the one network.
Deviation: PA&DA's supernet of this space (CVPR 2023) has neither scale nor shift and normalises test images
by the statistics of their own batch, so that a network's accuracy depends on the images beside each other.
"""

from nas.families.cell import CellSpace

NAS_BENCH_201 = CellSpace(name="nas_bench_201", resolution=32, stage_widths=(16, 32, 64), cells_per_stage=5)
