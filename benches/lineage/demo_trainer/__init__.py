"""How the demo's models are made, and two forward passes that tests hold against the zoo's."""
