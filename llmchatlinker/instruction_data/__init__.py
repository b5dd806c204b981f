"""What each instruction type takes: strict, frozen models, a module per unit."""
