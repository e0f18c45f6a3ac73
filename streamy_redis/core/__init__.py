"""What is decided: pure, without clock, socket, thread, event loop, Redis or framework."""
