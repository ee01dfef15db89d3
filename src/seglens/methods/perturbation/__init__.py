"""Family: perturbation."""
