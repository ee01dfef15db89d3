"""Family: counterfactual."""
