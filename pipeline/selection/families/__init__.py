"""What the families of methods do: pick from a cell, and choose from a whole group. One file a family."""
