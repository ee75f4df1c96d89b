"""Which nodes of a DuckDB table of edges hang together?"""

import duckdb

from vlm_prep.sql import read_sql


def label_components(index: duckdb.DuckDBPyConnection) -> None:
    """Make ``labels`` (node, label) of ``edges`` (node, hub): the least hub of all that a node reaches.

    Nodes at one hub are together, and so on, whatever chain of hubs holds them together.
    """
    index.execute("create table labels as select node, min(hub) as label from edges group by node")
    while _spread(index):
        pass
    index.execute("drop table edges; drop table next_labels")


def _spread(index: duckdb.DuckDBPyConnection) -> bool:
    """True while labels still change."""
    index.execute(read_sql("spread_labels.sql"))
    question = "select count(*) from labels join next_labels using (node) where labels.label <> next_labels.label"
    row = index.execute(question).fetchone()
    assert row is not None
    index.execute("create or replace table labels as select * from next_labels")
    return bool(row[0])
