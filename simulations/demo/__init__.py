"""The demo: the product's main job, end to end, on one machine.

`storyline.run_demo` tells it from beginning to end; every other module is one subject of it.
"""
