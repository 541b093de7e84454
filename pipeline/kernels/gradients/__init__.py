"""Gradients of samples, and their sketches."""
