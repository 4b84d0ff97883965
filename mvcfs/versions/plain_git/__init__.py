"""Ordinary Git repositories brought in and given out."""
