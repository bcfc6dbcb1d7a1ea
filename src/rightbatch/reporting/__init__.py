"""Results for people: tables for the terminal, figures, and one offline HTML file.

Everything here is made from the JSON document a command prints, so a stored result
can be shown again at any time. ``tables`` needs rich; ``html`` needs of plotly its
plotly.js alone, and makes its figures only for those who ask for one. Nothing here
needs torch.
"""
