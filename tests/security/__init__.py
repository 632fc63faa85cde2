"""What a host, a local user, a taken-over API, the network and strangers may not do."""
