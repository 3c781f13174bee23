"""Keys, profiles, sessions, settings and the audit trail: the only folder with SQLAlchemy."""
