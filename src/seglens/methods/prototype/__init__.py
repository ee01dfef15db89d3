"""Family: prototype."""
