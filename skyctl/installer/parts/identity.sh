# As whom the agent runs.

choose_identity() {
  identity=root
}

hand_over() {
  :
}

