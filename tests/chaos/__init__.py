"""The fault campaign: everything that may happen, at once, under load, against an oracle (`make chaos`).

`workload` is what producers send, `load` sends it; `fleet` keeps the processes running; `faults` is what befalls them;
`oracle` says what must come of it, `found` what has, `verdict` where they differ. `members` are the faults of clusters.

Each fault alone is an integration test (tests/integration):

    a worker is killed                      test_killed_worker.py, and at every step boundary test_fault_points.py
    a million entities in state             test_recovery.py
    workers come and go                     test_faults.py::test_workers_come_and_go_without_a_trace
    a worker is suspended and wakes         test_faults.py::test_a_worker_that_wakes_late_is_fenced
    a worker makes no progress              test_health.py::test_a_worker_that_makes_no_progress_ends_and_is_replaced
    the learner is killed                   test_learner.py::test_killed_again_and_again_the_model_is_the_same
    the history is killed                   test_history.py::test_a_killed_process_loses_nothing
    Kafka is away                           test_health.py::test_kafka_may_be_away
    Redis is away                           test_health.py::test_redis_may_be_away
    Redis comes back older                  test_faults.py::test_a_valkey_that_goes_back_in_time_is_caught_up_with
    Redis is wiped                          test_faults.py::test_a_wiped_valkey_is_rebuilt_from_kafka
    Redis holds a flipped byte              test_faults.py::test_a_damaged_key_is_set_aside_and_rebuilt
    Cassandra is away                       test_history.py::test_cassandra_may_be_away
    a Redis Cluster loses a master          test_redis_cluster.py
    a broker and a master of three die      test_cluster.py (`make cluster`)
    a model is damaged                      test_learner.py::test_damaged_models_are_passed_over
    negatives are assumed while killed      test_matured.py
    a label comes before its event          test_history.py::test_a_slow_history_makes_no_label_unknown
"""
