"""Matching: weighted samples whose gradients add up to those of all."""
