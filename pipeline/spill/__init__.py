"""More rows than memory takes: columns on disk, sorted in parts, and what samples take from those before them."""
