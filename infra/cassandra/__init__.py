"""Cassandra's schema and every statement that names one of its tables; nothing else spells a table or a column.

`?` are bound in the order of the columns.
"""

from pathlib import Path
from string import Template

INSERT_SCORE = """
INSERT INTO {keyspace}.scores (usecase, event_id, event_time, score, decision, model_id, record)
VALUES (?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?
"""

INSERT_SCORE_BY_ENTITY = """
INSERT INTO {keyspace}.scores_by_entity
  (usecase, entity, id, day, event_time, event_id, score, decision, model_id)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?
"""

INSERT_LABEL = """
INSERT INTO {keyspace}.labels (usecase, event_id, label_time, label) VALUES (?, ?, ?, ?) USING TIMESTAMP ?
"""

SELECT_SCORES = "SELECT event_id, record FROM {keyspace}.scores WHERE usecase = ? AND event_id IN ?"

SELECT_ENTITY_DAY = """
SELECT event_id, to_unix_timestamp(event_time), score, decision, model_id FROM {keyspace}.scores_by_entity
WHERE usecase = ? AND entity = ? AND id = ? AND day = ? LIMIT ?
"""

SELECT_LABELS = """
SELECT event_id, to_unix_timestamp(label_time), label FROM {keyspace}.labels
WHERE usecase = ? AND event_id IN ?
"""


def schema(keyspace: str) -> list[str]:
    """Return the statements that create the keyspace and its tables where they are missing."""
    text = Path(__file__).with_name("schema.cql").read_text(encoding="utf-8")
    statements = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("--"))
    filled = Template(statements).substitute(keyspace=keyspace)
    return [statement.strip() for statement in filled.split(";") if statement.strip()]
