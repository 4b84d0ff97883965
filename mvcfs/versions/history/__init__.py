"""Versions as lines, revisions that name them, walks along paths and graphs."""
