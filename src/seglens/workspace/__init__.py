"""What a person keeps: stores on disk that survive a kill, two viewers and a folder that was renamed."""
