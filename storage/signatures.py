"""The signatures that a subscription's payer was asked for: saved methods whose ids follow from
what they are for, and are numbered, as one may lapse."""

from itertools import count

from billing.identifiers import signature_method_id
from storage.method_rows import MethodRecord
from storage.methods import Methods


async def asked_signature(
    methods: Methods, subscription_id: str, method_id: str, amount_minor: int
) -> tuple[MethodRecord | None, str]:
    """The last one asked for in that method's place, for that amount, whatever became of it; and
    the id of the next."""
    last = None
    for number in count(1):
        wanted = signature_method_id(subscription_id, method_id, amount_minor, number)
        found = await methods.find(wanted)
        if found is None:
            break
        last = found
    return last, wanted
