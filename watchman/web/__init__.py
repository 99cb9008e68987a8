"""``notify web``: a page in a browser that tells how it stands. It reads, and changes nothing.

A process of its own, so that nothing that is asked of it holds up a file:

- ``command``: the command and its options
- ``server``: the addresses, the sockets, waitress
- ``access``, ``passwords``: who may ask what, and what browsers are told to do with the answer
- ``flask_app``: what is at which path
- ``observed``: what is read, and how often
- ``queries``: the question in a query string
- ``view``, ``plot``: what the templates show, as plain text that is safe to show
"""
