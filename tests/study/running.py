"""Running a study inline and reading its tables, for the tests of whole studies."""

import csv

from stabletune import search


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def run(config, output, **options):
    return search(config, output=output, executor="inline", **options)
