"""What is fitted on the training rows, a kind of column each."""
