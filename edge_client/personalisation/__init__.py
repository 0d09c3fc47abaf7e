"""What a device learns of its own battery beside the model; it never leaves the device.

One named value of the store, sealed where the store is, gone with it. No message is made from it:
summaries tell what the model alone says.
"""
