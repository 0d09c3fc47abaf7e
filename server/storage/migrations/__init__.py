"""Alembic's revisions of the tables; they ship with the package and run when a database opens."""
