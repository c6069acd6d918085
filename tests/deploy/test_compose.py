"""What the deployment's files say agrees with the code, and with each other."""

import dataclasses
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings
from temporalio.common import SearchAttributeIndexedValueType

from embedded.options import Ports
from embedded.temporal import TemporalServer
from runtime import attributes
from runtime.settings import AlipaySettings, Settings, StripeSettings, WechatpaySettings
from runtime.version import VERSION
from tests.deploy.compose import ROOT, environment, interpolated, seconds, services
from worker import GRACEFUL_SHUTDOWN

SCRIPTS = [".ci/run", "deploy/temporal/schema.sh", "deploy/temporal/namespace.sh"]
READ_BY_TEMPORALS_CLIENT = {"TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE"}
READ_BY_MIGRATE = {"EVERBILL_MIGRATION_DATABASE_URL"}
TYPES = {
    "Keyword": SearchAttributeIndexedValueType.KEYWORD,
    "Int": SearchAttributeIndexedValueType.INT,
    "Bool": SearchAttributeIndexedValueType.BOOL,
    "Datetime": SearchAttributeIndexedValueType.DATETIME,
}


def settings_of_processes() -> set[str]:
    """The variable of every field of every settings class."""
    return {
        name
        for group in (Settings, StripeSettings, AlipaySettings, WechatpaySettings)
        for name in _variables(group)
    }


def _variables(group: type[BaseSettings]) -> Iterator[str]:
    for name, field in group.model_fields.items():
        if field.annotation in (StripeSettings, AlipaySettings, WechatpaySettings):
            continue
        if isinstance(field.validation_alias, str):
            yield field.validation_alias
        else:
            yield f"{group.model_config['env_prefix']}{name}".upper()


def settings_of_up() -> set[str]:
    ports = {f"EVERBILL_{port.name.upper()}_PORT" for port in dataclasses.fields(Ports)}
    return ports | {"EVERBILL_DATA_DIR"}


def named_in_example() -> set[str]:
    text = (ROOT / ".env.example").read_text()
    return set(re.findall(r"^(?:# )?([A-Z][A-Z0-9_]+)=", text, re.MULTILINE))


def test_compose_fits_its_schema() -> None:
    checked = subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"),
            str(ROOT / "docker-compose.yml"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout


def images() -> list[str]:
    text = (ROOT / "Dockerfile").read_text()
    built_on = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    return [*built_on, *(service["image"] for service in services().values())]


@pytest.mark.parametrize("image", sorted(set(images())))
def test_images_are_pinned_and_name_no_registry(image: str) -> None:
    name, _, tag = image.partition(":")
    assert re.match(r"\d+\.\d+", tag), f"{image} moves with its publisher's next release"
    assert "." not in name


def test_our_image_is_of_this_version() -> None:
    ours = {service["image"] for service in services().values() if "build" in service}
    assert ours == {f"everbill:{VERSION}"}


def test_temporals_parts_are_of_one_release() -> None:
    tags = {
        service["image"].partition(":")[2]
        for service in services().values()
        if service["image"].startswith(("temporalio/server", "temporalio/admin-tools"))
    }
    assert len(tags) == 1


def test_the_example_names_every_setting_and_no_other() -> None:
    known = settings_of_processes() | settings_of_up() | READ_BY_MIGRATE | READ_BY_TEMPORALS_CLIENT
    passwords = {name for name in interpolated() if name.endswith("PASSWORD")}
    assert named_in_example() == known | passwords


def test_the_example_holds_no_secret() -> None:
    text = (ROOT / ".env.example").read_text()
    values = dict(re.findall(r"^(?:# )?([A-Z][A-Z0-9_]+)=(.*)$", text, re.MULTILINE))
    secret = {name for name in values if re.search("SECRET|KEY|PASSWORD|CODEC", name)}
    assert secret, "the pattern found no secret's name: it is stale"
    assert {name: values[name] for name in secret if values[name]} == {}


def test_operations_explains_every_setting() -> None:
    text = (ROOT / "docs" / "OPERATIONS.md").read_text()
    explained = set(re.findall(r"^\| `([A-Z][A-Z0-9_]+)`", text, re.MULTILINE))
    assert explained == named_in_example()


def test_everything_compose_looks_up_is_in_the_example() -> None:
    assert interpolated() <= named_in_example()


@pytest.mark.parametrize("service", ["api", "worker"])
def test_processes_are_given_every_setting_that_is_theirs(service: str) -> None:
    given = set(services()[service]["environment"])
    known = settings_of_processes()
    of_the_api = {name for name in known if re.search("^EVERBILL_API_|CODEC|UI", name)}
    expected = known | READ_BY_TEMPORALS_CLIENT
    if service == "worker":
        expected = expected - of_the_api | {"EVERBILL_READY_FILE"}
    assert given == expected


def test_only_migrate_may_change_the_schema() -> None:
    given = {
        "EVERBILL_DB_PASSWORD": "application",
        "EVERBILL_DB_OWNER_PASSWORD": "owner-password",
        "EVERBILL_ENCRYPTION_KEYS": "id:key",
        "EVERBILL_CODEC_PATH": "/codec/path",
    }
    assert "owner-password" not in str(environment("api", given))
    assert "owner-password" not in str(environment("worker", given))
    assert "owner-password" in str(environment("migrate", given))


@pytest.mark.parametrize(
    ("service", "waits_for"),
    [
        ("temporal-schema", {"postgres": "service_healthy"}),
        ("temporal", {"temporal-schema": "service_completed_successfully"}),
        ("temporal-namespace", {"temporal": "service_healthy"}),
        ("migrate", {"postgres": "service_healthy"}),
        (
            "api",
            {
                "migrate": "service_completed_successfully",
                "temporal-namespace": "service_completed_successfully",
            },
        ),
        (
            "worker",
            {
                "migrate": "service_completed_successfully",
                "temporal-namespace": "service_completed_successfully",
            },
        ),
    ],
)
def test_each_waits_for_what_it_needs(service: str, waits_for: dict[str, str]) -> None:
    told = services()[service]["depends_on"]
    assert {name: how["condition"] for name, how in told.items()} == waits_for
    for name, condition in waits_for.items():
        if condition == "service_healthy":
            assert "test" in services()[name]["healthcheck"]


def test_the_worker_is_given_longer_than_it_takes() -> None:
    assert (
        seconds(services()["worker"]["stop_grace_period"]) > GRACEFUL_SHUTDOWN.total_seconds() + 5
    )


def test_ports_are_published_on_loopback_alone() -> None:
    published = [port for service in services().values() for port in service.get("ports", ())]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_terminate_and_reset_are_off_and_cancel_is_not() -> None:
    ui = services()["temporal-ui"]["environment"]
    assert ui["TEMPORAL_WORKFLOW_TERMINATE_DISABLED"] == "true"
    assert ui["TEMPORAL_WORKFLOW_RESET_DISABLED"] == "true"
    assert "TEMPORAL_WORKFLOW_CANCEL_DISABLED" not in ui


def test_the_namespace_job_makes_our_search_attributes_and_no_others() -> None:
    script = (ROOT / "deploy" / "temporal" / "namespace.sh").read_text()
    listed = re.search(r"attributes='\n(.*?)\n'", script, re.DOTALL)
    assert listed is not None
    made = dict(line.split() for line in listed[1].splitlines())
    assert {name: TYPES[type] for name, type in made.items()} == {
        key.name: key.indexed_value_type for key in attributes.ALL
    }


def test_the_dynamic_config_is_what_the_embedded_server_runs_with() -> None:
    text = (ROOT / "deploy" / "temporal" / "dynamicconfig.yaml").read_text()
    entries = re.findall(r"^([\w.]+):\n  - value: (\S+)$", text, re.MULTILINE)
    command = TemporalServer(Path("folder"), 1, 2, 3).command()
    assert entries
    for key, value in entries:
        assert f'{key}="{value}"' in command


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_parse_and_can_be_run(script: str) -> None:
    path = ROOT / script
    shell = path.read_text().splitlines()[0].rpartition("/")[2].split()[-1]
    parsed = subprocess.run([shell, "-n", path], capture_output=True, text=True, check=False)
    assert (parsed.returncode, parsed.stderr) == (0, "")
    assert path.stat().st_mode & 0o111
