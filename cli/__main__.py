"""The everbill command."""

import typer

app = typer.Typer(
    name="everbill",
    help="Operate Everbill, the billing engine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def main() -> None:
    app()


if __name__ == "__main__":
    main()
