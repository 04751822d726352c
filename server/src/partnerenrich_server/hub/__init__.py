"""
The identity hub: what the pages of a shop may read of their visitor, and where their events come in.

A request goes through `protocol` (heads that are too long or too slow), `edge` (request id, log, metrics, no stack
trace), `endpoints` (whose site, which origin, which method) and then one function of `api`. `app` puts them together,
`serving` runs them.
"""
