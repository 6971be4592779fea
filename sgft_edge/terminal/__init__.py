"""What the doors share: how a command runs, its options, and what it shows.

It imports the solver and all below it. Begin with run.py.

run.py       errors become one line and an exit status
streams.py   standard input, output and error, whatever they are
words.py     names of files and models, as they are typed
options.py   options that several doors have
display.py   events and solutions on a terminal; progress.py: a bar
batch.py     a file of questions
session.py   a conversation
"""
