"""The verb on one model: is it whole, sound and what it claims to be? May import scan and below."""
