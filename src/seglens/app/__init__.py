"""What people touch: command line, napari plugin, reports."""
