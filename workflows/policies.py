"""Every time-out and retry policy of the workflows, named and explained."""

from datetime import timedelta
from typing import Final, TypedDict

from temporalio.common import RetryPolicy


class CallPolicy(TypedDict):
    """What every call of an activity names."""

    start_to_close_timeout: timedelta
    heartbeat_timeout: timedelta
    retry_policy: RetryPolicy


# A worker that died is noticed by its missing heartbeats (one a second), not by the full
# start-to-close; that one bounds a call to a gateway (20 s) and the transactions around it.
ACTIVITY_START_TO_CLOSE: Final = timedelta(seconds=30)
ACTIVITY_HEARTBEAT: Final = timedelta(seconds=3)

# An unknown outcome is asked after on a widening schedule for as long as the caller's
# schedule-to-close allows; there is no count of tries, only time.
UNKNOWN_OUTCOME: Final = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=60),
)

GATEWAY_CALL: Final = CallPolicy(
    start_to_close_timeout=ACTIVITY_START_TO_CLOSE,
    heartbeat_timeout=ACTIVITY_HEARTBEAT,
    retry_policy=UNKNOWN_OUTCOME,
)

# The record is our own database: short pauses, and never give up.
RECORD: Final = RetryPolicy(
    initial_interval=timedelta(milliseconds=200),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=10),
)

RECORD_CALL: Final = CallPolicy(
    start_to_close_timeout=ACTIVITY_START_TO_CLOSE,
    heartbeat_timeout=ACTIVITY_HEARTBEAT,
    retry_policy=RECORD,
)

# Webhooks do the work; polls are for those that never come. Never more than these eight.
POLL_DELAYS: Final = (
    timedelta(seconds=5),
    timedelta(seconds=30),
    timedelta(minutes=1),
    timedelta(minutes=3),
    timedelta(minutes=5),
    timedelta(minutes=10),
    timedelta(minutes=30),
    timedelta(minutes=30),
)

# How long query, close, query may go without an answer before a payment that was canceled or has
# expired takes its final status all the same; its attempts stay watched.
CLOSING_BUDGET: Final = timedelta(seconds=60)

# The last try at an answer for a payment whose deadline is near or past.
LEAST_BUDGET: Final = timedelta(seconds=5)

# Attempts that outlive their payment are closed and queried until the gateway calls them dead.
# WeChat Pay may refuse to close in an order's first five minutes, hence the rounds at first;
# afterwards a gateway that is down for days is still met again.
WATCH_DELAYS: Final = (
    timedelta(seconds=15),
    timedelta(seconds=45),
    timedelta(minutes=2),
    timedelta(minutes=5),
    timedelta(minutes=10),
    timedelta(minutes=30),
    timedelta(hours=1),
    timedelta(hours=6),
    timedelta(hours=24),
    timedelta(hours=24),
    timedelta(hours=24),
)

# Orders at Alipay and WeChat Pay die by themselves at their expiry; 60 s past it a query that
# shows no payment settles the matter, and one second more keeps the two clocks apart.
DEATH_AFTER_EXPIRY: Final = timedelta(seconds=61)

# How long the new way of a switch may take to open; the payment goes on in the old way meanwhile,
# and after.
SWITCH_BUDGET: Final = timedelta(seconds=30)

# The payment itself waits while the order that was switched away from is closed.
SUPERSEDED_BUDGET: Final = timedelta(seconds=10)

# How long a refresh holds one of the ten places that a workflow has for commands under way.
REFRESH_PATIENCE: Final = timedelta(seconds=8)

# Alipay is not queried within ten seconds of a refund. Banks take days; after the list, the last
# delay goes on.
REFUND_POLL_DELAYS: Final = (
    timedelta(seconds=10),
    timedelta(seconds=30),
    timedelta(minutes=2),
    timedelta(minutes=10),
    timedelta(hours=1),
    timedelta(hours=6),
    timedelta(hours=24),
)

# How long the caller of a refund waits for the gateway's first answer; a pause that the gateway
# demands between two refunds may be longer.
REFUND_PATIENCE: Final = timedelta(seconds=7)

# Payers consent within minutes, or leave the page and begin again.
METHOD_SETUP_LIFE: Final = timedelta(hours=24)

# As for payments, webhooks do the work; after the list, the last delay goes on.
METHOD_POLL_DELAYS: Final = (
    timedelta(seconds=10),
    timedelta(seconds=30),
    timedelta(minutes=1),
    timedelta(minutes=3),
    timedelta(minutes=5),
    timedelta(minutes=10),
    timedelta(minutes=30),
    timedelta(hours=1),
)

# A payer's page may refresh every two seconds for a day.
COMMANDS_IN_A_RUN: Final = 200

# Long enough for a payer whose bank wants to see them, short of the day between two tries.
SUBSCRIPTION_CHARGE_LIFE: Final = timedelta(hours=23)

# Alipay's and WeChat Pay's codes are for somebody who has just asked for one.
SUBSCRIPTION_CODE_LIFE: Final = timedelta(hours=2)

# A payment tells its subscription how it has ended; the record is looked at for the word lost.
SUBSCRIPTION_CHARGE_CHECK: Final = timedelta(hours=1)

# A gateway that says nothing about a mandate for so long is asked again after the pause, where a
# renewal waits; one that is silent until a day past its date is not waited for. A retry of what is
# owed waits once, and then the next means is taken, or the customer asked. Commands wait meanwhile.
SUBSCRIPTION_PREPARATION: Final = timedelta(minutes=5)
SUBSCRIPTION_RETRY_PREPARATION: Final = timedelta(hours=1)
SUBSCRIPTION_PREPARATION_PAUSE: Final = timedelta(minutes=55)
SUBSCRIPTION_PREPARATION_LONGEST: Final = timedelta(days=1)

# A history holds so many cycles of a subscription, about 30 events each.
CYCLES_IN_A_RUN: Final = 12
