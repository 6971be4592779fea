"""From text to exact values. No model, no prompt.

It imports `errors` alone. Begin with arithmetic.py.

arithmetic.py  an expression's exact value, as a rational
chain.py       expressions that name the values of those before
program.py     straight-line programs
guidance.py    numbered steps: parsing, their grammar, what is wrong with one
gbnf.py        grammars for llama.cpp
numerals.py    numbers in questions and steps
markup.py      LaTeX and Markdown as plain text; characters.py: all scripts' digits and signs
controls.py    text that does not steer a terminal
"""
