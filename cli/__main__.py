"""The everbill command."""

import sys
from typing import Final

import typer

from cli import clock, keys, review
from cli.demo import demo
from cli.doctor import doctor
from cli.migrate import migrate_command
from cli.resume import resume
from cli.up import up
from embedded.running import adopt_running_stack
from runtime.ending import run_and_leave
from runtime.logs import configure_logs

_STAND_ALONE: Final = {"up", "demo", "migrate"}
"""Commands that take their settings as given, and do not look for a stack that runs here."""

app = typer.Typer(
    name="everbill",
    help="Operate Everbill, the billing engine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(clock.app)
app.add_typer(keys.app)
app.add_typer(review.app)

app.command("migrate")(migrate_command)
app.command()(demo)
app.command()(doctor)
app.command()(resume)
app.command()(up)


def main() -> None:
    # A command tells a person in words what it does; on standard error only what goes wrong.
    configure_logs("everbill", "WARNING")
    if not _STAND_ALONE.intersection(sys.argv[1:2]):
        adopt_running_stack()
    app(prog_name="everbill")


if __name__ == "__main__":
    run_and_leave(main)
