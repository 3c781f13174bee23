"""The database: keys, profiles, sessions, settings and the audit trail.

This is the only folder that imports SQLAlchemy.
"""
