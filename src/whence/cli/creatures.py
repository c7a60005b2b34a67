"""`whence creatures`: draw pictures with known answers, train on them, score a model."""

import typer

app = typer.Typer(help="Drawn pictures whose true answers are known.", no_args_is_help=True)
