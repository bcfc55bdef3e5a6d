"""The command line: arguments to calls, results to standard output, errors to exit codes. The only print.

Exit codes: 0 done; 1 the user's code raised (in a search: several times in a row), or anything unforeseen; 2 a mistake
in what was asked or in the workload, or trial 0 cannot run; 3 nothing is recommended; 4 a run spiked; 130 interrupted.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Optional

import typer

if TYPE_CHECKING:
    from stabletune.study.proof.outcome import StudyResult

MISNAMED = (PermissionError, FileNotFoundError, IsADirectoryError, NotADirectoryError)
DONE, FAILED, MISTAKE, NOTHING, SPIKED, INTERRUPTED = 0, 1, 2, 3, 4, 130

app = typer.Typer(
    name="stabletune",
    help="Find settings for Adam that are spike-free yet fast, and prove them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ConfigArgument = Annotated[Path, typer.Argument(metavar="CONFIG", help="Path of the config file.", show_default=False)]
SET_HELP = "Replace a config key; repeat it for more."
RunArgument = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Output folder of a search.", show_default=False)]


@app.command()
def search(
    config: ConfigArgument,
    output: Annotated[Optional[Path], typer.Option(help="Output folder, in place of the config's.")] = None,  # noqa: UP045
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the search in the output folder.")] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Replace a config key; repeat it for more.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the recommendation as one JSON object.")] = False,
    executor: Annotated[str, typer.Option(help="ray_tune, or inline: in this process, for debugging.")] = "ray_tune",
) -> None:
    """Search, prove, and write the recommended settings."""
    with _errors_as_exit_codes(interrupted="interrupted; every finished trial is kept. Go on with --resume."):
        from stabletune.study.run import search as run_search
        from stabletune.terminal import watching

        with watching(quiet=quiet) as listener, contextlib.redirect_stdout(sys.stderr):
            result = run_search(
                config,
                output=output,
                resume=resume,
                overrides=set_ or (),
                listener=listener,
                executor=executor,
            )
        _print_result(result, as_json=as_json)
        raise typer.Exit(DONE if result.recommendation is not None else NOTHING)


@app.command()
def submit(
    config: ConfigArgument,
    address: Annotated[str, typer.Option(metavar="URL", help="The head's dashboard: http://HEAD:8265.")],
    output: Annotated[Optional[Path], typer.Option(help="Output folder here, in place of the config's.")] = None,  # noqa: UP045
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the job, or the search, of the output folder.")
    ] = False,
    job_: Annotated[Optional[str], typer.Option("--job", metavar="ID", help="Come back to this job.")] = None,  # noqa: UP045
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help=SET_HELP)] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the recommendation as one JSON object.")] = False,
) -> None:
    """Search on a Ray cluster, as a job; its files are sent, and its results fetched."""
    with _errors_as_exit_codes():
        from stabletune.submission.submit import submit as run_submission
        from stabletune.terminal import interruptible

        def show(text: str) -> None:
            if not quiet:
                print(text, end="", file=sys.stderr, flush=True)

        with interruptible():
            ended = run_submission(
                config, address=address, output=output, resume=resume, job_id=job_, overrides=set_ or (), show=show
            )
        if ended.result is None:
            _fail(ended.message, ended.exit_code, ended.last_lines if quiet else None)
        _print_result(ended.result, as_json=as_json)
        raise typer.Exit(ended.exit_code)


@app.command(hidden=True)
def job(step: str, job_id: str) -> None:
    """What the jobs of `submit` do on the cluster beside their search: take-up or hand-out."""
    with _errors_as_exit_codes():
        from stabletune.submission.on_head import run_step

        print(run_step(step, job_id))


@app.command()
def trial(
    config: ConfigArgument,
    param: Annotated[Optional[list[str]], typer.Option(metavar="NAME=VALUE", help="A hyperparameter.")] = None,  # noqa: UP045
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Replace a config key; repeat it for more.")
    ] = None,
    steps: Annotated[Optional[int], typer.Option(min=1, help="Steps; budget.trial_steps unless given.")] = None,  # noqa: UP045
    seed: Annotated[Optional[int], typer.Option(help="Seed; the config's unless given.")] = None,  # noqa: UP045
    output: Annotated[Optional[Path], typer.Option(help="Folder for measurements.jsonl and losses.npy.")] = None,  # noqa: UP045
) -> None:
    """Run the baseline, or other settings, once in this process with its signals shown live."""
    with _errors_as_exit_codes():
        from stabletune.single_trial import run_single_trial
        from stabletune.summaries import trial_summary
        from stabletune.terminal import watching

        with watching(quiet=False, shows_signals=True) as listener, contextlib.redirect_stdout(sys.stderr):
            result = run_single_trial(
                config, param or (), steps=steps, seed=seed, output=output, overrides=set_ or (), listener=listener
            )
        if result.status == "failed":  # a broken contract has no traceback: its message says what to do
            _fail(result.reason, FAILED if result.traceback else MISTAKE, result.traceback)
        print(trial_summary(result))
        raise typer.Exit(SPIKED if result.is_spiky else DONE)


@app.command()
def compare(
    run_dir: RunArgument,
    seeds: Annotated[Optional[int], typer.Option(min=1, help="Fresh seeds; confirm_seeds unless given.")] = None,  # noqa: UP045
    steps: Annotated[Optional[int], typer.Option(min=1, help="Steps; the full horizon unless given.")] = None,  # noqa: UP045
    executor: Annotated[str, typer.Option(help="ray_tune, or inline.")] = "ray_tune",
) -> None:
    """Run recommended settings and baseline side by side on fresh seeds."""
    with _errors_as_exit_codes():
        from stabletune.study.compare import compare as run_comparison
        from stabletune.summaries import comparison_summary
        from stabletune.terminal import watching

        with watching(quiet=False) as listener, contextlib.redirect_stdout(sys.stderr):
            comparison = run_comparison(run_dir, n_seeds=seeds, steps=steps, listener=listener, executor=executor)
        print(comparison_summary(comparison))
        raise typer.Exit(SPIKED if comparison.recommended.n_spiky else DONE)


@app.command()
def report(run_dir: RunArgument) -> None:
    """Rewrite report.html from the files of a search."""
    with _errors_as_exit_codes():
        from stabletune.results.report import write_report
        from stabletune.results.store import RunFolder

        print(write_report(RunFolder(run_dir)))


@app.command()
def export(
    run_dir: RunArgument,
    format_: Annotated[str, typer.Option("--format", help="See `stabletune list formats`.")],
    total_steps: Annotated[Optional[int], typer.Option(help="Steps of the real run.")] = None,  # noqa: UP045
    batch_size: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="[OLD:]NEW", help="Batch size of the real run, after that of the trials if unknown."),
    ] = None,
    model_width: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="[OLD:]NEW", help="Width of the real model, after that of the trials if unknown."),
    ] = None,
) -> None:
    """Print the recommended settings in another tool's words, restated for the real run if its size is given."""
    with _errors_as_exit_codes():
        from stabletune.results.exporters import export as export_as
        from stabletune.results.restatement import restate_for
        from stabletune.results.store import RunFolder

        restated = restate_for(
            RunFolder(run_dir), total_steps=total_steps, batch_size=batch_size, model_width=model_width
        )
        print(export_as(restated, format_).rstrip("\n"))


@app.command()
def dashboard(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of a search, or of a FolderSink.", show_default=False)
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than this machine's open it to the network.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8765,
) -> None:
    """Show a running search or a watched training in the browser, live."""
    with _errors_as_exit_codes("stopped."):
        try:
            from stabletune.dashboard.server import serve
        except ModuleNotFoundError as error:
            from stabletune.errors import ResourceError

            raise ResourceError(
                f"dashboard: {error.name} must be installed, but is not. pip install 'stabletune[dashboard]'"
            ) from error
        serve(
            folder,
            host=host,
            port=port,
            announce=lambda url: print(f"{url} shows {folder}; Ctrl-C stops it", file=sys.stderr),
        )


@app.command("list")
def list_(
    what: Annotated[Optional[str], typer.Argument(help="search-spaces, workloads, samplers or formats.")] = None,  # noqa: UP045
) -> None:
    """Print what can be named in a config."""
    with _errors_as_exit_codes():
        from stabletune.config.catalog import catalog

        print(catalog(what))


def main() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):  # a path may hold bytes that the terminal cannot show
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    app()


def _print_result(result: StudyResult, *, as_json: bool) -> None:
    if as_json:
        from stabletune.records import FORMAT_VERSION, finite_or_none

        recommendation = result.recommendation
        nothing = {"version": FORMAT_VERSION, "recommendation": None, "reason": result.message}
        content: dict[str, Any] = nothing if recommendation is None else recommendation.to_dict()
        print(json.dumps(finite_or_none(content), allow_nan=False))
        return
    from stabletune.summaries import study_summary

    print(study_summary(result))


@contextlib.contextmanager
def _errors_as_exit_codes(interrupted: str = "interrupted.") -> Iterator[None]:
    """Turn the exceptions of ``stabletune.errors`` into one message and the documented exit code."""
    from stabletune import errors

    try:
        yield
    except errors.BaselineFailed as error:
        _fail(error, MISTAKE, error.traceback)
    except errors.FailedTrials as error:
        _fail(error, FAILED, error.traceback)
    except (errors.ClusterError, errors.JobError, errors.StorageError) as error:
        _fail(error, FAILED)
    except errors.StabletuneError as error:
        _fail(error, MISTAKE)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            place = error.filename or "output"
            _fail(f"{place}: must have room, but its disk is full. Make room, and go on with --resume.", FAILED)
        where = f"{error.filename}: " if error.filename else ""
        reason = (error.strerror or str(error)).lower()
        is_mistake = isinstance(error, MISNAMED) or error.errno == errno.ENAMETOOLONG
        message = f"{where}must be a place to read or write, but got {reason}. Name another, or mend it."
        _fail(message, MISTAKE if is_mistake else FAILED)
    except KeyboardInterrupt:
        _fail(interrupted, INTERRUPTED)


def _fail(error: object, code: int, above: str | None = None) -> NoReturn:
    if above:  # a traceback, or the last lines of a log
        print(above.rstrip("\n"), file=sys.stderr)
    print(f"stabletune: {error}" if code == INTERRUPTED else str(error), file=sys.stderr)
    raise typer.Exit(code)


if __name__ == "__main__":
    main()
