"""For operators: what the statements are, how PostgreSQL plans them, and which cost the most."""
