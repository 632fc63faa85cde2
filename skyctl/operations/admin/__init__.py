"""What administrators ask and wish."""
