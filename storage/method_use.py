"""What is charged to a saved method and has not ended."""

from billing.errors import MethodInUse
from storage.database import UnitOfWork


async def require_unused(work: UnitOfWork, method_id: str) -> None:
    """Raises MethodInUse where something that has not ended is charged to the method."""
    under_way = await work.methods.charges_under_way(method_id)
    if under_way:
        raise MethodInUse(
            f"payment {under_way[0]} is charged to it and has not ended; say `force=true` to"
            " delete it all the same"
        )
    if await work.subscriptions.user_of(method_id) is not None:
        raise MethodInUse(
            "a subscription that has not ended is charged to it; give that another method, or say"
            " `force=true` to delete it all the same"
        )
