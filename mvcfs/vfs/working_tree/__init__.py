"""The working tree of a branch: its nodes, overlay, versions, and what other hosts bring."""
