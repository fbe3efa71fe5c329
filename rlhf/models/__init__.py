"""Loading, adapters, the policy with its value head, the scalar model, the frozen reference."""
