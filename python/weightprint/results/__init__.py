"""What every stage hands on: findings, tables, how results show themselves, saving whole or not at all. May import util
and errors."""
