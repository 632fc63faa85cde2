"""The functions of the system, by who asks for them; each function opens its own transactions, and nothing else opens
any."""
