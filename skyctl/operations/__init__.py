"""What the system does, by who asks for it; each function opens its own transactions, and nothing else opens any."""
