"""What is computed of two sets of features; one file a metric."""
