"""Worker-node manager for container platforms: admin command line, HTTP API, monitor."""
