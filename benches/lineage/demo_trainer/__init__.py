"""The trainer of the demo's four models, and the oracle of the zoo's."""
