"""Pictures and pages made from answers."""
