"""Dashboards as code: what is seen of the flow, the models and the stores, and how Grafana gets to it."""
