"""Rights: who may do what, as one table; what it leaves out is forbidden."""

import re
from dataclasses import fields

import pytest
from kafka.errors import ClusterAuthorizationFailedError, SecurityDisabledError

from infra.cassandra import schema
from services.rights import cassandra, kafka, redis
from services.rights.__main__ import main
from services.rights.table import OUTSIDERS, Rights, table, user
from streams.usecases import USECASES

FRAUD = USECASES["fraud"]
TABLE = table(FRAUD, 4)
TOPICS = {topic.name for topic in FRAUD.topics(4)}


def test_who_sends_events_reads_nothing_and_who_reads_scores_sends_nothing():
    """The systems around have one door each."""
    assert set(OUTSIDERS) < set(TABLE)
    assert TABLE["producer"] == Rights(writes=("fraud.transactions",))
    assert TABLE["consumer"] == Rights(reads=("fraud.scores",), groups=("fraud-consumer*",))


def test_each_thing_has_few_who_write_it():
    """Scores come from the workers alone, models from the learner, examples from the join, states from the workers.

    An operator may send back what has died of them, and announce what was learnt again.
    """

    def writers(name: str) -> set[str]:
        return {service for service, rights in TABLE.items() if name in (*rights.writes, *rights.modifies)}

    assert writers("fraud.scores") == {"worker", "operator"}
    assert writers("fraud.models") == {"learner", "operator"}
    assert writers("fraud.examples") == {"history", "operator"}
    assert writers("fraud.transactions") == {"producer", "simulator", "operator"}
    assert writers("fraud.lists") == {"operator"}
    assert writers("entity_states") == {"worker"}
    assert writers("scores") == {"history"}
    assert {service for service, rights in TABLE.items() if rights.states} == {"worker"}


def test_the_operator_may_do_what_the_commands_do():
    """Promote, roll back and relearn; block and allow; send dead letters back with a receipt; watch a switch-over."""
    operator, topics = TABLE["operator"], FRAUD.topics(4)
    changed = {topics.models, topics.aliases, topics.lists, topics.dlq}
    assert set(operator.writes) == {topic.name for topic in changed.union(topics.taking_back)}
    assert set(operator.reads) == {topic.name for topic in changed | {topics.examples, topics.scores}}
    assert operator.watches == ("fraud-stages", "fraud-learner")
    assert operator.groups + operator.states + operator.modifies == ()
    assert "fraud.scores" in table(FRAUD.deployed("v2", True), 4)["operator"].reads


def test_nothing_is_forgotten():
    """Every topic is written and read by somebody, and every table of the schema written."""
    assert {name for rights in TABLE.values() for name in rights.writes} == TOPICS
    assert {name for rights in TABLE.values() for name in rights.reads} == TOPICS
    made = re.findall(r"CREATE TABLE IF NOT EXISTS k\.(\w+)", "\n".join(schema("k")))
    assert {name for rights in TABLE.values() for name in rights.modifies} == set(made)


def test_another_deployment_has_its_own_topics_states_and_groups():
    """Beside the unnamed one, it may publish its scores; it touches nothing else of it."""
    rights = table(FRAUD.deployed("v2", True), 4)["worker"]
    assert rights.states == ("{fraud.v2.customer.", "{fraud.v2.terminal.")
    assert rights.groups == ("fraud.v2-stages",)
    assert set(rights.writes) == {"fraud.v2.by-terminal", "fraud.v2.scores", "fraud.v2.dlq", "fraud.scores"}
    assert not TABLE["worker"].states[0].startswith(rights.states[0])
    assert not rights.states[0].startswith(TABLE["worker"].states[0])


def test_in_the_words_of_kafka():
    """An operation is allowed on a name, or on all that begin so; what is implied is not said again."""
    rights = Rights(reads=("a",), writes=("b",), sees=("a", "b", "c"), groups=("g*",), watches=("h",))
    assert [str(entry) for entry in kafka.allowed("u", rights)] == [
        "--allow-principal User:u --operation Read --topic a",
        "--allow-principal User:u --operation Write --topic b",
        "--allow-principal User:u --operation Describe --topic c",
        "--allow-principal User:u --operation Read --group g --resource-pattern-type prefixed",
        "--allow-principal User:u --operation Describe --group h",
    ]


def test_who_may_not_grant_is_told_by_which_setting():
    """Where nobody can, the setting is not to blame."""
    assert str(kafka.refused("a:1", ClusterAuthorizationFailedError())).startswith("HEADRACE_KAFKA_USER: Kafka at a:1 ")
    assert str(kafka.refused("a:1", SecurityDisabledError())).endswith("(SecurityDisabledError): has it an authorizer?")


def test_in_the_words_of_redis():
    """A rule gives keys and commands, none of which is for administrators, and takes nothing from the user."""
    rule = redis.rule(TABLE["worker"])
    assert rule is not None
    assert rule[:2] == ["~{fraud.customer.*", "~{fraud.terminal.*"]
    assert all(word.startswith("+") and "@" not in word for word in rule[2:])
    assert not {"+acl", "+config", "+flushall", "+keys", "+scan", "+del"} & set(rule)
    assert redis.rule(TABLE["learner"]) is None


def test_in_the_words_of_cassandra():
    """Grants name tables, never a keyspace."""
    assert list(cassandra.grants("u-v", Rights(selects=("t",), modifies=("t",)), "k")) == [
        'GRANT SELECT ON k.t TO "u-v"',
        'GRANT MODIFY ON k.t TO "u-v"',
    ]


def test_they_can_be_looked_at(capsys: pytest.CaptureFixture[str]):
    """`--show` asks no server; every service is there."""
    assert main(["fraud", "--show"]) == 0
    shown = capsys.readouterr().out
    assert [line[2:] for line in shown.splitlines() if line.startswith("# ")] == [user(FRAUD, name) for name in TABLE]
    assert "ACL SETUSER fraud-worker ~{fraud.customer.* " in shown
    assert 'GRANT MODIFY ON headrace.scores TO "fraud-history";' in shown


@pytest.mark.parametrize("service", TABLE)
def test_nobody_has_a_right_twice(service):
    """The table is read by people: it has no noise."""
    for spec in fields(Rights):
        held = getattr(TABLE[service], spec.name)
        assert len(held) == len(set(held))
