"""This device's SuperNode: started from its membership, kept running, held to the pinned bundle.

The command's own process stays light; what imports Flower is `supernode`, a process of its own.
"""
