"""What outlives the process: saved weights and bundles."""
