"""The parts of ``distill`` and ``fisher``, which run a model over the chosen samples of a manifest."""
