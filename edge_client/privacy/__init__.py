"""A device's own account of what has left it: ledger, decisions, receipts, and its owner's view.

The mechanisms and rules are in the package `privacy`; here they meet the device's files.
"""
