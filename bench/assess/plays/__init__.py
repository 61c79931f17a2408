"""How each game is asked: one module per game, with ``play(table, name, attack, adversary, seats) -> Assessment``."""
