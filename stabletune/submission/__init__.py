"""``stabletune submit``: a search as a job of a Ray cluster, its files sent there and its results fetched back."""
