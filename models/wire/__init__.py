"""What passes between device and server: messages, topics, signatures, and the link."""
