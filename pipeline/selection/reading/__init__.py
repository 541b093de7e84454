"""Reading runs for select: rows, vectors, cells, history."""
