# What the configuration of an agent says, ours or that of the web panel's former one.

worker_in() { # FILE: prints the worker's id; nothing where it names none
  sed -n 's/.*"workerId" *: *"\([^"]*\)".*/\1/p' "$1" 2>/dev/null | tr '[:upper:]' '[:lower:]' | sed 1q
}

manager_in() { # FILE
  sed -n 's/.*"apiUrl" *: *"\([^"]*\)".*/\1/p' "$1" 2>/dev/null | sed 1q
}

