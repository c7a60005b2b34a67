"""`whence study`: whole folders of pictures."""

from typing import Annotated

import typer

from whence.cli import console, study_compare, study_count, study_cross, study_debug
from whence.cli.study_options import Asked, command, duration, models_of, studied, tell_failed

app = typer.Typer(help="Whole folders: explain every picture, and ask what a model looks at.", no_args_is_help=True)


@app.command("run")
@command
def run(
    asked: Asked,
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:key=value,...]",
            help="How to explain; may be repeated. `whence methods` lists them. [default: grad-cam]",
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:key=value,...]",
            help="How good each map is; may be repeated. `whence metrics` lists them. [default: none]",
        ),
    ] = None,
    gallery: Annotated[
        bool, typer.Option("--gallery", help="Write pages with every picture and its maps beside the report.")
    ] = False,
) -> None:
    """Explain every picture of a folder; run again with the same arguments, it goes on where it ended.

    The rows stand in FOLDER/parts/*.parquet, a page with the distributions and the best and worst pictures in
    FOLDER/report.html. Exit code 3 means that some rows failed, or that Ctrl-C ended the run; the rest is there.
    """
    study = studied(asked, models_of(asked), method or ["grad-cam"], metric or [])
    from whence.studies.page import write_page

    page = write_page(study, gallery=gallery)
    summary = study.summary()
    if asked.json:
        console.result({**summary, "report": str(page)})
    else:
        console.say(
            f"{summary['pictures']:,} pictures, {summary['rows']:,} rows, {summary['failed']:,} of them failed; "
            f"{duration(summary['seconds'])} of work"
        )
        console.say(str(page))
    tell_failed(study)


app.command("compare")(study_compare.compare)
app.command("count")(study_count.count)
app.command("cross")(study_cross.cross)
app.command("debug")(study_debug.debug)
