"""`whence interpretable`: its commands."""

import typer

from whence.cli import cam_head, filters, training

app = typer.Typer(help="CNNs whose filters mean one part each, and heads for CAM.", no_args_is_help=True)
app.command("train")(training.train)
app.command("cam-head")(cam_head.cam_head)
app.command("report")(filters.report)
