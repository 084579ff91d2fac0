"""What every use case that ships must be."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from streams.decisions.policy import DECISIONS, REVIEW, Rule
from streams.features.table import EntityTable
from streams.usecases import USECASES


@pytest.fixture(params=USECASES.values(), ids=USECASES)
def usecase(request):
    return request.param


def test_a_use_case_is_found_by_its_name(usecase):
    """The name on the command line, in the topics and in the catalogue is one name."""
    assert USECASES[usecase.name] is usecase
    assert all(topic.name.startswith(f"{usecase.name}.") for topic in usecase.topics(2))


def test_its_topics_follow_its_stages(usecase):
    """The first entity's events are public, each further entity has a hop of its own."""
    topics = usecase.topics(3)
    assert topics.events.name == f"{usecase.name}.{usecase.noun}"
    assert [topic.name for topic in topics.hops] == [f"{usecase.name}.by-{entity}" for entity in usecase.entities[1:]]
    assert usecase.entities == tuple(stage.entity for stage in usecase.features.stages)
    assert len({topic.name for topic in topics}) == len(list(topics))


def test_it_names_fields_of_its_event(usecase):
    """Ids and keys are strings of the event, values its numbers, the time whole milliseconds."""
    types = {field.name: field.type for field in msgspec.inspect.type_info(usecase.event).fields}
    keys = [usecase.event_id, *(stage.key for stage in usecase.features.stages)]
    assert all(isinstance(types[name], msgspec.inspect.StrType) for name in keys)
    assert all(
        isinstance(types[name], msgspec.inspect.FloatType | msgspec.inspect.IntType) for name in usecase.features.values
    )
    assert isinstance(types[usecase.event_time], msgspec.inspect.IntType)


def test_its_features_can_be_kept(usecase):
    """Every stage's windows fit the state bytes, and an empty table has the stage's columns."""
    for stage in usecase.features.stages:
        assert EntityTable(stage, usecase.features).states() == {}


def test_its_decisions_rise_with_the_score(usecase):
    """Whatever is at stake, a higher score is never decided more mildly; rules are over features it has."""
    scores = np.linspace(0.0, 1.0, 101)
    amount = usecase.features.names.index(usecase.policy.costs.amount)
    for stake in (1.0, 50.0, 1e4):
        rows = np.zeros((len(scores), len(usecase.features.names)))
        rows[:, amount] = stake
        severity = [DECISIONS.index(decision) for decision in usecase.verdicts.decide(rows, scores)]
        assert severity == sorted(severity)
        assert severity[0] == 0


def test_a_policy_over_no_feature_is_refused(usecase):
    """A misspelt feature ends the start, and is named."""
    policy = replace(usecase.policy, rules=(Rule("no_such_feature", 1, REVIEW),))
    with pytest.raises(ValueError, match="no_such_feature"):
        replace(usecase, policy=policy)


def test_its_deployments_have_nothing_of_each_others(usecase):
    """Groups, topics and the names of states and rows differ, the public inputs do not."""
    beside = usecase.deployed("v2")
    assert usecase.deployed("") == usecase
    assert usecase.full_name == usecase.name
    assert beside.full_name == f"{usecase.name}.v2"
    assert beside.group("stages") != usecase.group("stages")
    shared = {topic.name for topic in beside.topics(2)} & {topic.name for topic in usecase.topics(2)}
    inputs = usecase.topics(2)
    assert shared == {inputs.events.name, inputs.labels.name, inputs.lists.name}
    assert usecase.deployed("v2", publishing=True).topics(2).published == usecase.topics(2).scores
