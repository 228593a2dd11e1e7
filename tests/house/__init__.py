"""The house itself: its structure, its papers and its packages are tested like behaviour."""
