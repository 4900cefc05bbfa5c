"""Commands: `python -m daskim.jobs.NAME`. Each is a parse and one library call."""
