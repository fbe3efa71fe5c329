"""The files of a run, as the report reads them: stages, metrics, samples, answers.

Belongs here: from files to records, without torch, changing nothing. Not here: what they mean.
"""
