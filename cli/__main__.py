"""The everbill command."""

import typer

from cli import keys
from cli.migrate import migrate_command

app = typer.Typer(
    name="everbill",
    help="Operate Everbill, the billing engine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(keys.app)

app.command("migrate")(migrate_command)


def main() -> None:
    app()


if __name__ == "__main__":
    main()
