"""The networks of the known extractors in PyTorch, for the export alone: nothing else imports these files."""
