"""What is kept of a study, and everything made from it afterwards: the run folder, the recommendation, exports, report.

Flows in: ``TrialResult`` and plain dictionaries from ``study``. Flows out: files, read again by people and commands.
"""
