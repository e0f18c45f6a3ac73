"""The applications in integrations/, as a user runs them."""
