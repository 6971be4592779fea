"""The assistant's HTTP server: OpenAI's interface over a `Solver`, and a page that uses it.

wire.py     what requests say and replies look like
app.py      the endpoints
work.py     requests under way, and the limits that they keep
guard.py    who may ask: the Host and Origin headers, the key
failure.py  errors that nobody foresaw
"""
