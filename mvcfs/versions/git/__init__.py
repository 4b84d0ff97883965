"""Git's own formats: objects, packs, LFS pointers and patterns, trailers, walks over commits."""
