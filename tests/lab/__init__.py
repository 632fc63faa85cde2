"""Real hosts on this one machine, each in a network namespace with an address of its own, and the tests that need
them."""
