"""The server side of a deployment: SuperLink, SuperExec and proxy, from one folder."""
