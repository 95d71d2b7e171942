"""Every method on every pair: open, run, record, count."""
