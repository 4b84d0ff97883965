"""Three-way merges of trees."""
