"""What others have built, used as their own documentation shows."""
