"""The truth on disk: PostgreSQL for rows, an fsspec folder for bytes."""
