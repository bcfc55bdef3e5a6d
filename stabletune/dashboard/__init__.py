"""The live view of a running search or of a training that is watched: reads their files, and writes none."""
