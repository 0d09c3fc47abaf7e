"""What the device process does with the server: what is sent, what is believed, what is noted."""
