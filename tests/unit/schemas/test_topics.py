"""The topic catalogue: names, partitions, retention, and Kafka's words for them."""

from schemas.topics import DAY_MS, MB, Topic, catalogue

FRAUD = catalogue("fraud", "transactions", ("terminal",), 4)
BY_NAME = {topic.name: topic for topic in FRAUD}


def test_the_catalogue_names_every_topic_of_a_use_case():
    """Topics are `<usecase>.<noun>`, each once."""
    assert [topic.name for topic in FRAUD] == [
        "fraud.transactions", "fraud.by-terminal", "fraud.labels", "fraud.scores", "fraud.examples", "fraud.models",
        "fraud.aliases", "fraud.lists", "fraud.dlq",
    ]  # fmt: skip


def test_a_hop_a_further_entity():
    """A use case of one entity has no hop, one of three has two, in the order of its stages."""
    assert catalogue("ctr", "impressions", (), 1).hops == ()
    hops = catalogue("x", "events", ("a", "b"), 1).hops
    assert [topic.name for topic in hops] == ["x.by-a", "x.by-b"]


def test_a_deployment_shares_nothing_but_the_inputs():
    """One beside another reads the same events, labels and lists; whatever it writes has a name of its own."""
    beside = catalogue("fraud", "transactions", ("terminal",), 4, "fraud.v2")
    shared = {topic.name for topic in beside} & BY_NAME.keys()
    assert shared == {"fraud.transactions", "fraud.labels", "fraud.lists"}
    assert {topic.name for topic in beside} - shared == {
        "fraud.v2.by-terminal", "fraud.v2.scores", "fraud.v2.examples", "fraud.v2.models", "fraud.v2.aliases",
        "fraud.v2.dlq",
    }  # fmt: skip


def test_a_deployment_that_publishes_writes_the_public_scores_too():
    """The public topic is the one that the unnamed deployment writes, which has no second one to write."""
    beside = catalogue("fraud", "transactions", ("terminal",), 4, "fraud.v2", publishing=True)
    assert beside.published == FRAUD.scores
    assert beside.published in list(beside)
    assert catalogue("fraud", "transactions", ("terminal",), 4, publishing=True).published is None


def test_what_has_one_order_has_one_partition():
    """Everything scales with the partitions asked for but what has to be read in one order."""
    assert {name: topic.partitions for name, topic in BY_NAME.items()} == {
        "fraud.transactions": 4,
        "fraud.by-terminal": 4,
        "fraud.labels": 4,
        "fraud.scores": 4,
        "fraud.examples": 1,
        "fraud.models": 1,
        "fraud.aliases": 1,
        "fraud.lists": 1,
        "fraud.dlq": 1,
    }


def test_labels_outlast_their_delay():
    """Labels come days late, and a score must wait for them: both are kept longer than the events."""
    assert FRAUD.labels.retention_ms > FRAUD.events.retention_ms
    assert FRAUD.scores.retention_ms >= FRAUD.labels.retention_ms


def test_a_dead_letter_has_room_for_any_record():
    """A record as large as a topic takes fits into the DLQ with its headers on top."""
    assert FRAUD.dlq.max_message_bytes > max(topic.max_message_bytes for topic in (FRAUD.events, FRAUD.labels))


def test_the_last_model_stays():
    """Models are compacted and never expire, so a scorer that starts finds the last one."""
    assert FRAUD.models.config() == {
        "retention.ms": "-1",
        "max.message.bytes": str(16 * MB),
        "cleanup.policy": "compact",
    }


def test_a_topic_says_its_configuration_in_kafkas_words():
    """Values are strings, as Kafka's admin protocol wants them; a week is kept unless told."""
    assert Topic("a", 1).config() == {
        "retention.ms": str(7 * DAY_MS),
        "max.message.bytes": str(4 * MB),
        "cleanup.policy": "delete",
    }
