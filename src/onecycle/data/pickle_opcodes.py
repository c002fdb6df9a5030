"""The pickle opcodes that arrays in tuples, lists and dicts need; every other one is refused.

CPython's `Lib/pickletools.py` describes them.
"""

import pickle
import pickletools
import struct
from collections.abc import Callable

from onecycle.data.pickle_arrays import Damaged, Unsafe
from onecycle.data.pickle_machine import Machine, latin1, table

_OPCODE_COST = 128  # bytes; no opcode makes more out of itself, apart from text and arrays, which pay for their length
_NAMES = {opcode.code: opcode.name for opcode in pickletools.opcodes}


def run(machine: Machine) -> object:
    """Carry out every opcode up to STOP and return what is left on the stack, stand-ins in it.

    Raises Damaged, Unsafe, FileError over the budget, or one of Python's own errors for ill-formed opcodes.
    """
    while True:
        machine.start = machine.position
        machine.budget.spend(_OPCODE_COST)
        code = machine.take(1)[0]
        if make := _MAKES.get(code):
            made = make(machine)  # first: it may change which list machine.stack is
            machine.stack.append(made)
        elif act := _ACTS.get(code):
            act(machine)
        elif code == pickle.STOP[0]:
            return machine.result()
        elif chr(code) in _NAMES:
            raise Unsafe(f"uses the opcode {_NAMES[chr(code)]}, which arrays never need")
        else:
            raise Damaged(f"has the byte {code:#04x} where an opcode should be")


def _bool_or_int(machine: Machine) -> object:
    line = machine.line()
    return line == b"01" if line in (b"00", b"01") else int(line)


# opcode → what it pushes
_MAKES: dict[int, Callable[[Machine], object]] = {
    pickle.NONE[0]: lambda _: None,
    pickle.NEWTRUE[0]: lambda _: True,
    pickle.NEWFALSE[0]: lambda _: False,
    pickle.INT[0]: _bool_or_int,
    pickle.LONG[0]: lambda m: int(m.line().removesuffix(b"L")),
    pickle.BININT[0]: lambda m: m.number(4, signed=True),
    pickle.BININT1[0]: lambda m: m.number(1),
    pickle.BININT2[0]: lambda m: m.number(2),
    pickle.LONG1[0]: lambda m: m.number(m.number(1), signed=True),
    pickle.LONG4[0]: lambda m: m.number(m.number(4), signed=True),
    pickle.FLOAT[0]: lambda m: float(m.line()),
    pickle.BINFLOAT[0]: lambda m: struct.unpack(">d", m.take(8))[0],
    pickle.STRING[0]: Machine.python_2_line,
    pickle.SHORT_BINSTRING[0]: lambda m: m.run_of(m.take(m.number(1)), latin1),
    pickle.BINSTRING[0]: lambda m: m.run_of(m.take(m.number(4)), latin1),
    pickle.SHORT_BINBYTES[0]: lambda m: m.run_of(m.take(m.number(1)), bytes),
    pickle.BINBYTES[0]: lambda m: m.run_of(m.take(m.number(4)), bytes),
    pickle.BINBYTES8[0]: lambda m: m.run_of(m.take(m.number(8)), bytes),
    pickle.BYTEARRAY8[0]: lambda m: m.run_of(m.take(m.number(8)), bytearray),
    pickle.UNICODE[0]: lambda m: m.text(m.line(limit=None), "raw-unicode-escape"),
    pickle.SHORT_BINUNICODE[0]: lambda m: m.text(m.take(m.number(1)), "utf-8"),
    pickle.BINUNICODE[0]: lambda m: m.text(m.take(m.number(4)), "utf-8"),
    pickle.BINUNICODE8[0]: lambda m: m.text(m.take(m.number(8)), "utf-8"),
    pickle.EMPTY_TUPLE[0]: lambda _: (),
    pickle.TUPLE1[0]: lambda m: m.pop(1),
    pickle.TUPLE2[0]: lambda m: m.pop(2),
    pickle.TUPLE3[0]: lambda m: m.pop(3),
    pickle.TUPLE[0]: lambda m: tuple(m.pop_mark()),
    pickle.EMPTY_LIST[0]: lambda _: list[object](),
    pickle.LIST[0]: Machine.pop_mark,
    pickle.EMPTY_DICT[0]: lambda _: dict[object, object](),
    pickle.DICT[0]: lambda m: table(m.pop_mark()),
    pickle.GLOBAL[0]: lambda m: m.find(str(m.line(), "utf-8"), str(m.line(), "utf-8")),
    pickle.STACK_GLOBAL[0]: lambda m: m.find(*m.pop(2)),
    pickle.REDUCE[0]: Machine.reduce,
    pickle.GET[0]: lambda m: m.recall(int(m.line())),
    pickle.BINGET[0]: lambda m: m.recall(m.number(1)),
    pickle.LONG_BINGET[0]: lambda m: m.recall(m.number(4)),
}

# opcode → what it does to the machine
_ACTS: dict[int, Callable[[Machine], None]] = {
    pickle.PROTO[0]: Machine.protocol,
    pickle.FRAME[0]: lambda m: _none(m.number(8)),
    pickle.MARK[0]: Machine.mark,
    pickle.POP[0]: lambda m: _none(m.pop(1) if m.stack else m.pop_mark()),
    pickle.POP_MARK[0]: lambda m: _none(m.pop_mark()),
    pickle.APPEND[0]: lambda m: m.extend(m.pop(1)),
    pickle.APPENDS[0]: lambda m: m.extend(m.pop_mark()),
    pickle.SETITEM[0]: lambda m: m.set_items(m.pop(2)),
    pickle.SETITEMS[0]: lambda m: m.set_items(m.pop_mark()),
    pickle.BUILD[0]: Machine.build,
    pickle.PUT[0]: lambda m: m.remember(int(m.line())),
    pickle.BINPUT[0]: lambda m: m.remember(m.number(1)),
    pickle.LONG_BINPUT[0]: lambda m: m.remember(m.number(4)),
    pickle.MEMOIZE[0]: lambda m: m.remember(len(m.memo)),
}


def _none(_: object) -> None:
    """Drops a value: an action returns nothing."""
