"""What we do on this host: PostgreSQL's process, files, users, signals, certificates, the service manager."""
