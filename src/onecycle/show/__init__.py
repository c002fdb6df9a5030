"""What people look at: plots, progress, reports."""
