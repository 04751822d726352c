"""
A shop whose page is served by a hub over sandboxes: the tour of `partnerenrich demo`.

`playbill` finds out, from enriched sample events, who may log in and which attribute decides the hero; `backend` is the
shop's own server side, which signs its customers' ids; `feed` keeps what became of the last events; `pages` serves the
files of `page/`. `serving` puts a hub, a store and all of these together.
"""
