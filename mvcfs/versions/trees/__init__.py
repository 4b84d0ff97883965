"""Trees of versions with their attributes: reading, building, editing, comparing."""
