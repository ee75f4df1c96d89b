"""vlm-prep sql PATH QUERY."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from vlm_catalogs.console import DONE, result
from vlm_catalogs.errors import ConfigError
from vlm_prep.commands.arguments import add_credentials

if TYPE_CHECKING:
    from vlm_prep.commands.arguments import Commands

FORMATS = ("table", "csv", "json", "parquet")


def add(commands: "Commands") -> None:
    """Add the command."""
    sql = commands.add_parser(
        "sql",
        help="ask the index of a mix, of shards or of a run by SQL",
        description="Run one SELECT over the views of PATH. It reads the index and writes nothing.",
        epilog='example: vlm-prep sql mixes/qwen3_vl_normal "select dataset, count(*) from samples group by all"',
    )
    sql.add_argument("path", metavar="PATH", help="a mix (its current version), a version, shards, a CONFIG, or a run")
    sql.add_argument(
        "query", nargs="?", metavar="QUERY", help="one SELECT or WITH statement, or - to read it from stdin"
    )
    sql.add_argument("--format", choices=FORMATS, default="table", help="of the answer (default: table)")
    sql.add_argument("--output", type=Path, metavar="FILE", help="where the answer goes (default: stdout)")
    sql.add_argument("--schema", action="store_true", help="list the views and their columns instead")
    sql.add_argument("--create-db", type=Path, metavar="FILE", help="write a DuckDB file with the same views instead")
    add_credentials(sql)
    sql.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """The exit code."""
    _check_arguments(arguments)
    from vlm_prep.ask import answer_text, ask_index, create_database, describe_index, write_parquet
    from vlm_prep.staging import writing
    from vlm_prep.verify.targets import copies_for

    copies = copies_for(arguments.path, credentials=arguments.credentials)
    if arguments.schema:
        result(describe_index(arguments.path, copies=copies))
        return DONE
    if arguments.create_db is not None:
        create_database(arguments.path, arguments.create_db, copies=copies)
        result(str(arguments.create_db))
        return DONE
    rows = ask_index(arguments.path, _query(arguments.query), copies=copies)
    if arguments.format == "parquet":
        write_parquet(rows, arguments.output)
    elif arguments.output is not None:
        with writing(arguments.output):
            arguments.output.write_text(answer_text(rows, arguments.format) + "\n", encoding="utf-8")
    else:
        result(answer_text(rows, arguments.format))
    return DONE


def _check_arguments(arguments: argparse.Namespace) -> None:
    asked = [name for name in ("query", "schema", "create_db") if getattr(arguments, name)]
    if len(asked) != 1:
        raise ConfigError("vlm-prep sql: expected exactly one of QUERY, --schema and --create-db")
    if arguments.format == "parquet" and arguments.output is None:
        raise ConfigError("vlm-prep sql: --format parquet needs --output FILE")
    if arguments.output is not None and arguments.output.exists():
        raise ConfigError(f"{arguments.output}: exists already; name another file or move it away")


def _query(text: str) -> str:
    import sys

    return sys.stdin.read() if text == "-" else text
