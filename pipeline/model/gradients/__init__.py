"""Gradient kinds, one file each."""
