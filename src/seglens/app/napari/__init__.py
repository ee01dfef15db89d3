"""The napari plugin: panels, jobs and layers. It holds no mathematics and imports no torch."""
