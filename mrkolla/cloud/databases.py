"""The databases of a region: asked, and dumped, by the clients in its MariaDB's container.

The dump is one transaction's view of all databases of the services, with a statement a row: rows can be counted, and
those with secrets left out, as it comes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import IO

from mrkolla.base import remote
from mrkolla.base.errors import LackError
from mrkolla.base.remote import Host
from mrkolla.config.placement import Region
from mrkolla.kolla.places import DATABASE_PORT
from mrkolla.results.secrets import Blanks

# The password comes by standard input and goes on by the environment: a command line can be read by everybody.
_IN_CONTAINER = """
IFS= read -r MYSQL_PWD && export MYSQL_PWD || exit 1
exec docker exec --interactive --env MYSQL_PWD mariadb sh -c '
    program=$(command -v "$1" || command -v "$2") || { echo "there is no $1" >&2; exit 1; }
    shift 2
    exec "$program" "$@"
' sh "$@"
"""
_ASK_S, _DUMP_S = 60.0, 3600.0
_SERVER, _DUMPER = ("mariadb", "mysql"), ("mariadb-dump", "mysqldump")
_OURS = "table_schema NOT IN ('information_schema', 'mysql', 'performance_schema', 'sys')"
_OPTIONS: tuple[str, ...] = (
    "--single-transaction",
    "--quick",
    "--skip-lock-tables",
    "--no-autocommit",
    "--routines",
    "--hex-blob",
)
_OPTIONS += ("--skip-extended-insert", "--default-character-set=utf8mb4")
_ROW = re.compile(rb"INSERT INTO `((?:[^`]|``)+)` ")
_USE = re.compile(rb"USE `((?:[^`]|``)+)`;")
_END = b"-- Dump completed"
#: Names of tables and columns that hold secrets. Nova's cells are URLs with passwords, user_data is what users wish.
_SECRET_TABLE = re.compile("credential|token|password", re.IGNORECASE)
_SECRET_COLUMN = re.compile(
    "passw|passphrase|secret|token|encrypted|private_key|transport_url|database_connection|provider_auth"
    "|^(?:user_data|psk)$",
    re.IGNORECASE,
)


@dataclass
class Dump:
    """What a dump has: the rows of each table, by database; and the rows that it does not have, with the reason."""

    rows: dict[str, dict[str, int]] = field(default_factory=dict)
    left_out: list[tuple[str, int, str]] = field(default_factory=list)


class Databases:
    """The MariaDB of ``region``, reached on ``host`` with the ``password`` of its administrator.

    ``since``: as of :func:`mrkolla.base.remote.reading`.
    """

    def __init__(self, region: Region, host: Host, password: str, since: int | None = None) -> None:
        self._region, self._host, self._password, self._since = region, host, f"{password}\n".encode(), since

    def _argv(self, programs: tuple[str, str], *arguments: str) -> list[str]:
        where = ["--host", self._region.vip, "--port", str(DATABASE_PORT), "--user", "root"]
        return ["sh", "-c", _IN_CONTAINER, "sh", *programs, *where, *arguments]

    def _reading(self, argv: list[str], input: bytes, timeout: float) -> AbstractContextManager[IO[bytes]]:
        return remote.reading(self._host, argv, self._password + input, timeout=timeout, since=self._since)

    def ask(self, statement: str) -> list[list[str]]:
        """The rows that a statement gives. Raises LackError."""
        argv = self._argv(_SERVER, "--batch", "--skip-column-names")
        with self._reading(argv, statement.encode(), _ASK_S) as stream:
            text = stream.read().decode()
        return [line.split("\t") for line in text.splitlines()]

    def size(self) -> int:
        """About how many bytes they take. Raises LackError."""
        rows = self.ask(f"SELECT SUM(data_length + index_length) FROM information_schema.tables WHERE {_OURS}")
        return int(rows[0][0]) if rows and rows[0][0] != "NULL" else 0

    def dump(self, write: Callable[[bytes], object], blanks: Blanks | None, say: Callable[[str], None]) -> Dump:
        """Hand the dump to ``write``, piece by piece; without secrets where there are ``blanks``.

        Raises LackError, also for a dump that is cut off.
        """
        columns = self.ask(
            "SELECT table_schema, table_name, column_name FROM information_schema.columns"
            f" JOIN information_schema.tables USING (table_schema, table_name)"
            f" WHERE table_type = 'BASE TABLE' AND {_OURS} ORDER BY 1, 2, ordinal_position"
        )
        if not columns:
            raise LackError(f"{self._host.name}: there is no database in its MariaDB")
        secret = _secret(columns) if blanks else {}
        dump = Dump()
        for database, table, _ in columns:
            dump.rows.setdefault(database, {})[table] = 0
        if secret:
            each = [f"SELECT '{name}', COUNT(*) FROM `{name.replace('.', '`.`', 1)}`" for name in secret]
            counts = self.ask(" UNION ALL ".join(each))
            dump.left_out += [(name, int(count), secret[name]) for name, count in counts if int(count)]
        argv = self._argv(
            _DUMPER, *_OPTIONS, *(f"--ignore-table-data={name}" for name in secret), "--databases", *dump.rows
        )
        dropped: Counter[str] = Counter()
        with self._reading(argv, b"", _DUMP_S) as stream:
            last = b""
            for database, table, line in _located(stream, say):
                output = line
                if table and blanks:
                    output = blanks.known(line)
                    if blanks.suspicious(output):
                        dropped[f"{database}.{table}"] += 1
                        continue
                if table:
                    dump.rows[database][table] += 1
                write(output)
                last = line
        if not last.startswith(_END):
            raise LackError(f"{self._host.name}: the dump of its databases was cut off")
        dump.left_out += [(name, count, "they look like secrets") for name, count in sorted(dropped.items())]
        return dump


def _secret(columns: list[list[str]]) -> dict[str, str]:
    """Each table (DATABASE.TABLE) that may hold secrets, and why."""
    tables: dict[str, str] = {}
    for database, table, column in columns:
        if _SECRET_TABLE.search(table):
            tables.setdefault(f"{database}.{table}", "the table may hold secrets")
        elif _SECRET_COLUMN.search(column):
            tables.setdefault(f"{database}.{table}", f"its column {column} may hold secrets")
    return tables


def _located(lines: Iterable[bytes], say: Callable[[str], None]) -> Iterator[tuple[str, str, bytes]]:
    """Each line of a dump, with its database, and its table if it is a row of one."""
    database = ""
    for line in lines:
        if used := _USE.match(line):
            database = _name(used[1])
            say(database)
        row = _ROW.match(line)
        yield database, _name(row[1]) if row else "", line


def _name(quoted: bytes) -> str:
    return quoted.decode().replace("``", "`")
