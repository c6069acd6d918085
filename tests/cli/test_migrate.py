"""`everbill migrate` as a person meets it."""

import psycopg
import pytest
import typer
from typer.testing import CliRunner, Result

from cli.migrate import migrate_command
from tests.fixtures.database import DatabaseUrls

app = typer.Typer()
app.command()(migrate_command)


def run(monkeypatch: pytest.MonkeyPatch, url: str, *arguments: str) -> Result:
    monkeypatch.setenv("EVERBILL_MIGRATION_DATABASE_URL", url)
    return CliRunner().invoke(app, arguments)


def has_payments_table(url: str) -> bool:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT to_regclass('public.payments') IS NOT NULL").fetchone()
    assert row is not None
    return bool(row[0])


def test_back_to_base_and_forward_again(
    database_urls: DatabaseUrls, monkeypatch: pytest.MonkeyPatch
) -> None:
    back = run(monkeypatch, database_urls.owner, "--to", "base")
    assert (back.exit_code, back.output) == (0, "The schema is at base.\n")
    assert not has_payments_table(database_urls.owner)
    forward = run(monkeypatch, database_urls.owner)
    assert (forward.exit_code, forward.output) == (0, "The schema is at head.\n")
    assert has_payments_table(database_urls.owner)


def test_payments_are_not_dropped_unasked(
    database_urls: DatabaseUrls, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(database_urls.owner) as connection:
        connection.execute(
            "INSERT INTO payments (id, application, type, status, user_id, amount_minor, currency,"
            " gateway, method, description, metadata, attempt, order_document, created_at,"
            " updated_at, expires_at) VALUES ('pay_1', 'a', 'one_time', 'created', 'u', 1, 'CNY',"
            " 'alipay', 'qr', 'd', '{}', 1, '', now(), now(), now())"
        )
    refused = run(monkeypatch, database_urls.owner, "--to", "base")
    assert refused.exit_code == 1
    assert "--discard" in refused.output
    assert has_payments_table(database_urls.owner)
    assert run(monkeypatch, database_urls.owner, "--to", "base", "--discard").exit_code == 0
    assert not has_payments_table(database_urls.owner)


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("", "EVERBILL_MIGRATION_DATABASE_URL is not set"),
        ("mysql://db/x", "expected postgresql://"),
        ("postgresql://nobody:secret-word@127.0.0.1:9/none", "EVERBILL_MIGRATION_DATABASE_URL"),
    ],
)
def test_what_is_wrong_is_said_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, url: str, complaint: str
) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    result = run(monkeypatch, url)
    assert result.exit_code == 1
    assert result.output.startswith("everbill migrate: ")
    assert complaint in result.output
    assert "secret-word" not in result.output
    assert isinstance(result.exception, SystemExit)


def test_the_applications_login_may_not_migrate(
    database_urls: DatabaseUrls, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run(monkeypatch, database_urls.app, "--to", "base")
    assert result.exit_code == 1
    assert "permission denied" in result.output
    assert has_payments_table(database_urls.owner)
