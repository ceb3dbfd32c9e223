"""The devices of clients: what is kept of them, and what can be asked."""
