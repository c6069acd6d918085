"""The time of Alipay and WeChat Pay: UTC+8, all year."""

from datetime import timedelta, timezone
from typing import Final

BEIJING: Final = timezone(timedelta(hours=8))
