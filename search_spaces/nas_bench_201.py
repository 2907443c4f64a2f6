"""NAS-Bench-201: a cell of 6 edges with five operations; 15,625 strings, 6,466 networks.

Source: Dong and Yang, ICLR 2020.
"""

from nas.families.cell import CellSpace

NAS_BENCH_201 = CellSpace(name="nas_bench_201", resolution=32, stage_widths=(16, 32, 64), cells_per_stage=5)
