"""The only import of pygit2: commits, refs, the ref log, history, merge, publish."""
