"""
Where enriched events go on: a Redis Stream or a Kafka topic.

`writer` says what writing means and opens what a configuration names; each kind has a module, which is imported when
it is named.
"""
