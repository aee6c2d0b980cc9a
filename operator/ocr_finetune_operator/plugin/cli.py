"""The commands of `kubectl ocrft`."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
import yaml
from rich.console import Console
from rich.live import Live

from ocr_finetune_api import manifest
from ocr_finetune_api.exit_codes import ExitCode, OCRFineTuneError
from ocr_finetune_api.plan import Stage
from ocr_finetune_operator import names, profiles
from ocr_finetune_operator.constants import ANNOTATION_STOP, CONTAINER, LABEL_JOB_INDEX, LABEL_JOB_NAME
from ocr_finetune_operator.plugin import render as rendering
from ocr_finetune_operator.plugin import report as reporting
from ocr_finetune_operator.plugin import view
from ocr_finetune_operator.plugin.kubectl import ClusterError, Kubectl

_FINAL = ("Succeeded", "Failed")
_WATCH_SECONDS = 2.0

application = typer.Typer(
    name="kubectl ocrft",
    help="Follows and steers OCRFineTune runs in a cluster.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _runs(context: typer.Context, incomplete: str) -> list[str]:
    """The names that complete a word."""
    given = context.parent.params if context.parent else {}
    try:
        found = [run["metadata"]["name"] for run in _kubectl(**given).list_runs()]
    except OCRFineTuneError:
        return []
    return [name for name in found if name.startswith(incomplete)]


def _kubectl(namespace: str = "", kube_context: str = "", kubeconfig: str = "") -> Kubectl:
    given = {"--namespace": namespace, "--context": kube_context, "--kubeconfig": kubeconfig}
    return Kubectl(options=tuple(f"{flag}={value}" for flag, value in given.items() if value))


Name = Annotated[str, typer.Argument(help="The run.", autocompletion=_runs)]


@application.callback()
def _where(
    context: typer.Context,
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Namespace; kubectl's own without it.")] = "",
    kube_context: Annotated[str, typer.Option("--context", help="Context of the kubeconfig.")] = "",
    kubeconfig: Annotated[str, typer.Option("--kubeconfig", help="Path of the kubeconfig.")] = "",
) -> None:
    context.obj = _kubectl(namespace, kube_context, kubeconfig)


@application.command()
def status(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The run; all of the namespace without it.", autocompletion=_runs)] = "",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Follow it until it ends.")] = False,
) -> None:
    """Shows how runs stand."""
    kubectl: Kubectl = context.obj
    console = Console()

    def look() -> tuple[Any, bool]:
        if not name:
            runs = kubectl.list_runs()
            return view.overview(runs), all(view.status_of(run).phase.value in _FINAL for run in runs)
        run = kubectl.get_run(name)
        return view.detail(run), view.status_of(run).phase.value in _FINAL

    shown, ended = look()
    if not watch:
        console.print(shown)
        return
    with Live(shown, console=console, auto_refresh=False) as live:
        while not ended:
            time.sleep(_WATCH_SECONDS)
            shown, ended = look()
            live.update(shown, refresh=True)


@application.command()
def attempts(context: typer.Context, name: Name) -> None:
    """Lists the attempts of a run: when, how long, and how each ended."""
    Console().print(view.attempts(view.status_of(context.obj.get_run(name))))


@application.command()
def logs(  # noqa: PLR0917 - typer makes options of parameters
    context: typer.Context,
    name: Name,
    rank: Annotated[int, typer.Option(help="Of which node of the gang.")] = 0,
    stage: Annotated[Stage | None, typer.Option(help="Of which stage; the newest without it.")] = None,
    attempt: Annotated[int, typer.Option(help="Of which attempt; the newest without it.")] = 0,
    previous: Annotated[bool, typer.Option("--previous", "-p", help="Of the attempt before.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as they come.")] = False,
    tail: Annotated[int, typer.Option(help="Only so many last lines; -1 for all.")] = -1,
) -> None:
    """Prints the log of a pod."""
    known = view.status_of(context.obj.get_run(name)).attempts
    known = [one for one in known if stage is None or one.stage is stage]
    if attempt:
        known = [one for one in known if one.number == attempt]
    position = -2 if previous else -1
    if len(known) < -position:
        raise ClusterError(f"{name} has no such attempt", hint=f"list what there is: kubectl ocrft attempts {name}")
    chosen = known[position]
    job = names.job(name, chosen.stage, chosen.number)
    selector = f"{LABEL_JOB_NAME}={job},{LABEL_JOB_INDEX}={rank}"
    found = context.obj.run("get", "pods", "-l", selector, "-o", "name").split()
    if not found:
        raise ClusterError(
            f"the pod of rank {rank} of {job} is gone",
            hint="logs of each attempt are also in the workspace, under logs/",
        )
    flags = [f"--tail={tail}", *(["--follow"] if follow else [])]
    raise typer.Exit(context.obj.stream("logs", found[-1], "-c", CONTAINER, *flags))


@application.command()
def report(
    context: typer.Context,
    name: Name,
    data: Annotated[bool, typer.Option("--data", help="The report on the data, not on the evaluation.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write.")] = None,
    patience: Annotated[str, typer.Option("--timeout", help="How long the pod that reads it may take.")] = "2m",
) -> None:
    """Fetches the HTML report out of the workspace."""
    which = "data" if data else "evaluation"
    target = output or Path(f"{name}-{which}.html")
    run = context.obj.get_run(name)
    written = reporting.fetch(context.obj, run, which=which, target=target, patience=patience)
    typer.echo(f"{written}")


@application.command()
def suspend(context: typer.Context, name: Name) -> None:
    """Stops a run with a checkpoint and frees its devices."""
    context.obj.patch(name, {"spec": {"policy": {"suspend": True}}})
    typer.echo(f"{name} stops with a checkpoint; go on with: kubectl ocrft resume {name}")


@application.command()
def resume(context: typer.Context, name: Name) -> None:
    """Goes on with a suspended run."""
    context.obj.patch(name, {"spec": {"policy": {"suspend": False}}})
    typer.echo(f"{name} goes on from its last checkpoint")


@application.command()
def retry(context: typer.Context, name: Name) -> None:
    """Goes on with a failed run at the stage that failed."""
    run = context.obj.get_run(name)
    phase = view.status_of(run).phase.value
    if phase != "Failed":
        raise ClusterError(f"{name} has not failed: its phase is {phase}", hint="only a failed run can be retried")
    nonce = int(run["spec"].get("policy", {}).get("retryNonce", 0)) + 1
    annotations = {"annotations": {ANNOTATION_STOP: None}}
    context.obj.patch(name, {"metadata": annotations, "spec": {"policy": {"retryNonce": nonce}}})
    typer.echo(f"{name} goes on at the stage that failed")


@application.command()
def stop(context: typer.Context, name: Name) -> None:
    """Ends a run for good, with a checkpoint; only `retry` takes it up again."""
    context.obj.patch(name, {"metadata": {"annotations": {ANNOTATION_STOP: "true"}}})
    typer.echo(f"{name} stops with a checkpoint")


@application.command()
def render(
    file: Annotated[Path, typer.Argument(help="The manifest.")],
    image: Annotated[str, typer.Option(help="Trainer image, where the manifest names none.")] = "ocr-finetune-trainer",
    profile_file: Annotated[str, typer.Option("--profiles", help="File with the profiles of the cluster.")] = "",
) -> None:
    """Prints the Kubernetes objects that a manifest would become; needs no cluster."""
    loaded = manifest.load(file)
    known = profiles.load(profile_file)
    profile = known.get(loaded.spec.profile or profiles.DEFAULT)
    made = rendering.objects(loaded, image=image, profile=profile)
    typer.echo(yaml.safe_dump_all(made, sort_keys=False, allow_unicode=True), nl=False)


def complete() -> NoReturn:
    """What kubectl asks for completion: the program `kubectl_complete-ocrft` prints words, and how to take them."""
    words = sys.argv[1:] or [""]
    # What the shell would tell a program that completes by itself.
    os.environ |= {
        "_KUBECTL_OCRFT_COMPLETE": "complete_bash",
        "COMP_WORDS": "\n".join(["kubectl-ocrft", *words]),
        "COMP_CWORD": str(len(words)),
    }
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        application(prog_name="kubectl-ocrft")
    no_files, files_too = 4, 0
    how = files_too if "render" in words else no_files
    sys.stdout.write("".join(f"{word}\n" for word in said.getvalue().splitlines() if word) + f":{how}\n")
    sys.exit(0)


def main() -> NoReturn:
    """The program `kubectl-ocrft`."""
    try:
        application()
    except OCRFineTuneError as error:
        console = Console(stderr=True, soft_wrap=True)
        for problem in error.problems:
            console.print(f"error: {problem}", style="red", markup=False, highlight=False)
        if error.hint:
            console.print(f"hint: {error.hint}", markup=False, highlight=False)
        sys.exit(int(error.exit_code))
    sys.exit(int(ExitCode.OK))
