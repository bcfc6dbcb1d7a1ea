"""Results for people: tables for the terminal, figures, and one offline HTML file.

Everything here is made from the JSON document a command prints, so a stored result
can be shown again at any time. ``tables`` needs rich, ``figures`` and ``html`` plotly;
nothing here needs torch.
"""
