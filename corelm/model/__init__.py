"""The assembled language model: stack, state, generation, loading and saving."""
