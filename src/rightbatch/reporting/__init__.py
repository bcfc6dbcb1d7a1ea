"""Results for people: tables for the terminal, figures, and one offline HTML file.

Everything here is made from the JSON document a command prints, so a stored result
can be shown again at any time. ``tables`` needs rich, ``html`` plotly.js, which comes with
plotly; its figures are made for those who ask for one. Nothing here needs torch.
"""
