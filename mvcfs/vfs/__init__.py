"""POSIX behaviour without a kernel: inodes, handles, namespace, working tree, snapshots. Joins versions and content."""
