"""Networks that turn images into feature vectors."""
