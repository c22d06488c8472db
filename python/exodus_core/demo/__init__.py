"""A demonstration in three parts: ``python -m exodus_core.demo``.

``claim`` compares the gradients of the three algorithms, ``fit`` fits a spike train, ``digits`` trains a
classifier on handwritten digits. Each module runs its experiment in a function of its own name, which
returns a plain result; its ``plot`` draws the picture and its ``table`` gives the numbers.
"""
