"""The process: its truth over a kill, its folder, its keys and its settings."""

import asyncio
import stat
import subprocess
import sys
from pathlib import Path

import stripe

from embedded.launch import free_port
from runtime.settings import StripeSettings
from tests.fixtures.sandbox import SandboxProcess, parse_settings
from tests.sandbox.test_stripe_api import ORDER, open_order, plain

_ROOT = Path(__file__).resolve().parents[2]


async def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "sandbox", *arguments],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_what_was_acknowledged_survives_a_kill(
    client: stripe.StripeClient, sandbox: SandboxProcess
) -> None:
    intent = await open_order(client)
    await sandbox.pay(gateway="stripe", reference="pay_01")
    before = await sandbox.charges()

    await sandbox.restart()

    assert await sandbox.charges() == before
    assert len(before) == 1
    found = await client.v1.payment_intents.retrieve_async(intent.id)
    assert found.status == "succeeded"


async def test_each_of_many_payments_is_whole_after_a_kill_in_their_midst(
    client: stripe.StripeClient, sandbox: SandboxProcess
) -> None:
    made = await asyncio.gather(
        *(
            client.v1.payment_intents.create_async(
                {**ORDER, "metadata": {"payment_id": f"pay_{number}"}}
            )
            for number in range(20)
        )
    )
    paying = [
        asyncio.create_task(sandbox.pay(gateway="stripe", reference=f"pay_{number}"))
        for number in range(20)
    ]
    await asyncio.wait(paying, return_when=asyncio.FIRST_COMPLETED)
    await sandbox.kill()
    outcomes = await asyncio.gather(*paying, return_exceptions=True)
    await sandbox.start()

    acknowledged = {told["reference"] for told in outcomes if isinstance(told, dict)}
    charged = [charge["reference"] for charge in await sandbox.charges()]
    succeeded = {
        found.metadata["payment_id"]
        for intent in made
        if (found := await client.v1.payment_intents.retrieve_async(intent.id)).status
        == "succeeded"
    }

    assert acknowledged
    assert acknowledged <= set(charged) == succeeded
    assert len(charged) == len(set(charged))


async def test_keys_stay_and_urls_follow_the_port(sandbox: SandboxProcess) -> None:
    before = dict(sandbox.environment)
    await sandbox.stop()
    moved = SandboxProcess(sandbox.folder, sandbox.public_url, free_port())
    await moved.start()
    after = dict(moved.environment)
    await moved.aclose()

    changed = {name for name in after if after[name] != before[name]}
    assert changed
    assert all(moved.url in after[name] for name in changed)
    assert after.keys() == before.keys()


async def test_settings_are_private_and_are_what_everbill_reads(
    sandbox: SandboxProcess,
) -> None:
    for name in ("gateways.env", "keys.json"):
        assert stat.S_IMODE((sandbox.folder / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(sandbox.folder.stat().st_mode) == 0o700

    wanted = {f"EVERBILL_STRIPE_{name.upper()}" for name in StripeSettings.model_fields}
    assert wanted <= sandbox.environment.keys()


async def test_a_shell_reads_the_settings_as_we_do(sandbox: SandboxProcess) -> None:
    printed = await asyncio.to_thread(
        subprocess.run,
        ["/bin/sh", "-c", "set -a; . ./gateways.env; exec env -0"],
        cwd=sandbox.folder,
        env={},
        capture_output=True,
        text=True,
        check=True,
    )
    seen = dict(entry.split("=", 1) for entry in printed.stdout.split("\0") if entry)

    assert {name: seen[name] for name in sandbox.environment} == sandbox.environment


def test_quoted_settings_are_read_back() -> None:
    assert parse_settings('A="a \\"b\\" \\$c \\\\ d"\nB="x\\ny"\n') == {
        "A": 'a "b" $c \\ d',
        "B": "x\\ny",
    }


async def test_it_stops_when_asked(sandbox: SandboxProcess) -> None:
    assert await sandbox.stop() == 0


async def test_a_second_one_on_the_same_folder_is_refused(sandbox: SandboxProcess) -> None:
    second = await run("--data-dir", str(sandbox.folder), "--port", "0")

    assert second.returncode == 2
    assert str(sandbox.folder) in second.stderr
    assert "--data-dir" in second.stderr


async def test_a_port_in_use_is_named(sandbox: SandboxProcess, tmp_path: Path) -> None:
    second = await run("--data-dir", str(tmp_path / "other"), "--port", str(sandbox.port))

    assert second.returncode == 2
    assert str(sandbox.port) in second.stderr
    assert "--port" in second.stderr


async def test_a_reset_forgets_the_book_and_keeps_the_keys(
    client: stripe.StripeClient, sandbox: SandboxProcess
) -> None:
    await open_order(client)
    await sandbox.pay(gateway="stripe", reference="pay_01")
    await sandbox.fault("stripe", "open", "http_500")

    await sandbox.control.post("/control/reset")

    assert await sandbox.charges() == []
    assert await sandbox.webhooks() == []
    assert plain(await open_order(client))["status"] == "requires_payment_method"
