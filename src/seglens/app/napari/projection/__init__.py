"""The projection dock: a feature bank as points, linked with gallery, layers and tables."""
