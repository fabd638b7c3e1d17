import pytest

from jetson.errors import BadInput, DeviceMismatch, JetmaskError, QualityGate, UsageError


def test_message_has_a_line_for_each_given_part():
    assert str(BadInput("no such class", "a.json, line 3", "with_mask", "rename it")) == (
        "no such class\n  where: a.json, line 3\n  expected: with_mask\n  do: rename it"
    )
    assert str(JetmaskError("broken")) == "broken"
    assert str(UsageError("odd", remedy="stop")) == "odd\n  do: stop"


@pytest.mark.parametrize(
    "kind, code", [(JetmaskError, 1), (UsageError, 2), (BadInput, 3), (DeviceMismatch, 4), (QualityGate, 5)]
)
def test_exit_codes_are_stable(kind, code):
    assert kind("x").exit_code == code
    assert isinstance(kind("x"), JetmaskError)
