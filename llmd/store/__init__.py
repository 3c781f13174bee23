"""Keys, profiles, sessions and turns in a database. The only folder that imports SQLAlchemy."""
