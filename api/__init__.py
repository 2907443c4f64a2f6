"""The HTTP service: it validates, reads and inserts rows. Torch and Ray are not installed where it runs."""
