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
INSERT INTO {keyspace}.labels
  (usecase, event_id, label_time, label, assumed, topic_partition, topic_offset, weight)
VALUES (?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?
"""

SELECT_SCORES = "SELECT event_id, record FROM {keyspace}.scores WHERE usecase = ? AND event_id IN ?"

SELECT_ENTITY_DAY = """
SELECT event_id, to_unix_timestamp(event_time), score, decision, model_id FROM {keyspace}.scores_by_entity
WHERE usecase = ? AND entity = ? AND id = ? AND day = ? LIMIT ?
"""

SELECT_LABELS = """
SELECT event_id, to_unix_timestamp(label_time), label, assumed, topic_partition, topic_offset, weight
FROM {keyspace}.labels WHERE usecase = ? AND event_id IN ?
"""

INSERT_ENTITY_STATE = """
INSERT INTO {keyspace}.entity_states (name, bucket, entity, position, state) VALUES (?, ?, ?, ?, ?) USING TTL ?
"""

SELECT_ENTITY_STATES = """
SELECT entity, position, state FROM {keyspace}.entity_states
WHERE name = ? AND bucket = ? AND (entity, position) > (?, ?) LIMIT ?
"""

DELETE_ENTITY_STATES = """
DELETE FROM {keyspace}.entity_states WHERE name = ? AND bucket = ? AND entity IN ? AND position < ?
"""

INSERT_ENTITY_SNAPSHOT = """
INSERT INTO {keyspace}.entity_snapshots (name, position, record) VALUES (?, ?, ?) USING TIMESTAMP ?
"""

SELECT_ENTITY_SNAPSHOT = "SELECT position, record FROM {keyspace}.entity_snapshots WHERE name = ?"

INSERT_ANNOUNCEMENT_PART = """
INSERT INTO {keyspace}.model_announcements (usecase, announcement, part, parts, record)
VALUES (?, ?, ?, ?, ?) USING TIMESTAMP ? AND TTL ?
"""

SELECT_ANNOUNCEMENT_PARTS = """
SELECT parts, record FROM {keyspace}.model_announcements WHERE usecase = ? AND announcement = ? AND part = ?
"""

INSERT_MODEL = """
INSERT INTO {keyspace}.models
  (usecase, created_at, model_id, recipe, feature_set, parent, examples_learnt, example_offsets, metrics,
   state_bytes, announcement, kept_until)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?
"""

INSERT_MODEL_BY_DAY = """
INSERT INTO {keyspace}.models_by_day
  (usecase, day, created_at, model_id, recipe, feature_set, parent, examples_learnt, example_offsets, metrics,
   state_bytes, announcement, kept_until)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?
"""

SELECT_MODELS = """
SELECT to_unix_timestamp(created_at), model_id, recipe, feature_set, parent, examples_learnt, example_offsets,
  metrics, state_bytes, announcement, to_unix_timestamp(kept_until)
FROM {keyspace}.models
WHERE usecase = ? AND model_id = ? LIMIT ?
"""

SELECT_MODELS_OF_DAY = """
SELECT to_unix_timestamp(created_at), model_id, recipe, feature_set, parent, examples_learnt, example_offsets,
  metrics, state_bytes, announcement, to_unix_timestamp(kept_until)
FROM {keyspace}.models_by_day
WHERE usecase = ? AND day = ? AND (created_at, model_id) < (?, ?) LIMIT ?
"""

INSERT_ALIAS_CHANGE = """
INSERT INTO {keyspace}.model_aliases
  (usecase, year, changed_at, topic_offset, alias, recipe, model_id, changed_by, reason, created_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?
"""

SELECT_ALIAS_CHANGES = """
SELECT to_unix_timestamp(changed_at), topic_offset, alias, recipe, model_id, changed_by, reason,
  to_unix_timestamp(created_at)
FROM {keyspace}.model_aliases WHERE usecase = ? AND year = ? AND (changed_at, topic_offset) < (?, ?) LIMIT ?
"""


def schema(keyspace: str) -> list[str]:
    """Return the statements that create the keyspace and its tables where they are missing."""
    text = Path(__file__).with_name("schema.cql").read_text(encoding="utf-8")
    statements = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("--"))
    filled = Template(statements).substitute(keyspace=keyspace)
    return [statement.strip() for statement in filled.split(";") if statement.strip()]
