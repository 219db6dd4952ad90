"""The neurons, framework-free: their equations and derivatives, written once, in plain torch."""
