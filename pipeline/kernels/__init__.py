"""Pure mathematics on arrays: numpy, torch and faiss; no Beam, no files, no clocks."""
