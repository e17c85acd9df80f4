"""``python -m cdm4mi``: the ``cdm4mi`` command, where its script is not on the path."""

from cdm4mi.cli.main import run

if __name__ == "__main__":
    run()
