"""The development key of a stack, with every scope: new at each start, good until the next."""

from datetime import UTC, datetime
from typing import Final

from runtime.cipher import Cipher
from runtime.settings import EncryptionKeys
from storage.database import Database
from storage.keys import Scope

APPLICATION: Final = "dev"
_NAME: Final = "everbill up"


async def renew_key(database_url: str, encryption_keys: str) -> str:
    """Revoke the keys of earlier starts and make a new one; its secret."""
    database = Database(
        database_url,
        Cipher(EncryptionKeys.parse(encryption_keys)),
        pool_size=1,
        application_name="everbill up",
    )
    now = datetime.now(UTC)
    try:
        async with database.begin() as unit:
            for key in await unit.keys.list(application=APPLICATION):
                if key.name == _NAME and key.revoked_at is None:
                    await unit.keys.revoke(key.id, now)
            _, secret = await unit.keys.create(APPLICATION, _NAME, Scope, now)
    finally:
        await database.dispose()
    return secret
