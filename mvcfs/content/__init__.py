"""What files hold: chunker, packs, manifests, staging, block cache, prefetch, memory budget."""
