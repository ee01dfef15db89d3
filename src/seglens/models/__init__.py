"""What gets explained: segmentation models, how they are loaded and run."""
