"""Family: gradient."""
