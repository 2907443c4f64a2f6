"""Devices: how long a network takes on one, measured block by block or as a whole, and predicted from that.

The way through: `fused_blocks` reads a lowering as the pieces that a runtime runs, a `LatencyTable` says how
long each takes on a `Device`, `fit_latency` makes a `LatencyModel` of that and of whole networks, and
`DeviceCosts` puts `latency_ms` beside the exact costs of a space.
"""
