"""A framework's response around a subscriber."""
