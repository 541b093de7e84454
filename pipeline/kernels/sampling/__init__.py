"""Budgets, draws, weights, repeats and orders."""
