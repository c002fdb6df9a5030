"""The sizes that the messages of an Arrow file or stream state for their buffers, which pyarrow allocates unasked."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from onecycle.core.reading import Budget
from onecycle.tables.values import import_pyarrow

# https://arrow.apache.org/docs/format/Columnar.html and its .fbs files: numbers of fields, sizes of structs
_HEADER_TYPE, _HEADER, _DICTIONARY_DATA, _BUFFERS, _COMPRESSION = 1, 2, 1, 2, 3
_FOOTER_DICTIONARIES, _FOOTER_BATCHES = 2, 3
_BLOCK_BYTES, _BUFFER_BYTES, _LENGTH_BYTES = 24, 16, 8
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
_TAIL_BYTES = 10  # the length of the footer, and ARROW1


def check_buffer_sizes(path: Path, is_file: bool, max_bytes: int) -> int:
    """Return the bytes that the compressed buffers of an Arrow file (or stream) take together, by what they state.

    Raises FileError if a record batch, or all dictionaries, take more than `max_bytes`, and struct.error or what
    pyarrow raises for a damaged file.
    """
    pa, _ = import_pyarrow()
    dictionaries, total = Budget(path, max_bytes), 0
    with pa.memory_map(str(path)) as source:
        for message in _file_messages(source) if is_file else pa.ipc.MessageReader.open_stream(source):
            root = _Table.root(message.metadata)
            batch, is_dictionary = root.child(_HEADER), root.byte(_HEADER_TYPE) == _DICTIONARY_BATCH
            if batch is None or root.byte(_HEADER_TYPE) not in (_DICTIONARY_BATCH, _RECORD_BATCH):
                continue
            batch = batch.child(_DICTIONARY_DATA) if is_dictionary else batch
            size = 0 if batch is None or batch.child(_COMPRESSION) is None else _stated_bytes(batch, message.body)
            (dictionaries if is_dictionary else Budget(path, max_bytes)).spend(size)
            total += size
    return total


def _file_messages(source: Any) -> Iterator[Any]:
    """Yield the messages that the footer of an Arrow file names."""
    pa, _ = import_pyarrow()
    (length,) = struct.unpack_from("<i", source.read_at(_TAIL_BYTES, source.size() - _TAIL_BYTES))
    start = source.size() - _TAIL_BYTES - length
    if not 0 <= start < source.size():
        raise struct.error("its footer has no place in it")
    footer = _Table.root(source.read_at(length, start))
    for field in (_FOOTER_DICTIONARIES, _FOOTER_BATCHES):
        for at in footer.items(field, _BLOCK_BYTES):
            source.seek(footer.read("<q", at))
            yield pa.ipc.read_message(source)


def _stated_bytes(batch: "_Table", body: Any) -> int:
    """Return the uncompressed bytes that the buffers of a compressed batch begin with (-1: it is not compressed)."""
    total, content = 0, memoryview(body)
    for at in batch.items(_BUFFERS, _BUFFER_BYTES):
        start, length = batch.read("<q", at), batch.read("<q", at + 8)
        if length >= _LENGTH_BYTES and 0 <= start <= len(content) - _LENGTH_BYTES:
            (stated,) = struct.unpack_from("<q", content, start)
            total += stated if stated >= 0 else length
    return total


class _Table:
    """A table of a FlatBuffer: fields by number. Reading outside of the buffer raises struct.error."""

    def __init__(self, content: memoryview, position: int) -> None:
        self._content, self._position = content, position
        self._fields = position - self.read("<i", position)

    @classmethod
    def root(cls, content: Any) -> "_Table":
        view = memoryview(content)
        return cls(view, struct.unpack_from("<I", view)[0])

    def read(self, form: str, at: int) -> int:
        """Read a number."""
        if at < 0:  # which struct counts from the end
            raise struct.error("an offset points outside of its message")
        return struct.unpack_from(form, self._content, at)[0]

    def byte(self, field: int) -> int:
        """Return a number of one byte, 0 if the field is left out."""
        at = self._field(field)
        return self.read("<B", at) if at else 0

    def child(self, field: int) -> "_Table | None":
        """Return the table in a field, None if it is left out."""
        at = self._field(field)
        return _Table(self._content, at + self.read("<I", at)) if at else None

    def items(self, field: int, size: int) -> range:
        """Return where the structs of `size` bytes in a field begin."""
        at = self._field(field)
        start = at + self.read("<I", at) if at else 0
        count = self.read("<I", start) if at else 0
        if count * size > len(self._content):
            raise struct.error("a list is longer than its message")
        return range(start + 4, start + 4 + count * size, size)

    def _field(self, field: int) -> int:
        entry = 4 + 2 * field
        offset = self.read("<H", self._fields + entry) if entry < self.read("<H", self._fields) else 0
        return self._position + offset if offset else 0
