"""The proof: which candidates are sent, what they run, who wins, and what the user is told of it."""
