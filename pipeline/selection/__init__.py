"""The parts of ``cptsel select``: reading cells, dividing the budget, the methods, scopes, weights and the manifest."""
