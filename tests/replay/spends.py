"""The journey of a spend of points."""

from tests.end_to_end.buyers import buy_points, make_user, spend
from tests.fixtures.house import House


async def spent(house: House) -> str:
    """The movement's id, which is its workflow's."""
    user_id = make_user()
    await buy_points(house, "wechatpay", user_id)
    answer = await spend(house, user_id, 30)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])
