"""Which of two related models is the later one, or where two siblings parted. May import what verdict may."""
