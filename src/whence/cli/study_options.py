"""What the commands of studies share: their options, and the study that they run first."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from whence.cli import console
from whence.cli.console import Debug, Device, Json, Precision, Seed, Trust
from whence.errors import OptionError, nearest

if TYPE_CHECKING:
    from whence.models.classifier import Classifier
    from whence.studies.estimate import Estimate
    from whence.studies.job import Job
    from whence.studies.planning import Given
    from whence.studies.study import Study

Folder = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="A folder of pictures, or of folders named after the classes.")
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        "-m",
        metavar="SPEC",
        help="As for `whence explain`; may be repeated. [default: creatures]",
    ),
]
Out = Annotated[Path, typer.Option(metavar="FOLDER", help="A new folder, or that of the same study to go on in.")]
Truth = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.csv",
        help="The true classes, in the columns `file` and `label`. [default: such a table in the folder, or the "
        "names of its folders]",
    ),
]
Target = Annotated[
    str | None,
    typer.Option(metavar="T", help="What is explained, as for `whence explain`, or truth. [default: the top class]"),
]
Engine = Annotated[
    Literal["local", "processes", "ray"],
    typer.Option(help="Where the work is done: in this process, in several, or by Ray.", rich_help_panel="Workers"),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="How many work at once. [default: one a device]", rich_help_panel="Workers"),
]
Loaders = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Processes that decode pictures beside each model. [default: 0; 4 on a GPU]",
        rich_help_panel="Workers",
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT", help="The cluster to join. [default: a Ray of its own]", rich_help_panel="Workers"
    ),
]
Batch = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Pictures that go through a model together. [default: 32; 128 on a GPU]",
        rich_help_panel="Workers",
    ),
]
Shard = Annotated[
    int | None,
    typer.Option(
        min=1, help="Pictures in one file, redone where their worker dies. [default: by the methods' cost]",
        rich_help_panel="Workers",
    ),
]  # fmt: skip
Threads = Annotated[int, typer.Option(min=1, help="Threads of each worker.", rich_help_panel="Workers")]
Bits = Annotated[int | None, typer.Option(help="How many bits 16-bit pictures use. [default: found for each]")]
MapKind = Annotated[
    Literal["float32", "float16", "none"], typer.Option("--maps", help="In which type the maps are kept.")
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Explain one shard, say what all will take, and write nothing."),
]


@dataclass(frozen=True)
class Asked:
    """What every command of studies can be asked; the fields are its options."""

    folder: Folder
    model: Models = None
    out: Out = Path("whence-study")
    target: Target = None
    truth: Truth = None
    maps: MapKind = "float32"
    bits: Bits = None
    dry_run: DryRun = False
    engine: Engine = "local"
    workers: Workers = None
    loaders: Loaders = None
    ray_address: RayAddress = None
    batch: Batch = None
    shard: Shard = None
    threads: Threads = 1
    precision: Precision = "float32"
    device: Device = "cpu"
    seed: Seed = 0
    json: Json = False
    trust: Trust = False
    debug: Debug = False


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Return a command with the options of ``Asked`` and those of ``function(asked, ...)`` itself."""
    asked = dict(signature(Asked).parameters)
    _, *own = signature(function).parameters.values()
    together = [asked.pop("folder"), *own, *asked.values()]

    @wraps(function)
    def run(**options: Any) -> None:  # noqa: ANN401  (whatever the options hold)
        given = {parameter.name: options.pop(parameter.name) for parameter in own}
        function(Asked(**options), **given)

    made = [parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in together]
    run.__signature__ = Signature(made)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in made}
    return run


def models_of(asked: Asked) -> list[tuple["Given", "Classifier"]]:
    """Load the models asked for; a second of one name stays itself."""
    from whence.models.load import load_model
    from whence.studies.planning import Given

    found = []
    for spec in asked.model or [console.DEFAULT_MODEL]:
        classifier = load_model(spec, device=asked.device, trust=asked.trust, seed=asked.seed)
        classifier.precision = asked.precision
        found.append((Given(spec), classifier))
    return found


def studied(
    asked: Asked,
    models: Sequence[tuple["Given", "Classifier"]],
    methods: Sequence[str],
    metrics: Sequence[str] = (),
    *,
    judges: bool = False,
) -> "Study":
    """Run a study, or go on where it ended, and return it whole; tell what it will take where that is asked.

    Raises
    ------
    typer.Exit
        With 0 after an estimate; with 3 after Ctrl-C, when the command that resumes has been told.
    WhenceError
        What was asked is wrong.
    """
    from whence.studies.planning import Settings, planned
    from whence.studies.running import carry_out
    from whence.studies.study import open as opened

    _check_engine(asked)
    settings = Settings(
        methods=methods, metrics=metrics, judges=judges, target=asked.target, seed=asked.seed, bits=asked.bits,
        batch=asked.batch, shard=asked.shard, threads=asked.threads, maps=asked.maps,
    )  # fmt: skip
    with console.stages(quiet=asked.json) as tell:
        job = planned(asked.folder, models, settings, truth=asked.truth, trust=asked.trust, progress=tell)
        _tell_unknown(job)
        if asked.dry_run:
            _estimated(asked, job, models)
        try:
            summary = carry_out(
                job,
                asked.out,
                engine=asked.engine,
                workers=asked.workers,
                loaders=asked.loaders,
                ray_address=asked.ray_address,
                models=[classifier for _, classifier in models],
                devices=[asked.device] if ":" in asked.device else None,
                progress=tell,
            )
        except KeyboardInterrupt:
            _stopped("stopped at once: the shards that are done are kept")
    if summary.interrupted:
        _stopped(f"stopped: {summary.done} of {len(job.shards)} shards are done and kept")
    return opened(asked.out)


def _check_engine(asked: Asked) -> None:
    """Refuse options of workers that the engine does not have."""
    if asked.ray_address and asked.engine != "ray":
        raise OptionError("--ray-address is of a Ray cluster: give --engine ray too")
    if asked.workers and asked.engine == "local" and not asked.dry_run:
        raise OptionError("--workers: this process works alone, give --engine processes or ray too")


def _tell_unknown(job: "Job") -> None:
    """Warn of pictures whose true class is not known where others' is, or is of no model."""
    known = {label for model in job.models for label in model.labels or ()}
    named = [entry.truth for entry in job.pictures if entry.truth]
    if named and len(named) < len(job.pictures):
        console.warn(f"the true class of {len(job.pictures) - len(named)} pictures is not told")
    folded = {label.casefold() for label in known}
    if strange := [truth for truth in named if truth.casefold() not in folded]:
        close = nearest(strange[0], known)
        console.warn(f"{len(strange)} pictures are of classes that no model has, as {strange[0]!r}: {close}")


def _estimated(asked: Asked, job: "Job", models: Sequence[tuple["Given", "Classifier"]]) -> None:
    """Tell what the study will take, and end."""
    from whence.studies.estimate import estimate
    from whence.studies.shard import Worker

    worker = Worker(job, [classifier for _, classifier in models], loaders=asked.loaders or 0)
    found = estimate(job, worker, asked.workers or 1)
    if asked.json:
        console.result(asdict(found))
    else:
        _tell(found)
    raise typer.Exit(0)


def _tell(found: "Estimate") -> None:
    passes = f"{found.forward:,} forward, {found.backward:,} backward, {found.partial:,} through a part"
    rows = [
        ("pictures", f"{found.pictures:,}"),
        ("rows", f"{found.rows:,} in {found.shards:,} shards"),
        ("passes of the methods", passes),
        ("time", f"{duration(found.seconds)} with {found.workers} at work"),
        ("memory", f"{found.memory_bytes / 2**20:,.0f} MiB a worker"),
        ("disk", f"{found.disk_bytes / 2**20:,.1f} MiB"),
    ]
    console.table(("what", "how much"), rows)
    console.say()
    failed = f", {found.failed} rows of which failed" if found.failed else ""
    console.say(f"reckoned from {found.measured} pictures that were explained just now{failed}; nothing was written")


def duration(seconds: float) -> str:
    """Return a time in words: ``1 h 5 min``, ``3 min 20 s``, ``4.2 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _stopped(said: str) -> NoReturn:
    """Tell how far an interrupted study is, and how it goes on; end."""
    import shlex
    import sys

    console.warn(f"{said}. Go on with:")
    console.warn("  " + shlex.join(["whence", *sys.argv[1:]]))
    raise typer.Exit(3)


def tell_failed(study: "Study") -> None:
    """Warn of the pictures that failed, a line for each reason, and end with exit code 3 where there are any."""
    failures = study.failures()
    for reason, names in failures.items():
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        console.warn(f"failed: {shown}: {reason}")
    if failures:
        raise typer.Exit(3)
