"""The assistant's HTTP server: OpenAI's interface over a `Solver`, and a page that uses it.

It imports the solver and `reasoning`. Begin with app.py.

fields.py   the fields of a request: their kinds, bounds and descriptions
wire.py     what requests say and replies look like
replies.py  replies as JSON Schema; openapi.py describes the whole server by these and the fields
app.py      the endpoints
work.py     requests under way, and the limits that they keep
metrics.py  what was done, for Prometheus
connection.py
            connections, bounded where uvicorn would wait without end
guard.py    who may ask: the Host and Origin headers, the key
failure.py  errors that nobody foresaw
web/        the page: app.js; api.js asks, reply.js adds up the events, view.js and markdown.js show them
"""
