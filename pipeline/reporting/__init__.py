"""The parts of ``report`` and ``compare``: facts of selections, plots, and the page that shows them."""
