"""The prototype gallery: examples as thumbnails, edited with undo, and what an edit does to a mask."""
