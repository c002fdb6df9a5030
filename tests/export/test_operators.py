"""The functions that a traced model may call."""

import pytest
import torch

from export.unlisted_operators import UNLISTED
from onecycle.export.operators import FUNCTIONS, IN_PLACE, OPERATORS, function_by_name, function_name


@pytest.mark.parametrize("name", UNLISTED)
def test_no_other_name_is_a_function(name: str):
    assert function_by_name(name) is None


@pytest.mark.parametrize("name", ["aten.linear.default", "aten.relu_.default", "aten.add.Tensor"])
def test_the_name_of_an_operator_leads_back_to_it(name: str):
    function = function_by_name(name)
    assert function is not None
    assert function_name(function) == name


def test_a_listed_operator_exists_and_takes_no_file():
    """Each name is an operator of torch (or a name that torch has for one), and none takes words but to choose a mode."""
    modes = {
        *("rounding_mode", "approximate", "equation", "mode", "indexing", "reduce", "norm", "side", "padding", "ord"),
        *("interpolation", "reduction"),
    }
    for base in OPERATORS | {f"{name}_" for name in IN_PLACE}:
        packet = getattr(torch.ops.aten, base, None)
        assert packet is not None, base
        callable_ones = [name for name in packet.overloads() if function_by_name(f"aten.{base}.{name}")]
        assert callable_ones, base
        for name in callable_ones:
            for argument in getattr(packet, name)._schema.arguments:
                kind = str(argument.type)
                assert "str" not in kind or "Dimname" in kind or argument.name in modes, (base, name, argument)
                assert not {"Storage", "Generator", "Any", "t"} & {kind, kind.removeprefix("Optional[")}, (base, name)
    assert not OPERATORS & {"set", "resize", "as_strided", "from_file", "_unsafe_index", "item", "data_ptr"}
    assert not IN_PLACE & {"set", "resize", "as_strided"}
    assert all("." in name or name in ("item", "size") for name in FUNCTIONS)
