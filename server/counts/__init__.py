"""Counts that devices answer in private: asked, released with noise, and read."""
