"""Formats in which a manifest's samples are handed to a trainer."""
