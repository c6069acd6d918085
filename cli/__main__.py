"""The everbill command."""

import typer

from cli import keys
from cli.migrate import migrate_command
from cli.up import up

app = typer.Typer(
    name="everbill",
    help="Operate Everbill, the billing engine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(keys.app)

app.command("migrate")(migrate_command)
app.command()(up)


def main() -> None:
    app(prog_name="everbill")


if __name__ == "__main__":
    main()
