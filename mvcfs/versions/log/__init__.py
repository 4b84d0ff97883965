"""The ref log of a store: records, their publication, state, checkpoints, leases."""
