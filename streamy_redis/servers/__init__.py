"""All that is known of a web server: how it shows that it stops, and whose connection is whose."""
