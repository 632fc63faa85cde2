"""What administrators do over HTTP: each operation once, with its route, its role and its documents."""
