"""Alembic runs this: it migrates over the connection that `server.storage.database` passes in."""

from alembic import context

from server.storage.release_tables import metadata


def run() -> None:
    """Migrate over the given connection, within its transaction."""
    context.configure(
        connection=context.config.attributes["connection"],
        target_metadata=metadata,
        render_as_batch=True,
    )
    with context.begin_transaction():
        context.run_migrations()


run()
