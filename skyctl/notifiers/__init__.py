"""Alerts to people outside of the database."""
