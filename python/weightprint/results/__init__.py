"""What every stage hands on: findings, tables, saving whole or not at all. May import util and errors."""
