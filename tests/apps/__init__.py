"""Programs and web applications that tests start as processes of their own."""
