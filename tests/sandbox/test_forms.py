"""Stripe's nested forms."""

import pytest

from sandbox.stripe.forms import Form, parse_form


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("", {}),
        ("a=1&b=", {"a": "1", "b": ""}),
        ("a[b][c]=1&a[b][d]=2", {"a": {"b": {"c": "1", "d": "2"}}}),
        ("a[0]=x&a[1]=y", {"a": ["x", "y"]}),
        ("a[]=x&a[]=y", {"a": ["x", "y"]}),
        ("a[0][b]=1&a[1][b]=2", {"a": [{"b": "1"}, {"b": "2"}]}),
        ("m%5Bname%5D=a%26b%3D%2B+c", {"m": {"name": "a&b=+ c"}}),
        ("d=%E4%BC%9A%E5%91%98", {"d": "会员"}),
    ],
)
def test_brackets_nest(text: str, form: Form) -> None:
    assert parse_form(text) == form
