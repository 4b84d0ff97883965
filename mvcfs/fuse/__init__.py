"""The only import of pyfuse3: operations as a thin adapter, the errno table, the life of a mount."""
