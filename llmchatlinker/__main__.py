"""``python -m llmchatlinker``: the command line."""

from llmchatlinker.cli import main

main(prog_name="llmchatlinker")
