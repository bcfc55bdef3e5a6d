"""What the signals cost, how right they are and what they miss, beside other tools, in one interleaved run."""
