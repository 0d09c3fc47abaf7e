"""From a gauge to readings: drivers, what their words mean, and when they are asked."""
