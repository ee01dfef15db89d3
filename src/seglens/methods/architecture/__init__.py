"""Family: architecture."""
