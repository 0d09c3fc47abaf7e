"""Command groups that `fedcell` finds through the entry points `fedcell.commands`."""
