"""Parts of ``explain``, ``locate`` and ``compare``: samples by name, by text, by place, and how far they are apart."""
