"""Workers: they claim jobs, and train, search and specialise. `workers.wiring` puts the parts together."""
