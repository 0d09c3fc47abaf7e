"""A gateway: the SuperNode of a site, which speaks MQTT to the small devices behind it."""

from typing import Final

SITE_KEY: Final = "gateway-site"
"""Key of a node's configuration that names the site file; a node that has it is a gateway."""
