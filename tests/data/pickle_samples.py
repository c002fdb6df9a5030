"""Pickles for the tests: harmless ones, ones that would run code, and damaged ones."""

import collections
import copyreg
import functools
import os
import pickle
import struct
import subprocess
from pathlib import Path

import numpy as np


def python_2_array(raw: bytes, shape: bytes, code: bytes = b"f4", order: bytes = b"<", fortran: bytes = b"\x89"):
    """What Python 2's cPickle writes for an array in protocol 2, without PROTO and STOP."""
    return (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85U\x01b\x87Rq\x03(K\x01" + shape
        + b"cnumpy\ndtype\nq\x04U" + bytes([len(code)]) + code + b"K\x00K\x01\x87Rq\x05(K\x03U\x01" + order
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb" + fortran + b"T" + struct.pack("<I", len(raw)) + raw + b"tb"
    )  # fmt: skip


class Call:
    """Pickles as a call of anything."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class ByCopyreg:
    __slots__ = ()


CANARY = "from pathlib import Path; Path('canary').touch()"
CALLS = {
    "system": (Call(os.system, "touch canary"), "system"),
    "eval": (Call(eval, f"exec({CANARY!r})"), "builtins.eval"),
    "exec": (Call(exec, CANARY), "builtins.exec"),
    "Popen": (Call(subprocess.Popen, ["touch", "canary"]), "subprocess.Popen|commands.Popen"),
    "getattr": (Call(getattr, [], "append"), "builtins.getattr"),
    "import": (Call(__import__, "os"), "builtins.__import__"),
    "open": (Call(open, "canary", "w"), "io.open|builtins.open"),
    "partial": (functools.partial(os.system, "touch canary"), "functools.partial"),
    "copyreg": (ByCopyreg(), "ByCopyreg|copyreg"),
    "reconstructor": (Call(copyreg._reconstructor, dict, dict, {}), "copyreg._reconstructor|copy_reg._reconstructor"),
    "OrderedDict": (collections.OrderedDict(a=1), "collections.OrderedDict|OrderedDict"),
    "Path": (Path("canary"), "pathlib"),
    "loads": (Call(pickle.loads, b"N."), "pickle.loads"),
    "numpy.load": (Call(np.load, "canary"), "numpy.*load"),
    "fromfile": (Call(np.fromfile, "canary"), "numpy.*fromfile"),
    "runstring": (Call(np.testing.runstring, CANARY, {}), "numpy.testing"),
    "matrix": (np.ma.masked_array([1.0], [True]), "numpy.ma"),
    "object": (np.array([Call(os.system, "touch canary")], object), "Python objects|system"),
    "complex": (1j, "builtins.complex"),
    "set": ({1}, "EMPTY_SET|builtins.set"),
    "class": (dict, "builtins.dict"),
}
SYSTEM = b"cos\nsystem\n"
ARGUMENT = b"(S'touch canary'\nt"
UNSAFE = {
    "os.system": (SYSTEM + ARGUMENT + b"R.", "os.system"),
    "posix.system": (b"cposix\nsystem\n" + ARGUMENT + b"R.", "posix.system"),
    "nt.system": (b"cnt\nsystem\n" + ARGUMENT + b"R.", "nt.system"),
    "Python 2 eval": (b"c__builtin__\neval\n" + ARGUMENT + b"R.", "__builtin__.eval"),
    "stack global": (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "os.system"),
    "dotted": (b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93.", "numpy.ndarray.__class__"),
    "dotted module": (b"cnumpy.core.multiarray\n_reconstruct.__globals__\n.", "_reconstruct.__globals__"),
    "numpy's own os": (b"cnumpy\nos.system\n.", "numpy.os.system"),
    "numpy.lib": (b"cnumpy.lib.npyio\nload\n.", "numpy.lib.npyio.load"),
    "codecs decode": (b"c_codecs\ndecode\n.", "_codecs.decode"),
    "encode to other codecs": (b"c_codecs\nencode\n(Vx\nVzip\ntR.", "latin1"),
    "encode of bytes": (b"c_codecs\nencode\n(C\x01xVlatin1\ntR.", "latin1"),
    "control characters": (b"cos\x1b[2J\nsystem\n.", r"os\\x1b\[2J.system"),
    "INST": (b"(S'touch canary'\nios\nsystem\n.", "INST"),
    "OBJ": (b"(" + SYSTEM + b"S'touch canary'\no.", "os.system"),
    "OBJ of ndarray": (b"(cnumpy\nndarray\nK\x01o.", "OBJ"),
    "NEWOBJ": (b"\x80\x02cnumpy\nndarray\n)\x81.", "NEWOBJ"),
    "NEWOBJ_EX": (b"\x80\x04cnumpy\nndarray\n)}\x92.", "NEWOBJ_EX"),
    "EXT1": (b"\x80\x02\x82\x01.", "EXT1"),
    "EXT2": (b"\x80\x02\x83\x01\x00.", "EXT2"),
    "EXT4": (b"\x80\x02\x84\x01\x00\x00\x00.", "EXT4"),
    "PERSID": (b"Psome id\n.", "PERSID"),
    "BINPERSID": (b"NQ.", "BINPERSID"),
    "NEXT_BUFFER": (b"\x80\x05\x97.", "NEXT_BUFFER"),
    "READONLY_BUFFER": (b"\x80\x05N\x98.", "READONLY_BUFFER"),
    "DUP": (b"N2.", "DUP"),
    "FROZENSET": (b"\x80\x04(\x91.", "FROZENSET"),
    "object dtype": (b"\x80\x02" + python_2_array(b"", b"K\x01\x85", b"O8") + b".", "Python objects"),
}  # fmt: skip


def nested_tuples(depth: int) -> bytes:
    return b"N" + b"\x85" * depth


def shared_tuples(times: int) -> bytes:
    return b"\x80\x04)" + b"\x94h\x00\x86" + b"".join(b"\x94h" + bytes([n]) + b"\x86" for n in range(1, times))


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
DTYPE = b"cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R"
DAMAGED = {
    "text": (b"hello world\n", "recalls the value|opcode"),
    "not an opcode": (b"\x80\x02\xff.", "byte 0xff where an opcode should be"),
    "future protocol": (b"\x80\x09N.", "protocol 9; expected 0 to 5"),
    "nothing left": (b"\x80\x02.", "more or less than one value"),
    "two values": (b"NN.", "more or less than one value"),
    "open mark": (b"(N.", "more or less than one value"),
    "more after the end": (b"N.N.", "2 bytes after its end"),
    "no end": (b"\x80\x02N", "cut short"),
    "underflow": (b"\x80\x02\x87.", "takes more values than there are"),
    "pop of nothing": (b"0.", "mark that was never set"),
    "pop mark of nothing": (b"1.", "mark that was never set"),
    "tuple without mark": (b"Nt.", "mark that was never set"),
    "append to nothing": (b"Na.", "cannot be carried out"),
    "append to text": (b"U\x01aNa.", "appends to 'a'; expected a list"),
    "append to an array": (RECONSTRUCT + b"Na.", "appends to a Array; expected a list"),
    "set in a list": (b"]NNs.", "sets an item of a list; expected a dict"),
    "odd dict": (b"}(NNNu.", "dict key without a value"),
    "memo never stored": (b"h\x05.", "recalls the value 5, which it never stored"),
    "huge memo index": (b"Nr\xff\xff\xff\xff0j\xfe\xff\xff\xff.", "never stored"),
    "negative memo": (b"Np-1\n0g-2\n.", "stores a value under -1; expected a number of 32 bits"),
    "memo of more than 32 bits": (b"Np4294967296\n.", "stores a value under 4294967296; expected a number of 32 bits"),
    "keys that can collide": (b"}(L2305843009213693951L\nNu.", r"as a dict key; expected whole numbers below 2\*\*61"),
    "unquoted text": (b"Sabc\n.", "without quotes"),
    "bad escape": (b"S'\\q'\n.", "unknown escape"),
    "bad integer": (b"I12x\n.", "cannot be carried out"),
    "endless integer": (b"L" + b"9" * 5000 + b"L\n.", "a line without end"),
    "endless long": (b"\x8b\xff\xff\x00\x00" + bytes(65535) + b".", "integer of 65,535 bytes"),
    "negative long": (b"\x8b\xff\xff\xff\xff.", "integer of"),
    "bad UTF-8": (b"X\x02\0\0\0\xff\xff.", "cannot be carried out"),
    "length past the end": (b"T\xff\xff\xff\x7fabc.", "cut short: 2,147,483,647 bytes should follow, 4 do"),
    "8-byte length past the end": (b"\x8e" + b"\xff" * 8 + b"abc.", "cut short"),
    "list as key": (b"}]Ns.", "a list as a dict key"),
    "array as key": (b"}" + RECONSTRUCT + b"Ns.", "a Array as a dict key"),
    "deep tuple as key": (b"}" + nested_tuples(200_000) + b"Ns.", "as a dict key"),
    "shared tuples as key": (b"}" + shared_tuples(60)[2:] + b"Ns.", "as a dict key"),
    "deep tuple": (nested_tuples(200_000) + b".", "nested deeper than 100"),
    "deep list": (b"(" * 150 + b"l" * 150 + b".", "nested deeper than 100"),
    "list in itself": (b"]q\x00h\x00a.", "contains itself"),
    "dict in itself": (b"}q\x00Nh\x00s.", "contains itself"),
    "call of text": (b"U\x02os)R.", "calls 'os'; expected a global"),
    "call without tuple": (b"cnumpy\ndtype\nNR.", "None as arguments"),
    "call of ndarray": (b"cnumpy\nndarray\n)R.", "calls numpy.ndarray itself"),
    "bytes of a size": (b"cbuiltins\nbytes\nJ\xff\xff\xff\x7f\x85R.", "calls bytes with arguments"),
    "global alone": (b"cnumpy\nndarray\n.", "numpy.ndarray outside an array"),
    "dtype alone": (DTYPE + b".", "the dtype f4 outside an array"),
    "array without content": (RECONSTRUCT + b".", "array without content"),
    "state of a global": (b"cnumpy\nndarray\nN}U\x08__dict__Ns\x86b.", "sets the state of a Global"),
    "state of a list": (b"]Nb.", "sets the state of a list"),
    "state of no tuple": (RECONSTRUCT + b"}b.", "a dict as an array's state"),
    "state too short": (RECONSTRUCT + b"K\x01\x85b.", "array state of 1 parts"),
    "state twice": (b"\x80\x02" + python_2_array(b"", b"K\x00\x85") + b"(K\x01K\x00\x85h\x05\x89U\x00tb.", "twice"),
    "no dtype": (RECONSTRUCT + b"(K\x01)N\x89U\x00tb.", "dtype is None"),
    "too few bytes": (python_2_array(b"1234", b"K\x02\x85") + b".", r"shape \(2\) and dtype float32 with 4 .*expected 8"),
    "too many bytes": (python_2_array(b"12345", b"K\x01\x85") + b".", "with 5 raw bytes; expected 4"),
    "negative shape": (python_2_array(b"", b"J\xff\xff\xff\xff\x85") + b".", r"shape \(-1\)"),
    "negative twice": (python_2_array(b"1234", b"J\xff\xff\xff\xffJ\xff\xff\xff\xff\x86") + b".", r"shape \(-1, -1\)"),
    "overflowing shape": (python_2_array(b"", b"\x8a\x09" + bytes(8) + b"\x01" + b"\x85") + b".", r"expected \d+|huge"),
    "huge empty shape": (python_2_array(b"", b"K\x00\x8a\x09" + bytes(8) + b"\x01\x86") + b".", "cannot be carried out"),
    "fractional shape": (python_2_array(b"1234", b"G?\xf0\0\0\0\0\0\0\x85") + b".", r"shape \(1.0\)"),
    "boolean shape": (python_2_array(b"1234", b"\x88\x85") + b".", r"shape \(True\)"),
    "shape no tuple": (python_2_array(b"1234", b"K\x01") + b".", "1 as a shape"),
    "65 dimensions": (python_2_array(b"1234", b"(" + b"K\x01" * 65 + b"t") + b".", "up to 64 whole numbers"),
    "text dtype": (python_2_array(b"abcd", b"K\x01\x85", b"S4", b"|") + b".", "dtype 'S4'; expected numbers"),
    "unicode dtype": (python_2_array(b"abcd", b"K\x01\x85", b"U1") + b".", "dtype 'U1'"),
    "structured dtype": (python_2_array(b"abcd", b"K\x01\x85", b"V4", b"|") + b".", "dtype 'V4'"),
    "date dtype": (python_2_array(b"12345678", b"K\x01\x85", b"M8") + b".", "dtype 'M8'"),
    "long double": (python_2_array(bytes(16), b"K\x01\x85", b"f16") + b".", "dtype 'f16'"),
    "dtype by expression": (python_2_array(b"", b"K\x00\x85", b"f4,O") + b".", "dtype 'f4,O'"),
    "byte order": (python_2_array(b"1234", b"K\x01\x85", b"f4", b"!") + b".", "dtype state"),
    "Fortran flag": (python_2_array(b"1234", b"K\x01\x85", fortran=b"K\x07") + b".", "array state"),
    "subclass": (b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\ndtype\nK\x00\x85U\x01b\x87R.", "rebuilds an array"),
    "tuple as dtype code": (b"cnumpy\ndtype\n(" + shared_tuples(60)[2:] + b"K\x00K\x01tR.", "dtype of|dtype "),
    "axes": (pickle.dumps(np.zeros((2, 3, 4)).transpose(1, 0, 2), 5).replace(b"K\x01K\x00K\x02", b"K\x01K\x01K\x02"), "axes"),
    ".npy": (b"\x93NUMPY\x01\x00", "NumPy .npy file; read it with read_npy"),
    ".npz": (b"PK\x03\x04", "read an .npz with read_npz"),
    "PNG": (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    "empty": (b"", "empty; expected data"),
}  # fmt: skip
SAMPLE = [{"x": np.arange(6.0).reshape(2, 3), "y": (np.arange(3), "text", b"raw", 1.5)}, np.float32(1)]
