"""Parts of ``explain``, ``locate`` and ``compare``: samples by name, by text, by place in the order, and by distance."""
